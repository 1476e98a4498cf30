"""A disk that loses power: what a process asked of the file system is recorded, and every state is rebuilt that a loss
could leave.

What POSIX promises is little. The bytes of a file are safe once the file was synced; a name in a folder (made, linked,
renamed or removed) is safe once that folder was synced. Of all else any part may have reached the disk, in any order;
only a rename is never seen half. (T. S. Pillai et al., All File Systems Are Not Created Equal, OSDI 2014.)
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

MOST_STATES = 64
"""After each operation; where more could be left, as many are drawn."""


@dataclass
class Name:
    """A change of one name in a folder: to which file it leads from then on (None: it is gone)."""

    path: str
    file: int | None
    safe: int | None = None
    """After how many operations it cannot be lost any more."""


@dataclass
class File:
    """The bytes of a file as it was synced, and as the process had written them; a folder has none."""

    folder: bool = False
    synced: bytes | None = None
    synced_at: int | None = None
    written: bytes = b""


@dataclass
class Disk:
    """What was asked of the file system below a folder, in order; `marks` are what the caller was told by then."""

    root: str
    files: list[File] = field(default_factory=list)
    steps: list[list[Name]] = field(default_factory=list)
    marks: list[tuple[int, Any]] = field(default_factory=list)
    active: bool = True
    _now: dict[str, int] = field(default_factory=dict)

    def mark(self, what: Any) -> None:
        """From here on the caller relies on it."""
        self.marks.append((len(self.steps), what))

    # ---- what is heard
    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or event not in ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"):
            return
        first = arguments[0]
        if not isinstance(first, (str, os.PathLike)) or not (path := os.fspath(first)).startswith(self.root):
            return
        if event == "open":
            creates = isinstance(arguments[2], int) and arguments[2] & os.O_CREAT
            if creates and not os.path.lexists(path):
                self._change(Name(path, self._new(File())))
        elif event == "os.mkdir":
            if not os.path.lexists(path):
                self._change(Name(path, self._new(File(folder=True))))
        elif event in ("os.rename", "os.link"):
            target = os.fspath(arguments[1])
            if path not in self._now or (event == "os.link" and os.path.lexists(target)):
                return
            self.files[self._now[path]].written = Path(path).read_bytes()
            if event == "os.link":
                self._change(Name(target, self._now[path]))
            else:
                self._change(Name(target, self._now[path]), Name(path, None))
        elif path in self._now:
            self._change(Name(path, None))

    def synced(self, path: str) -> None:
        if not self.active or path not in self._now:
            if self.active and path == self.root:
                self._folder_synced(path)
            return
        file = self.files[self._now[path]]
        if file.folder:
            self._folder_synced(path)
        else:
            file.synced, file.synced_at = Path(path).read_bytes(), len(self.steps)
            file.written = file.synced

    def _folder_synced(self, path: str) -> None:
        for step in self.steps:
            for name in step:
                if os.path.dirname(name.path) == path and name.safe is None:  # noqa: PTH120
                    name.safe = len(self.steps)

    def _new(self, file: File) -> int:
        self.files.append(file)
        return len(self.files) - 1

    def _change(self, *names: Name) -> None:
        self.steps.append(list(names))
        for name in names:
            if name.file is None:
                self._now.pop(name.path, None)
            else:
                self._now[name.path] = name.file

    # ---- what is left
    def states(self, draw: random.Random) -> Iterator[tuple[list[Any], dict[str, bytes | None]]]:
        """Everything that a loss may leave: the marks that had been made, path -> bytes (None for a folder)."""
        for count in range(len(self.steps) + 1):
            for behind in (False, True):  # before the syncs that follow an operation, and after them
                told = [what for at, what in self.marks if at < count or (behind and at == count)]
                yield from ((told, state) for state in self._states_at(count, behind, draw))

    def _states_at(self, count: int, behind: bool, draw: random.Random) -> Iterator[dict[str, bytes | None]]:
        def is_safe(at: int | None) -> bool:
            return at is not None and (at < count or (behind and at == count))

        loose = [i for i in range(count) if not all(is_safe(name.safe) for name in self.steps[i])]
        contents = [i for i, f in enumerate(self.files) if not f.folder and not is_safe(f.synced_at)]
        choices = [(False, True)] * len(loose) + [(0, 1, 2)] * len(contents)
        total = 1
        for some in choices:
            total *= len(some)
        picks: Any = itertools.product(*choices)
        if total > MOST_STATES:
            picks = ([draw.choice(some) for some in choices] for _ in range(MOST_STATES))
        for pick in picks:
            lost = {i for i, kept in zip(loose, pick, strict=False) if not kept}
            parts = dict(zip(contents, pick[len(loose) :], strict=True))
            yield self._rebuilt(count, lost, parts)

    def _rebuilt(self, count: int, lost: set[int], parts: dict[int, int]) -> dict[str, bytes | None]:
        names: dict[str, int] = {}
        for i, step in enumerate(self.steps[:count]):
            if i in lost:
                continue
            for name in step:
                if name.file is None:
                    names.pop(name.path, None)
                else:
                    names[name.path] = name.file
        state: dict[str, bytes | None] = {}
        for path, number in sorted(names.items()):
            above = os.path.dirname(path)  # noqa: PTH120
            if above != self.root and above not in state:
                continue  # its folder was lost, and it with it
            file = self.files[number]
            if file.folder:
                state[path] = None
            else:
                whole = file.synced if number not in parts and file.synced is not None else file.written
                state[path] = whole[: len(whole) * parts.get(number, 2) // 2]
        return state

    def write(self, state: dict[str, bytes | None], target: Path) -> None:
        """The state as files below another folder."""
        for path, data in state.items():
            place = target / os.path.relpath(path, self.root)
            if data is None:
                place.mkdir(parents=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)


_disk: Disk | None = None
_hooked: list[Callable[..., None]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _disk is not None:
        _disk.heard(event, arguments)


@contextlib.contextmanager
def recorded(root: Path) -> Iterator[Disk]:
    """While the block runs, everything that this process asks of the file system below `root`, which is there."""
    global _disk
    if not _hooked:  # an audit hook cannot be taken away again
        sys.addaudithook(_hear)
        _hooked.append(_hear)
    disk = Disk(str(root))
    real = os.fsync

    def fsync(number: Any) -> None:
        real(number)
        file = number if isinstance(number, int) else number.fileno()
        disk.synced(os.readlink(f"/proc/self/fd/{file}"))  # noqa: PTH115

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        _disk = disk
        try:
            yield disk
        finally:
            _disk, disk.active = None, False
