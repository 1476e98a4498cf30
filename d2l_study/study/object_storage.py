"""The same objects in a bucket: S3, Google Cloud Storage or Azure, through `pyarrow.fs`.

An object appears whole when its upload is closed, so a put is atomic. There is no put that fails if the object is
there, so of two writers in the same round trip the last one stays: for a result that is as good as the first (both
computed the same run, and the data of both stays), and whoever needs to be alone (the lease of a study) reads back.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from d2l_study.errors import StorageError, UnreadableError, UserError, nearest

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
AT_ONCE = 32
"""Requests in flight when many objects are read: a request takes tens of milliseconds, nearly all of them waiting."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between the attempts at a bucket that has ceased to answer."""

Result = TypeVar("Result")


def is_address(root: str) -> bool:
    """Whether a root is an address such as s3://bucket/folder and not a path."""
    return "://" in str(root)


class ObjectStorage:
    """A folder in a bucket, by its address: `s3://bucket/folder`, also with options as pyarrow takes them
    (`s3://bucket/folder?region=eu-central-1`, `…&endpoint_override=http://host:9000` for other stores that speak S3).

    Credentials come from where the cloud's own tools find them (environment, profile, the node's role); an address
    that holds some is refused, since addresses are kept and shown. `UserError` for an address that cannot be used.
    """

    exclusive = False
    """Whether `put_if_absent` lets exactly one of several simultaneous writers win."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        if parts.scheme not in SCHEMES:
            close = nearest(parts.scheme, SCHEMES)
            raise UserError(f"--root {address}: {parts.scheme}:// is not known{close}; expected a folder or "
                            f"{', '.join(f'{name}://' for name in SCHEMES)}")  # fmt: skip
        if not parts.netloc:
            raise UserError(f"--root {address}: names no bucket; expected {parts.scheme}://BUCKET/FOLDER")
        if "@" in parts.netloc and not parts.scheme.startswith("abfs"):
            raise UserError(f"--root {parts.scheme}://…: holds credentials; give them by the environment, a profile or "
                            "the node's role, since addresses are kept with the study and shown")  # fmt: skip
        from pyarrow import ArrowInvalid, fs

        self.address = address
        try:
            self._files, base = fs.FileSystem.from_uri(address.replace("gcs://", "gs://", 1))
        except (ArrowInvalid, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"--root {address}: {_line(error)}") from None
        self._base = base.rstrip("/")
        self._answered = False

    @property
    def root(self) -> str:
        return self.address

    def __str__(self) -> str:
        return self.address

    def shown(self, key: str) -> str:
        """The object's address, for people."""
        head, mark, options = self.address.partition("?")
        return f"{head.rstrip('/')}/{key}{mark}{options}"

    def ensure_usable(self) -> None:
        """Nothing to see without a request; `ensure_writable` makes one."""

    def ensure_writable(self) -> None:
        """Write and remove one object, so that a missing bucket or right shows before any work."""
        key = f".probe-{uuid.uuid4().hex[:8]}"
        try:
            self.put(key, b"d2l_study")
            self.delete(key)
        except OSError as error:
            raise UserError(f"--root {self.address}: cannot write there: {_line(error)}") from None

    def read(self, key: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""

        def whole() -> bytes:
            with self._files.open_input_stream(self._path(key)) as stream:
                return stream.read()

        with self._reading(key):
            return self._patiently(whole)

    def read_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The bytes of each object in order, None for those that are not there."""

        def one(key: str) -> bytes | None:
            with contextlib.suppress(FileNotFoundError):
                return self.read(key)
            return None

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(one, keys))

    def exists(self, key: str) -> bool:
        from pyarrow import fs

        with self._reading(key):
            return self._patiently(lambda: self._files.get_file_info(self._path(key))).type == fs.FileType.File

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object or nothing; an older one is replaced."""

        def whole() -> None:
            with self._files.open_output_stream(self._path(key)) as stream:
                stream.write(data)

        try:
            self._patiently(whole)
        except OSError as error:
            raise StorageError(error.errno, _line(error), self.shown(key)) from error

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless one is there; False if one was. See the module for two writers at once."""
        if self.exists(key):
            return False
        self.put(key, data)
        return True

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self._files.delete_file(self._path(key)))

    def list(self, prefix: str) -> list[str]:
        """The names directly under a prefix (objects and folders), sorted; empty if there is no such prefix."""
        return sorted({PurePosixPath(info.path).name for info in self._infos(prefix)})

    def _infos(self, prefix: str) -> Sequence[Any]:
        from pyarrow import fs

        selector = fs.FileSelector(self._path(prefix).rstrip("/"), recursive=False, allow_not_found=True)
        with self._reading(prefix):
            return self._patiently(lambda: self._files.get_file_info(selector))

    def _patiently(self, request: Callable[[], Result]) -> Result:
        """Ask again for about a minute if a bucket that has answered before does not: a study outlasts that. What it
        refuses is not asked again, nor is one that never answered."""
        for pause in PAUSES:
            try:
                result = request()
            except FileNotFoundError:
                self._answered = True
                raise
            except OSError as error:
                if not self._answered or "ACCESS_DENIED" in str(error):
                    raise
                time.sleep(pause)
            else:
                self._answered = True
                return result
        return request()

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnreadableError(error.errno, _line(error), self.shown(key)) from error

    def _path(self, key: str) -> str:
        return f"{self._base}/{key}"


def _line(error: Exception) -> str:
    """One line for people."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
