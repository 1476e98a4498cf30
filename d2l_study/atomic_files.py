"""Files that appear whole or not at all: written beside their place, and moved there when they are done."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

PART = ".part"
"""Ending of a file that is not whole yet."""


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A name to write to; the file takes its own, and the place of an older one, when the block ends well."""
    temporary = path.with_name(f"{path.name}{PART}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)
