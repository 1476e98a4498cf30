"""The cache of decoded data: what is in it is looked at before it is used, and made again if it is not what was kept.

    with one_at_a_time(lock) as alone, new_entry(folder, alone) as place:
        ...                                   # files are written to `place`
        write_meta(place, {"checksum": ...})
    meta = read_meta(folder)                  # AlteredError if it is not what was written
    check_once(folder, meta)                  # AlteredError if a file beside it is not

An entry is a folder; its `meta.json` holds the SHA-256 of every file in it, and of itself. Each process that maps an
entry computes them once: at 1.8 GB a second on one core of an AMD EPYC, that is 30 ms for MNIST. It is paid once a
process, not once a trial. So one flipped bit is found, and so is an array that was changed on purpose. Files of more
than `LARGE` bytes are read so once per machine and state: that they were found as kept, and their size, inode and times
then, is noted beside them. What changes them without a trace in these, such as a failing disk, is found by the `data`
command, which reads everything.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from d2l_study.data.memory_maps import disk_full_as_user_error
from d2l_study.environment import CACHE, cache_dir
from d2l_study.errors import UserError, first_line

FORMAT = 2
"""Of the cache's files: part of an entry's address, not of what is in it. 2: `meta.json` is sealed."""

META = "meta.json"
CHECKED = "checked.json"
"""Of an entry: machine -> large file -> the state in which it was found as kept."""

LARGE = 256 * 2**20
ADVICE = f"make room there, or name another cache folder in {CACHE}"

UNUSABLE = (OSError, EOFError, ValueError, KeyError, TypeError)
"""What opening an entry raises that is not there yet, damaged or altered."""

_nothing_decoded = ContextVar("_nothing_decoded", default=False)

_checked: dict[Path, tuple[tuple[int, ...], ...]] = {}
_digests: dict[Path, tuple[tuple[int, ...], bytes]] = {}

_SETTLED = 2_000_000_000
"""Nanoseconds since the last change of a file after which another change has another time, on any file system."""


class AlteredError(ValueError):
    """An entry of the cache is not what was kept there."""


def write_meta(folder: Path, values: dict[str, Any], known: Mapping[str, str] | None = None) -> None:
    """`meta.json` of an entry whose other files are all there. known: file -> SHA-256, of those that were hashed as
    they were written."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
    known = known or {}
    values = {**values, "files": {name: known.get(name) or _digest(folder / name) for name in names}}
    (folder / META).write_text(json.dumps({**values, "seal": _seal(values)}))
    _note_checked(folder, {name: _state(folder / name) for name in names if (folder / name).stat().st_size > LARGE})


def write_index(path: Path, values: dict[str, Any]) -> None:
    """A small file beside the entries, sealed as they are; in its place whole or not at all."""
    temporary = path.with_name(f"{path.name}-{uuid.uuid4().hex[:8]}")
    with disk_full_as_user_error(cache_dir(), ADVICE):
        try:
            temporary.write_text(json.dumps({**values, "seal": _seal(values)}))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def index_of(name: str, about: str, files: Sequence[Path]) -> Path:
    """The index that knows which entry these files make, as they are now: by their paths, sizes and times of change.
    about: what else the entry depends on."""
    seen = hashlib.sha256(f"{FORMAT}|{about}".encode())
    for path in (part for named in files for part in files_of(named)):
        try:
            stat = path.stat()
        except OSError as error:
            lost = isinstance(error, FileNotFoundError)
            raise UserError(f"{path}: " + ("no such file" if lost else f"cannot be read: {error.strerror}")) from None
        seen.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return cache_dir() / f"{name}-files" / f"{seen.hexdigest()[:24]}.json"


def files_of(path: Path) -> list[Path]:
    """The files directly in a folder, by name; of anything else itself."""
    return sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]


def read_meta(folder: Path) -> dict[str, Any]:
    """The values of an entry's `meta.json`; `AlteredError` if they are not those that were written."""
    return read_index(folder / META)


def read_index(path: Path) -> dict[str, Any]:
    """The values of a sealed file; `AlteredError` if they are not those that were written."""
    text = path.read_bytes()
    try:
        values = json.loads(text)
        seal = values.pop("seal")
    except (ValueError, AttributeError, KeyError, TypeError):
        raise AlteredError(f"{path.name} is damaged") from None
    if seal != _seal(values):
        raise AlteredError(f"{path.name} is altered")
    return dict(values)


