"""Signs of life: who holds something that others would take too, and whether that process still runs.

Clocks of machines differ, by hours if nobody set them. So a process of this machine is asked for by its number, and of
any other the sign counts only while it changes under our eyes, or tells a time that can be true.
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
"""A sign of life that has not been renewed for so long is nobody's."""

AHEAD_SECONDS = 5.0
"""A sign from so far in the future tells that the clocks differ."""


@functools.cache
def machine() -> str:
    """Where a process number means the same process: host, boot and process namespace."""
    parts = [socket.gethostname()]
    for place in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            path = Path(place)
            parts.append(os.readlink(path) if path.is_symlink() else path.read_text().strip())  # noqa: PTH115
        except OSError:  # no Linux
            continue
    return " ".join(parts)


def sign(mark: str, **more: Any) -> dict[str, Any]:
    """A sign of life of this process. mark: whose it is; more: plain values for those who look."""
    return {"mark": mark, "host": socket.gethostname(), "machine": machine(), "pid": os.getpid(), "beat": time.time(),
            **more}  # fmt: skip


def is_sign(found: Any) -> bool:
    """Whether this has the form of one."""
    if not isinstance(found, dict) or not all(isinstance(found.get(k), str) for k in ("mark", "host", "machine")):
        return False
    return isinstance(found.get("pid"), int) and isinstance(found.get("beat"), (int, float)) \
        and math.isfinite(found["beat"])  # fmt: skip


def gone(found: Mapping[str, Any]) -> bool:
    """Whether the process is of this machine, and has ended."""
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
    """Whether the sign is recent by its own time; a process number may be somebody else's by now, so it decides too."""
    return not gone(found) and -AHEAD_SECONDS < time.time() - found["beat"] < STALE_SECONDS


def is_alive(found: Mapping[str, Any], look_again: Callable[[], Mapping[str, Any] | None], beat_seconds: float) -> bool:
    """As `seems_alive`; a sign of another time is watched for two and a half beats, and lives if it changes."""
    if gone(found):
        return False
    if seems_alive(found):
        return True
    deadline = time.monotonic() + 2.5 * beat_seconds
    while time.monotonic() < deadline:
        time.sleep(min(0.2, beat_seconds / 5))
        now = look_again()
        if now is None or gone(now):
            return False
        if (now["mark"], now["beat"]) != (found["mark"], found["beat"]):
            return True
    return False
