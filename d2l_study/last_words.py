"""What a command says at its end when it was interrupted or the disk refused: what stays of its work, and what the same
command does then. Each sentence has to be true whenever it may come: before any work, within, and after."""

from __future__ import annotations

CARRIES_ON = ("run", "trial")
"""Commands whose results are committed one by one."""

_STOPPED = {
    **dict.fromkeys(CARRIES_ON, "what was committed is safe, and the same command goes on from there"),
    "label": "nothing had been scored yet",  # later it says itself what is kept
    "sync": "the same command brings MLflow up to date, whatever it has already",
    "reproduce": "nothing was changed; the same command begins anew",
    "stop": "a study that was asked to end does so all the same; `status` shows whether it has",
    "prune": "the same command removes what is left to remove",
    "remove": "the same command removes what is left to remove",
    "gc": "the same command removes what is left to remove",
}


def stopped(command: str) -> str:
    """After Ctrl-C; of commands that change nothing a word."""
    words = _STOPPED.get(command)
    return "Stopped." if words is None else f"Stopped; {words}."


def refused(command: str) -> str:
    """After something that could not be read or written, behind its cause."""
    return "; what was committed is safe. When that is mended, give the same command" if command in CARRIES_ON else ""


def how_it_goes_on(reason: str | None) -> str:
    """What the same `run` command does for the runs that are left, by the reason for which a study has ended."""
    if reason is not None and reason.startswith("another driver"):
        return "the other one goes on with them"
    if reason is not None and reason.startswith("--fail-fast"):
        return "the same command goes on from here, and without --fail-fast past what fails"
    return "the same command goes on from here"