def _seal(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def source_digest(path: Path) -> bytes:
    """The SHA-256 of a source file, which a process reads once for each state in which it meets the file. `OSError` if
    it cannot be read."""
    path = path.resolve()
    state = _state(path)
    known = _digests.get(path)
    if known is not None and known[0] == state:
        return known[1]
    settled = time.time_ns() - max(state[2:]) > _SETTLED
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    if settled:
        _digests[path] = state, digest
    return digest


def check_once(folder: Path, meta: Mapping[str, Any], whole: bool = False) -> None:
    """`AlteredError` unless the files of an entry are those that were kept.

    They are read when this process meets the entry for the first time, or when one has another size or time since;
    large ones only if nobody on this machine has read them in the state that they are in, or if `whole`.
    """
    states = {name: _state(folder / name) for name in (META, *meta["files"])}
    if not whole and _checked.get(folder) == tuple(states.values()):
        return
    known = {} if whole else _known_checked(folder)
    large = {}
    for name, digest in meta["files"].items():
        if states[name][1] > LARGE:
            if known.get(name) == states[name]:
                continue
            large[name] = states[name]
        if _digest(folder / name) != digest:
            raise AlteredError(f"{name} is not what was kept")
    _note_checked(folder, large)
    _checked[folder] = tuple(states.values())


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _known_checked(folder: Path) -> dict[str, tuple[int, ...]]:
    try:
        mine = read_index(folder / CHECKED)[platform.node()]
        return {name: tuple(state) for name, state in mine.items()}
    except UNUSABLE:
        return {}


def _note_checked(folder: Path, states: Mapping[str, tuple[int, ...]]) -> None:
    if not states:
        return
    try:
        others = read_index(folder / CHECKED)
    except UNUSABLE:
        others = {}
    with suppress(OSError, UserError):  # another user's cache: it is read again next time
        write_index(folder / CHECKED, {**others, platform.node(): {**_known_checked(folder), **states}})


def show_entries() -> None:
    """Print whether the entries of the cache folder are what was kept; those that are not are made again when they are
    next used."""
    whole, size, old = 0, 0, 0
    print(f"decoded and cut once into {cache_dir()}")
    for meta_file in sorted(cache_dir().glob(f"*/{META}")):
        folder = meta_file.parent
        try:
            meta = read_meta(folder)
            check_once(folder, meta, whole=True)
        except UNUSABLE as error:
            with suppress(*UNUSABLE):
                if "seal" not in json.loads(meta_file.read_bytes()):
                    old += 1  # of an earlier version, which did not keep what it should be
                    continue
            print(f"  {folder.name}: {_reason(error)}; it is made again when it is used")
            continue
        whole, size = whole + 1, size + sum((folder / name).stat().st_size for name in meta["files"])
    if whole:
        print(f"  {whole} entr{'ies' if whole > 1 else 'y'} of {size / 1e6:.0f} MB in all, read and found as kept")
    if old:
        print(f"  {old} of an earlier version, not used any more: they may be removed")


def warn_if_altered(folder: Path, error: BaseException) -> None:
    """A line on an entry that could not be used, unless it was only not there."""
    if folder.exists():
        print(f"warning: cache: {folder}: {_reason(error)}; it is made again", file=sys.stderr, flush=True)


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{Path(str(error.filename)).name} is missing"
    return first_line(error)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[bool]:
    """Held by one process (or thread) of the machine; the others wait, so that what all need is made once.

    path: of a lock file, which stays. The system frees the lock of a process that is gone. Where there are no such
    locks, nobody waits (and False is yielded): then several make the same, and the last is kept.
    """
    with ExitStack() as held:
        alone = False
        with suppress(ImportError, OSError):  # no such locks here, or the file is another user's
            import fcntl

            fcntl.flock(held.enter_context(path.open("w")), fcntl.LOCK_EX)
            alone = True
        yield alone


@contextmanager
def from_cache_alone() -> Iterator[None]:
    """In the block, data whose files would have to be decoded first raise `UserError`: for what is good to know, but
    not worth reading a whole data set."""
    token = _nothing_decoded.set(True)
    try:
        yield
    finally:
        _nothing_decoded.reset(token)


def check_may_decode(name: str) -> None:
    """`UserError` within `from_cache_alone`. name: of the data set."""
    if _nothing_decoded.get():
        raise UserError(f"data set {name} is not in the cache {cache_dir()}")


@contextmanager
def new_entry(folder: Path, alone: bool, named: Callable[[], str] | None = None) -> Iterator[Path]:
    """A new folder whose files are written in the block; it then takes the place of `folder`, or is removed if the
    block fails. `UserError` if the disk has no room.

    alone: nobody else makes this entry now, so that what a process left that was killed can go; named: says, when all
    is written, the name that the folder takes instead, where its content makes it.
    """
    if alone:
        for left in folder.parent.glob(f"{folder.name}-????????"):
            shutil.rmtree(left, ignore_errors=True)
    temporary = folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}")
    try:
        with disk_full_as_user_error(cache_dir(), ADVICE):
            temporary.mkdir(parents=True)
            yield temporary
        if named is not None:
            folder = folder.with_name(named())
        try:
            temporary.rename(folder)
        except OSError:  # a damaged one is in the way, or, where there are no locks, that of another process
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
