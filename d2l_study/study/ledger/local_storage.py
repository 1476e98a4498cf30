"""The objects of a root in a folder, on a local disk or NFS."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from d2l_study.environment import user_path
from d2l_study.errors import StorageError, UnreadableError, UserError
from d2l_study.study.ledger.storage import Item, Result, Stored, checked_key


class LocalStorage:
    """A folder, on a local disk or NFS."""

    exclusive = True

    def __init__(self, root: str | Path) -> None:
        """`UserError` if this can be no folder."""
        self.root = user_path(root, "--root").absolute()
        self.ensure_usable()

    def shown(self, key: str) -> str:
        return str(self.path(key))

    def ensure_usable(self) -> None:
        """`UserError` for a file; `UnreadableError` for a folder that may not be looked into."""
        try:
            if self.root.exists() and not self.root.is_dir():
                raise UserError(f"--root {self.root}: this is a file; expected a folder")
            self.list("studies")
        except PermissionError as error:
            raise UnreadableError(error.errno, error.strerror, error.filename) from error

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return [function(item) for item in items]

    def path(self, key: str) -> Path:
        return self.root / checked_key(key)

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
        try:
            return self.path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(str(self.path(key))) from None
        except OSError as error:
            raise UnreadableError(error.errno, error.strerror, str(self.path(key))) from error

    def exists(self, key: str) -> bool:
        return os.path.exists(self.path(key))  # noqa: PTH110 (of a name too long, False and no error)

    def version(self, key: str) -> str:
        try:
            found = os.stat(f"{self.root}/{checked_key(key)}")  # noqa: PTH116 (of tens of thousands, a Path costs more than this)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise UnreadableError(error.errno, error.strerror, f"{self.root}/{key}") from error
        return f"{found.st_ctime_ns}-{found.st_size}"  # of the change, which unlike that of modification nobody sets

    def put(self, key: str, data: bytes, durable: bool = True) -> None:
        """Write the whole object or nothing; an older one is replaced."""
        with self._written(key, data, durable) as (temporary, target):
            temporary.replace(target)

    def put_if_absent(self, key: str, data: bytes, durable: bool = True) -> bool:
        """Write the whole object unless one is there; False if one was. Of several writers exactly one wins."""
        with self._written(key, data, durable) as (temporary, target):
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            finally:
                temporary.unlink(missing_ok=True)
        return True

    def delete(self, key: str) -> None:
        try:
            self.path(key).unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(error.errno, error.strerror, str(self.path(key))) from error

    def list(self, prefix: str) -> list[str]:
        """The names directly under a prefix (files and folders), sorted; empty if there is no such prefix."""
        try:
            names = [path.name for path in (self.path(prefix) if prefix else self.root).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UnreadableError(error.errno, error.strerror, str(self.path(prefix))) from error
        return sorted(name for name in names if not name.endswith(".part"))

    def walk(self, prefix: str) -> Sequence[Stored]:
        """Every file below a folder, sorted by key."""
        found = []

        def refused(error: OSError) -> None:  # which os.walk would pass over in silence
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise UnreadableError(error.errno, error.strerror, error.filename) from error

        for folder, _, names in os.walk(self.path(prefix), onerror=refused):
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(FileNotFoundError):  # gone since
                    stat = path.lstat()
                    found.append(Stored(path.relative_to(self.root).as_posix(), stat.st_size, stat.st_mtime))
        return sorted(found)

    def remove_empty_folders(self, prefix: str) -> None:
        for folder, _, _ in os.walk(self.path(prefix), topdown=False):
            with contextlib.suppress(OSError):  # not empty
                Path(folder).rmdir()

    @contextlib.contextmanager
    def _written(self, key: str, data: bytes, durable: bool) -> Iterator[tuple[Path, Path]]:
        """A context with the object under a temporary name, and the name that the block is to give it. After a loss of
        power the object is whole or not there: its bytes reach the disk first, then its name, and then this returns. So
        the files that a commit names are on the disk before the commit is written."""
        target = self.path(key)
        temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            new = _make_folder(target.parent)
            try:
                file = temporary.open("xb")
            except FileNotFoundError:  # somebody has removed the folder since
                new = _make_folder(target.parent)
                file = temporary.open("xb")
            with file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            yield temporary, target
            if durable:
                for folder in (target.parent, *new):
                    _sync_folder(folder)
        except BaseException as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise StorageError(error.errno, error.strerror, str(target)) from error
            raise


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder; returns the folders that got a new entry by it."""
    if folder.is_dir():
        return []
    grown = [*_make_folder(folder.parent), folder.parent]
    folder.mkdir(exist_ok=True)
    return grown


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    try:
        number = os.open(folder, os.O_RDONLY)
    except OSError:  # removed meanwhile, or a system that opens no folders
        return
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # a file system that has no such thing
            raise
    finally:
        os.close(number)
