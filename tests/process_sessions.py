"""Processes of a session, and where they listen: Ray's outlive a driver that is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def end_ray_of(driver: int, patience: float = 5.0) -> None:
    """What Ray started outlives a killed driver for a while: wait for it, then end what is left of its session."""
    deadline = time.monotonic() + patience
    while members := [pid for pid in session_members(driver) if pid != driver]:
        if time.monotonic() > deadline:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000")
"""127.0.0.1, the same mapped into IPv6, and ::1, as /proc/net writes them."""


def listening_beyond_loopback(pids):
    """Listening TCP sockets of these processes at other addresses than loopback."""
    inodes = set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").glob("*"):
            try:
                target = str(link.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found, seen = [], 0
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                seen += 1
                if fields[1].rpartition(":")[0] not in LOOPBACK:
                    found.append(fields[1])
    assert seen >= 5  # Ray does listen
    return found


def session_members(session: int) -> list[int]:
    """The living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found
