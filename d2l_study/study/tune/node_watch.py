"""Whether the Ray that a study runs on still works. Where it does not, nothing is trained any more, and Ray waits.

A node that a cluster loses is a retry on another one. Where the only node is lost or stopped, or the cluster does not
answer, this command ends, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from d2l_study.study.tune import processes

CHECK_SECONDS = 5.0
STOPPED_CHECKS = 6
"""A process of Ray's counts as stopped if it is so at so many checks in a row. A job that is suspended as a whole also
goes on as a whole."""
SILENT_SECONDS = 90.0
"""A node or a cluster that has not answered for so long does not answer."""

LOST = "Ray's node on this machine was lost"
STOPPED = "Ray's node on this machine is stopped"
SILENT = "Ray's node does not answer"

NODE_PROCESSES = ("gcs_server", "raylet")
"""The processes without which a node of Ray does nothing."""

lost = threading.Event()
"""Set once a study's Ray was found not to work: then there is nothing to wait for."""


@contextlib.contextmanager
def node_watched(
    ray: Any, stop: Callable[[str], None], every: float = CHECK_SECONDS, silent: float = SILENT_SECONDS
) -> Iterator[None]:
    """While the block runs, check whether the node that was started here, or the cluster that was joined, works.

    stop: called with a reason, once, when it does not. every: seconds between checks; silent: seconds without an
    answer.
    """
    over = threading.Event()
    last_answer = [time.monotonic()]
    lost.clear()
    parts = processes.children_named(*NODE_PROCESSES)

    def report(reason: str) -> None:
        if not over.is_set():
            lost.set()
            stop(reason)
            over.set()

    def ask_ray() -> None:
        """In a thread of its own, since a question may never be answered."""
        while not over.wait(every):
            try:
                alive = any(node["Alive"] for node in ray.nodes())
            except Exception:  # Ray is being shut down, or does not answer at this moment
                continue
            last_answer[0] = time.monotonic()
            if not alive:
                report(LOST)

    def check() -> None:
        stopped = 0
        while not over.wait(every):
            states = [processes.process_state(part) for part in parts]
            stopped = stopped + 1 if "stopped" in states else 0
            if "ended" in states:
                report(LOST)
            elif stopped >= STOPPED_CHECKS:
                report(STOPPED)
            elif time.monotonic() - last_answer[0] > silent:
                report(SILENT)

    threads = [threading.Thread(target=work, name="node-watch", daemon=True) for work in (ask_ray, check)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(every)
