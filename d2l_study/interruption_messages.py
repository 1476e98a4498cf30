"""What a command prints when it is interrupted or the disk refuses: what stays of its work, and how to go on.

Each sentence has to be true whenever it may come: before any work, within it, and after.
"""

from __future__ import annotations

RESUMABLE = ("run", "trial")
"""Commands whose results are committed one by one."""

_STOPPED = {
    **dict.fromkeys(RESUMABLE, "what was committed is safe, and the same command goes on from there"),
    "label": "nothing had been scored yet",  # later it says itself what is kept
    "evaluate": "files of numbers are whole, or as they were before; the same command begins anew",
    "predict": "the file of scores is whole, or as it was before; the same command begins anew",
    "tile": "the slides that were done are kept, and the same command goes on from there",
    "sync": "the same command brings MLflow up to date, whatever it has already",
    "reproduce": "nothing was changed; the same command begins anew",
    "stop": "a study that was asked to end does so all the same; `status` shows whether it has",
    "prune": "the same command removes what is left to remove",
    "remove": "the same command removes what is left to remove",
    "gc": "the same command removes what is left to remove",
}


def stopped_text(command: str) -> str:
    """The line after Ctrl-C. A command that changes nothing says one word."""
    words = _STOPPED.get(command)
    return "Stopped." if words is None else f"Stopped; {words}."


def refused_text(command: str) -> str:
    """What follows the cause where something could not be read or written."""
    return "; what was committed is safe. When that is mended, give the same command" if command in RESUMABLE else ""


def machine_text(command: str) -> str:
    """What follows the cause where the machine did not do what was rightly asked."""
    busy = "; the machine may only be busy"
    return f"{busy}. What was committed is safe; give the same command again" if command in RESUMABLE else busy


def continuation_text(reason: str | None) -> str:
    """What the same `run` command does with the runs that are left. reason: why the study has ended."""
    if reason is not None and reason.startswith("another driver"):
        return "the other one goes on with them"
    if reason is not None and reason.startswith("--fail-fast"):
        return "the same command goes on from here, and without --fail-fast past what fails"
    return "the same command goes on from here"
