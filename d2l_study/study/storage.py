"""Where a study's objects live: bytes under keys, with atomic puts. Keys use `/`, whatever the system.

The ledger asks for no rename, append or lock, so that an object store can serve as well as a folder.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from d2l_study.errors import UserError


class LocalStorage:
    """A folder, on a local disk or NFS."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().absolute()

    def path(self, key: str) -> Path:
        return self.root / key

    def ensure_writable(self) -> None:
        """Create the root and write to it once, so that a read-only or full disk shows before any work."""
        probe = self.root / f".probe-{uuid.uuid4().hex[:8]}"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"d2l_study")
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
            raise UserError(f"--root {self.root}: cannot write there: {error.strerror or error}") from None

    def read(self, key: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""
        return self.path(key).read_bytes()

    def exists(self, key: str) -> bool:
        return self.path(key).exists()

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object or nothing; an older one is replaced."""
        with self._written(key, data) as (temporary, target):
            temporary.replace(target)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the whole object unless one is there; False if one was. Of several writers exactly one wins."""
        with self._written(key, data) as (temporary, target):
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def delete(self, key: str) -> None:
        self.path(key).unlink(missing_ok=True)

    def list(self, prefix: str) -> list[str]:
        """The names directly under a prefix (files and folders), sorted; empty if there is no such prefix."""
        folder = self.path(prefix)
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".part"))

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary, target
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
