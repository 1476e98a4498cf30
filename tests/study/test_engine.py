"""How the driver ends Ray."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from d2l_study import thread_calls
from d2l_study.study.tune import engine, node_watch
from d2l_study.study.tune.cluster import shut_down
from d2l_study.study.tune.engine import Reports, _points_of, until_ended


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


@pytest.fixture
def left(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Whether a process would have to end by force; of this test alone."""
    mine = threading.Event()
    monkeypatch.setattr(thread_calls, "abandoned", mine)
    monkeypatch.setattr(node_watch, "lost", threading.Event())
    return mine


@pytest.mark.parametrize("how", ["asked to end", "lost", "two Ctrl-C"])
def test_what_never_ends_is_left_after_a_time(left: threading.Event, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(engine, "ENDING_SECONDS", 0.3 if how == "asked to end" else 3600.0)
    monkeypatch.setattr(engine, "LOST_SECONDS", 0.3)
    ending, over, never = threading.Event(), threading.Event(), threading.Event()
    if how == "lost":
        node_watch.lost.set()
    if how == "two Ctrl-C":
        monkeypatch.setattr(threading.Thread, "join", interrupted(2, threading.Thread.join))
    else:
        ending.set()
    with pytest.raises(KeyboardInterrupt) if how == "two Ctrl-C" else contextlib.nullcontext():
        until_ended(never.wait, ending, over)
    assert over.is_set() and left.is_set() and ending.is_set()
    never.set()


def interrupted(times: int, join: Callable[..., None]) -> Callable[..., None]:
    """Somebody types Ctrl-C so often while a thread is waited for."""
    left = [times]

    def wait(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "tune" and left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        join(thread, timeout)

    return wait


def test_one_ctrl_c_asks_the_trials_to_end_and_waits_for_them(left: threading.Event, monkeypatch: Any) -> None:
    monkeypatch.setattr(threading.Thread, "join", interrupted(1, threading.Thread.join))
    ending, over = threading.Event(), threading.Event()
    with pytest.raises(KeyboardInterrupt):
        until_ended(lambda: ending.wait(60), ending, over)
    assert not over.is_set() and not left.is_set()


def test_what_ends_by_itself_is_waited_for_and_what_it_raises_is_raised(left: threading.Event) -> None:
    until_ended(lambda: None, threading.Event(), threading.Event())
    with pytest.raises(ZeroDivisionError):
        until_ended(lambda: 1 / 0, threading.Event(), threading.Event())
    assert not left.is_set()


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
    monkeypatch.setattr("d2l_study.study.tune.engine.time.monotonic", lambda: now)
    sent: list[dict] = []
    reports = Reports(sent.append, pause=1.0)
    for step in range(1, 8):
        now += 0.4
        reports(step, {0: {"train_loss": 0.0}})
    assert [[step for step, _ in _points_of(message)] for message in sent] == [[1, 2, 3], [4, 5, 6]]
    assert [step for step, _ in reports.points] == [7]
