"""Whether the Ray that a study runs on still works: where it does not, nothing is trained any more, and Ray waits.

A node lost in a cluster is a retry on another one. The only one lost, or stopped, is the end of this command, and the
same command goes on; a cluster that does not answer is, too.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from d2l_study.study.tune import processes

LOOK_SECONDS = 5.0
STOPPED_LOOKS = 6
"""A process of Ray's is stopped if it is so at so many looks in a row: a job that is suspended whole goes on whole."""
SILENT_SECONDS = 90.0
"""A node, or a cluster, that has not answered for so long does not."""

LOST = "Ray's node on this machine was lost"
STOPPED = "Ray's node on this machine is stopped"
SILENT = "Ray's node does not answer"

PARTS = ("gcs_server", "raylet")
"""The processes without which a node of Ray does nothing."""

lost = threading.Event()
"""Set once a study's Ray was found not to work: then there is nothing to wait for."""


@contextlib.contextmanager
def node_watched(
    ray: Any, end: Callable[[str], None], every: float = LOOK_SECONDS, silent: float = SILENT_SECONDS
) -> Iterator[None]:
    """While the block runs, look whether the node that was started here, or the cluster that was joined, works;
    `end(REASON)` once it does not."""
    over = threading.Event()
    heard = [time.monotonic()]
    lost.clear()
    parts = processes.of_this_process(*PARTS)

    def found(reason: str) -> None:
        if not over.is_set():
            lost.set()
            end(reason)
            over.set()

    def ask() -> None:
        """In a thread of its own, since a question may never be answered."""
        while not over.wait(every):
            try:
                alive = any(node["Alive"] for node in ray.nodes())
            except Exception:  # Ray is being shut down, or does not answer at this moment
                continue
            heard[0] = time.monotonic()
            if not alive:
                found(LOST)

    def look() -> None:
        stopped = 0
        while not over.wait(every):
            states = [processes.state(part) for part in parts]
            stopped = stopped + 1 if "stopped" in states else 0
            if "ended" in states:
                found(LOST)
            elif stopped >= STOPPED_LOOKS:
                found(STOPPED)
            elif time.monotonic() - heard[0] > silent:
                found(SILENT)

    threads = [threading.Thread(target=work, name="node-watch", daemon=True) for work in (ask, look)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(every)
