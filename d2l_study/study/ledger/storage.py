"""What a root of results offers, be it a folder or a bucket: bytes under keys, with atomic puts.

Keys use `/` on every system. The ledger needs no rename, append or lock, so that an object store (`object_storage`)
does as well as a folder (`local_storage`).
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from d2l_study.errors import DamagedError, UnreadableError
from d2l_study.study.ledger import records

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stored(NamedTuple):
    """An object of a root: its size, and when it was written, in seconds since 1970 by the clock of the storage."""

    key: str
    bytes: int
    written: float


class Storage(Protocol):
    """A root of results. If the disk or the network fails, methods that read raise `UnreadableError` and methods that
    write raise `StorageError`; both are OSErrors."""

    @property
    def root(self) -> Path | str:
        """The folder, or the address of the bucket."""

    @property
    def exclusive(self) -> bool:
        """Whether `put_if_absent` lets exactly one of several simultaneous writers win."""

    def shown(self, key: str) -> str:
        """The path or address of an object, for messages."""

    def ensure_usable(self) -> None:
        """`UserError` if this cannot be a root. Writes nothing."""

    def ensure_writable(self) -> None:
        """`UserError` unless an object can be written."""

    def read(self, key: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of each item, in order. In a bucket, calls run side by side."""

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""

    def version(self, key: str) -> str | None:
        """A text that changes whenever the object is written; empty if there is no object. None if asking for it costs
        as much as reading."""

    def put(self, key: str, data: bytes, durable: bool = True) -> None:
        """Write the whole object or nothing; an older one is replaced. durable: after the return it outlasts a loss of
        power."""

    def put_if_absent(self, key: str, data: bytes, durable: bool = True) -> bool:
        """Write the whole object unless one is there; False if one was."""

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    def list(self, prefix: str) -> list[str]:
        """The names directly under a prefix (objects and folders), sorted; empty if there is no such prefix."""

    def walk(self, prefix: str) -> Sequence[Stored]:
        """Every object below a prefix, sorted by key; also what killed writers left (`.part`)."""

    def remove_empty_folders(self, prefix: str) -> None:
        """Remove empty folders below a prefix, and the prefix if it is empty then. A bucket has no folders."""


def short_path(place: str) -> str:
    """A path or address of `Storage.shown`, relative to the working directory if it lies below it."""
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except ValueError:
        return place


def read_record(storage: Storage, key: str, remedy: str) -> dict[str, Any]:
    """The object of a record. FileNotFoundError if there is none; `DamagedError`, which names the file and the remedy,
    if it is not what was written."""
    data = record_bytes(storage, key)
    found = records.decode(data)
    if not isinstance(found, dict):
        raise DamagedError(f"{storage.shown(key)}: damaged: its {len(data)} bytes are not what was written; {remedy}")
    return found


def record_bytes(storage: Storage, key: str) -> bytes:
    """The bytes of a record; empty if a folder is in its place, so that it counts as damaged. FileNotFoundError if
    nothing is there."""
    try:
        return storage.read(key)
    except UnreadableError as error:
        if error.errno == errno.EISDIR:
            return b""
        raise


def checked_key(key: str) -> str:
    """The key, if it lies below the root; `DamagedError` if not, since a damaged or crafted record may name any key.
    Every read, write and delete of a storage checks its key here."""
    if not key or "\0" in key or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise DamagedError(f"{key!r} is not allowed as the name of an object; expected a path below the root")
    return key
