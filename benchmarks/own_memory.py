"""The memory that a process has for itself, watched while it works.

    with OwnMemory() as memory: ...
    memory.own_mb, memory.peak_mb

own_mb: anonymous memory (RssAnon), the most that was seen, 200 times a second: pages of mapped files do not count,
since the system takes them back when it needs room. peak_mb: everything resident, mapped files too (VmHWM).
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Self


class OwnMemory:
    def __init__(self) -> None:
        self.own_mb = self.peak_mb = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            own, peak = (int(found[name].split()[0]) // 1024 for name in ("RssAnon", "VmHWM"))
            self.own_mb, self.peak_mb = max(self.own_mb, own), max(self.peak_mb, peak)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
