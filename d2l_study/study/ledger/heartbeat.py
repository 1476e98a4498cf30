"""Heartbeats: which process holds a lock, and whether it still runs.

Clocks of machines differ, by hours if nobody set them. So a process of this machine is looked up by its number. A
heartbeat of another machine counts as alive if its time is recent, or if it changes while we watch it.
"""

from __future__ import annotations

import functools
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

STALE_SECONDS = 45.0
"""After so long without renewal a heartbeat counts as dead."""

AHEAD_SECONDS = 5.0
"""A heartbeat from so far in the future shows that the clocks differ."""


@functools.cache
def machine() -> str:
    """The host, its boot and the process namespace: within them a process number names one process."""
    parts = [socket.gethostname()]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            path = Path(place)
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text().strip())  # noqa: PTH115
        except OSError:  # no Linux
            continue
    return " ".join(parts)


def new_heartbeat(mark: str, **more: Any) -> dict[str, Any]:
    """A heartbeat of this process. mark: the name of the holder; more: further plain values to be shown."""
    return {"mark": mark, "host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "beat": time.time(),
            **more}  # fmt: skip


def is_heartbeat(found: Any) -> bool:
    """Whether a value that was read has the form of a heartbeat."""
    if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in ("mark", "host", "machine")):
        return False
    return isinstance(found.get("pid"), int) and isinstance(found.get("beat"), (int, float)) \
        and math.isfinite(found["beat"])  # fmt: skip


def has_ended(found: Mapping[str, Any]) -> bool:
    """Whether the process ran on this machine and has ended; False for a process of another machine."""
    if found["machine"] != machine():
        return False
    try:
        os.kill(found["pid"], 0)
        state = Path(f"/proc/{found['pid']}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # somebody else's, or a system without /proc
        return False
    return state in ("Z", "X")  # ended, though nobody has asked for its exit code yet


def seems_alive(found: Mapping[str, Any]) -> bool:
    """Whether the heartbeat is recent by its own time, and its process has not ended."""
    return not has_ended(found) and -AHEAD_SECONDS < time.time() - found["beat"] < STALE_SECONDS


def is_alive(found: Mapping[str, Any], look_again: Callable[[], Mapping[str, Any] | None], beat_seconds: float) -> bool:
    """As `seems_alive`. A heartbeat that is not recent is watched for two and a half beats, and is alive if it changes.

    look_again: reads the heartbeat again, None if it is not there any more; beat_seconds: between two renewals."""
    if has_ended(found):
        return False
    if seems_alive(found):
        return True
    deadline = time.monotonic() + 2.5 * beat_seconds
    while time.monotonic() < deadline:
        time.sleep(min(0.2, beat_seconds / 5))
        now = look_again()
        if now is None or has_ended(now):
            return False
        if (now["mark"], now["beat"]) != (found["mark"], found["beat"]):
            return True
    return False
