"""How the driver ends Ray."""

from __future__ import annotations

import contextlib
import gc
import weakref

from d2l_study.study.engine import shut_down


class Reference:
    """As Ray's: it must not die while Ray ends."""

    def __init__(self) -> None:
        self.myself = self


class Ending:
    """Stands in Ray's place and looks, when it is ended, what the collector of another thread could find."""

    def __init__(self, left: weakref.ref[Reference], *, fails: bool = False) -> None:
        self.left, self.fails = left, fails

    def shutdown(self) -> None:
        self.cycle_was_there = self.left() is not None
        self.collector_was_on = gc.isenabled()
        if self.fails:
            raise RuntimeError("Ray does not end")


def test_ray_ends_with_no_cycle_for_another_threads_collector_to_find() -> None:
    gc.disable()
    try:
        cycle = Reference()
        left = weakref.ref(cycle)
        del cycle
        assert left() is not None  # or the test shows nothing
    finally:
        gc.enable()
    ending = Ending(left)
    shut_down(ending)
    assert not ending.cycle_was_there
    assert not ending.collector_was_on
    assert gc.isenabled()


def test_the_collector_is_on_again_after_a_failed_end_and_stays_off_for_who_has_it_off() -> None:
    ending = Ending(weakref.ref(Reference()), fails=True)
    with contextlib.suppress(RuntimeError):
        shut_down(ending)
    assert gc.isenabled()
    gc.disable()
    try:
        shut_down(Ending(weakref.ref(Reference())))
        assert not gc.isenabled()
    finally:
        gc.enable()
