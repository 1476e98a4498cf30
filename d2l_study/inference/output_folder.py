"""Where `label`, `predict` and others write: the folder is checked before work starts, every file appears whole, and
only files that the command itself wrote are replaced. Messages name what the user gave for `--out`, folder or file."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from d2l_study.atomic_files import PART
from d2l_study.data.memory_maps import disk_full_as_user_error
from d2l_study.environment import user_path
from d2l_study.errors import UserError

MORE_ROOM = "make room, or name a folder on another disk with --out"
_PROBE = f".label{PART}"
"""A file that is written to see whether a folder takes any."""
_FILE_ENDINGS = (".csv", ".geojson", ".h5", ".html", ".json", ".npy", ".parquet", ".png", ".tif", ".tsv", ".xlsx")
_LONGEST_NAME = 255
_LONGEST_PATH = 4095


def output_folder(out: str | Path) -> Path:
    """The folder that `--out` names; nothing is made. `UserError` for what can be none, and for a new one that is named
    as a file: most likely a file is expected."""
    folder = user_path(out, "--out")
    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out {folder}: cannot write there: it is a file; expected a folder")
        if not folder.exists() and folder.suffix.lower() in _FILE_ENDINGS:
            raise UserError(f"--out {folder}: is named as a file; expected a folder, which gets several files")
    return folder


_MADE: ContextVar[list[Path]] = ContextVar("_MADE")
"""The folders that `make_folder` has made in the command at work."""


@contextlib.contextmanager
def unused_folders_removed() -> Iterator[None]:
    """Where the block ends by an error or Ctrl-C, folders that `make_folder` made in it go, if nothing is in them."""
    made: list[Path] = []
    token = _MADE.set(made)
    try:
        yield
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    finally:
        _MADE.reset(token)


def make_with_parents(folder: Path) -> None:
    """Make a folder that `unused_folders_removed` removes again where the command fails. `OSError` where it cannot be
    made."""
    _MADE.get([]).extend(place for place in (*reversed(folder.parents), folder) if not place.exists())
    folder.mkdir(parents=True, exist_ok=True)


def make_folder(folder: Path, out: Path | None = None) -> None:
    """Make it, and write to it once, so that a folder which takes nothing shows before any work. out: as of
    `writing`."""
    with writing(folder, out):
        make_with_parents(folder)
        probe = folder / _PROBE
        try:
            probe.write_bytes(b"d2l_study")
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()


@contextlib.contextmanager
def writing(folder: Path, out: Path | None = None) -> Iterator[None]:
    """Says in a line why a folder, or the disk below it, takes nothing. out: the file in it that `--out` names; None
    where `--out` names the folder."""
    given = out or folder
    try:
        with disk_full_as_user_error(folder, MORE_ROOM):
            yield
    except OSError as error:
        place = Path(error.filename if isinstance(error.filename, str) else given)
        place = folder if place.name == _PROBE else place
        what = "" if place in (given, given.with_name(f"{given.name}{PART}")) else f" ({place})"
        raise UserError(f"--out {given}: cannot write there{what}: {error.strerror or error}") from None


def check_replaced(path: Path, is_ours: Callable[[Path], bool], command: str = "label", *, named: bool = False) -> None:
    """`UserError` if something is there that the command did not write. named: `--out` names the file itself, and not
    its folder."""
    given = f"--out {path}:" if named else f"--out {path.parent}: {path.name}"
    other = f"name another {'file' if named else 'folder'}"
    with writing(path.parent, path if named else None):
        if not os.path.lexists(path):
            return
        if not path.is_file():
            raise UserError(f"{given} is there, and is no file; {other}")
    with contextlib.suppress(OSError, ValueError):
        if is_ours(path):
            return
    raise UserError(f"{given} is there, and was not written by `{command}`; {other}, or move it")


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file beside results says; nothing if it is not there, or damaged."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def check_room(folder: Path, needed: int) -> None:
    """`UserError` if the disk has no room for so many bytes: before hours of work, each file reserves its own later."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        found = os.statvfs(place)
    except OSError:  # not to be known here
        return
    free = found.f_bavail * found.f_frsize
    if needed > free:
        raise UserError(f"--out {folder}: no room for {needed:,} bytes of score maps, {free:,} are free; {MORE_ROOM}")


def stems(called: Sequence[str], folder: Path, longest: str, others: Iterable[str] = ()) -> list[str]:
    """A name for the files of each image: what the image is called, numbered where several are called the same, and cut
    where a file system would not take it. longest: of the endings that are appended to it; others: names of other
    files' stems in the folder."""
    most = _LONGEST_NAME - len(longest)
    taken = set(others)
    counts: dict[str, int] = {}
    names = []
    for one in called:
        stem = _cut(one, most)
        name = stem
        while name in taken:
            counts[stem] = counts.get(stem, 1) + 1
            ending = f"-{counts[stem]}"
            name = _cut(stem, most - len(ending)) + ending
        taken.add(name)
        names.append(name)
    widest = max((len(os.fsencode(name)) for name in names), default=0)
    if len(os.fsencode(folder.absolute())) + 1 + widest + len(longest) > _LONGEST_PATH:
        raise UserError(f"--out {str(folder)[:60]}…: too long for the files in it; at most {_LONGEST_PATH} bytes work")
    return names


def _cut(name: str, most: int) -> str:
    data = os.fsencode(name)
    return name if len(data) <= most else data[:most].decode(errors="ignore")


def shown(text: object) -> str:
    """A path as text that can be written: bytes of its name that are no UTF-8 stand as `\\xff`."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
