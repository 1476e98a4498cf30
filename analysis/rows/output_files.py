"""Where a command writes: the path of `--out`, checked before the work, and errors of writing in a line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from d2l_study.atomic_files import atomic_write
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed
from d2l_study.nearest_path import path_hint


def writable_path(out: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """The path; UserError for another suffix than those allowed, or a folder that is not there."""
    path = user_path(out, "--out")
    if path.is_dir():
        raise UserError(f"--out {out}: this is a folder; a file name is needed")
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"the suffix {path.suffix!r} is not allowed" if path.suffix else "a suffix is missing"
        raise UserError(f"--out {out}: {found}; expected {listed(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {path.parent}{path_hint(path.parent)}")
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A name to write to. When the block ends well, the file takes its place at the path, so that it is whole, or what
    was there before; what is there and no file, such as `/dev/stdout`, is written to itself.

    `UserError` where the file system refuses what is written.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
            return
        with atomic_write(path.resolve()) as temporary:  # a link stays, and the file that it names is replaced
            yield temporary
    except OSError as error:
        raise UserError(f"--out {path}: cannot write there: {error.strerror or error}") from None
