"""The Ray node that a study has started on this machine: without it nothing is trained any more, and Ray waits.

A node lost in a cluster is a retry on another one; the only one lost is the end of this command, and the same command
goes on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

LOOK_SECONDS = 5.0
LOST = "Ray's node on this machine was lost"


@contextlib.contextmanager
def node_watched(ray: Any, end: Callable[[str], None], every: float = LOOK_SECONDS) -> Iterator[None]:
    """While the block runs, look whether a node is alive; `end(LOST)` once there is none."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(every):
            try:
                alive = any(node["Alive"] for node in ray.nodes())
            except Exception:  # Ray is being shut down, or does not answer at this moment
                continue
            if not alive:
                end(LOST)
                return

    thread = threading.Thread(target=look, name="node-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(every)
