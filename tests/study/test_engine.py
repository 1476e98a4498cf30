"""How the driver ends Ray."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest

from d2l_study.study.engine import Reports, _points_of, shut_down


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


def test_points_reach_the_driver_in_order_in_few_messages() -> None:
    sent: list[dict] = []
    reports = Reports(sent.append, pause=3600)
    for step in range(1, 21):
        reports(step, {0: {"train_loss": 1 / step}, 3: {"train_loss": 2 / step}})
    assert sent == []
    reports.flush(statuses={"0": "done", "3": "done"})
    reports.flush()  # nothing is left
    (message,) = sent
    assert [step for step, _ in _points_of(message)] == list(range(1, 21))
    assert list(_points_of(message))[1] == (2, {0: {"train_loss": 0.5}, 3: {"train_loss": 1.0}})
    assert message["statuses"] == {"0": "done", "3": "done"}


def test_where_trials_are_judged_every_point_is_a_message() -> None:
    sent: list[dict] = []
    reports = Reports(sent.append, pause=0.0)
    for step in (5, 10):
        reports(step, {0: {"val_bag_auc": 0.9}})
    assert [list(_points_of(message)) for message in sent] == [
        [(5, {0: {"val_bag_auc": 0.9}})],
        [(10, {0: {"val_bag_auc": 0.9}})],
    ]


def test_a_message_goes_once_the_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("d2l_study.study.engine.time.monotonic", lambda: now)
    sent: list[dict] = []
    reports = Reports(sent.append, pause=1.0)
    for step in range(1, 8):
        now += 0.4
        reports(step, {0: {"train_loss": 0.0}})
    assert [[step for step, _ in _points_of(message)] for message in sent] == [[1, 2, 3], [4, 5, 6]]
    assert [step for step, _ in reports.points] == [7]
