"""Calls that may never return."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from d2l_study import thread_calls
from d2l_study.thread_calls import ThreadCall, call_within


@pytest.fixture(autouse=True)
def abandoned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that this test leaves behind, for which the process would have to end by force."""
    mine: list[str] = []
    monkeypatch.setattr(thread_calls, "abandoned", mine)
    return mine


def test_a_call_that_never_returns_is_left_behind(abandoned: list[str]) -> None:
    never = threading.Event()
    call_within(never.wait, 0.1, "never")
    assert abandoned == ["never"]
    never.set()


def test_a_call_that_returns_leaves_nothing_behind(abandoned: list[str]) -> None:
    done: list[int] = []
    call_within(lambda: done.append(1), 10, "quick")
    assert done == [1] and not abandoned


def test_what_a_call_raises_is_raised_where_it_was_asked_for(abandoned: list[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        call_within(lambda: 1 / 0, 10, "fails")
    assert not abandoned


def test_a_call_says_whether_it_has_ended_and_what_it_raised() -> None:
    go = threading.Event()

    def fail() -> None:
        go.wait()
        raise OSError("the disk")

    call = ThreadCall(fail, "late")
    assert not call.ended(0.05) and call.error is None
    go.set()
    assert call.ended(10) and isinstance(call.error, OSError)


LEAVING = """
import atexit, sys
from d2l_study import command_line
atexit.register(print, "orderly")
print("done")
if sys.argv[2] == "ray":
    import ray
command_line.leave(int(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("code", "imported", "orderly"), [(0, "none", True), (1, "none", True), (2, "none", False), (2, "ray", True)]
)
def test_a_process_leaves_with_its_exit_code(code: int, imported: str, orderly: bool) -> None:
    """In a process of its own, which is ended by force after a mistake."""
    words = [sys.executable, "-c", LEAVING, str(code), imported]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == code
    assert done.stdout == "done\n" + orderly * "orderly\n"


HANGING = """
import threading
from d2l_study import command_line, thread_calls
threading.Thread(target=threading.Event().wait).start()
thread_calls.abandoned.append("ray")
print("done")
command_line.leave(3)
"""


def test_a_process_with_a_thread_left_behind_does_not_wait_for_it() -> None:
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and done.stdout == "done\n"


def test_no_test_ends_the_process_of_all_tests() -> None:
    with pytest.raises(AssertionError, match=r"os\._exit\(0\) in the process of the tests"):
        os._exit(0)
