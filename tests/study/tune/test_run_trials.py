"""How long the driver waits for Ray Tune when a study is to stop."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest

from d2l_study import thread_calls
from d2l_study.study.tune import node_watch, run_trials
from d2l_study.study.tune.run_trials import run_until_stopped


@pytest.fixture
def abandoned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that this test leaves behind, for which the process would have to end by force."""
    mine: list[str] = []
    monkeypatch.setattr(thread_calls, "abandoned", mine)
    monkeypatch.setattr(node_watch, "lost", threading.Event())
    return mine


@pytest.mark.parametrize("how", ["asked to stop", "lost", "two Ctrl-C"])
def test_what_never_ends_is_left_after_a_time(abandoned: list[str], monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(run_trials, "STOP_SECONDS", 0.3 if how == "asked to stop" else 3600.0)
    monkeypatch.setattr(run_trials, "LOST_SECONDS", 0.3)
    stop, left_behind, never = threading.Event(), threading.Event(), threading.Event()
    if how == "lost":
        node_watch.lost.set()
    if how == "two Ctrl-C":
        monkeypatch.setattr(threading.Thread, "join", interrupted(2, threading.Thread.join))
    else:
        stop.set()
    with pytest.raises(KeyboardInterrupt) if how == "two Ctrl-C" else contextlib.nullcontext():
        run_until_stopped(never.wait, stop, left_behind)
    assert left_behind.is_set() and abandoned and stop.is_set()
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


def test_one_ctrl_c_asks_the_trials_to_end_and_waits_for_them(abandoned: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(threading.Thread, "join", interrupted(1, threading.Thread.join))
    stop, left_behind = threading.Event(), threading.Event()
    with pytest.raises(KeyboardInterrupt):
        run_until_stopped(lambda: stop.wait(60), stop, left_behind)
    assert not left_behind.is_set() and not abandoned


def test_what_ends_by_itself_is_waited_for_and_what_it_raises_is_raised(abandoned: list[str]) -> None:
    run_until_stopped(lambda: None, threading.Event(), threading.Event())
    with pytest.raises(ZeroDivisionError):
        run_until_stopped(lambda: 1 / 0, threading.Event(), threading.Event())
    assert not abandoned
