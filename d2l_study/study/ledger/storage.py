"""Where a study's objects live: bytes under keys, with atomic puts. Keys use `/`, whatever the system.

The ledger asks for no rename, append or lock, so that an object store (`object_storage`) serves as well as a folder.
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
    """What a root offers, be it a folder or a bucket. Methods raise OSError where the disk or the network fails, those
    that write `StorageError`."""

    @property
    def root(self) -> Path | str:
        """The folder, or the address of the bucket."""

    @property
    def exclusive(self) -> bool:
        """Whether `put_if_absent` lets exactly one of several simultaneous writers win."""

    def shown(self, key: str) -> str:
        """Where an object is, for people."""

    def ensure_usable(self) -> None:
        """`UserError` if this can be no root; writes nothing."""

    def ensure_writable(self) -> None:
        """`UserError` unless an object can be written."""

    def read(self, key: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of each item in order; those that wait for a bucket run side by side."""

    def exists(self, key: str) -> bool: ...

    def version(self, key: str) -> str | None:
        """Another one whenever the object is written; empty if there is none. None where to ask costs as much as to
        read."""

    def put(self, key: str, data: bytes, durable: bool = True) -> None:
        """Write the whole object or nothing; an older one is replaced. durable: it outlasts a loss of power from the
        return on."""

    def put_if_absent(self, key: str, data: bytes, durable: bool = True) -> bool:
        """Write the whole object unless one is there; False if one was."""

    def delete(self, key: str) -> None:
        """Remove the object, if it is there."""

    def list(self, prefix: str) -> list[str]:
        """The names directly under a prefix (objects and folders), sorted; empty if there is no such prefix."""

    def walk(self, prefix: str) -> Sequence[Stored]:
        """Every object below a prefix, sorted by key, with what writers that were killed left (`.part`)."""

    def tidy(self, prefix: str) -> None:
        """Remove the prefix and what is below it as far as it is empty folders, which a bucket has not."""


def short_path(place: str) -> str:
    """A place as `Storage.shown` tells it, from the working directory where it is in it."""
    try:
        return str(Path(place).relative_to(Path.cwd()))
    except ValueError:
        return place


def read_record(storage: Storage, key: str, remedy: str) -> dict[str, Any]:
    """A JSON object that we wrote, proven by its digest. FileNotFoundError if there is none; `DamagedError`, which
    names the file and says the remedy, if it is not what was written."""
    data = record_bytes(storage, key)
    found = records.decode(data)
    if not isinstance(found, dict):
        raise DamagedError(f"{storage.shown(key)}: damaged: its {len(data)} bytes are not what was written; {remedy}")
    return found


def record_bytes(storage: Storage, key: str) -> bytes:
    """The bytes of a record; none for a folder in its place, which is a damaged one. FileNotFoundError."""
    try:
        return storage.read(key)
    except UnreadableError as error:
        if error.errno == errno.EISDIR:
            return b""
        raise


def checked_key(key: str) -> str:
    """The key, if it lies below the root. A record that somebody wrote may name another: `DamagedError`. Every read,
    write and delete of a storage comes through here."""
    if not key or "\0" in key or not {"", ".", ".."}.isdisjoint(key.split("/")):
        raise DamagedError(f"{key!r} is not allowed as the name of an object; expected a path below the root")
    return key
