"""The objects of a root in a bucket: S3, Google Cloud Storage or Azure, through `pyarrow.fs`.

An object appears whole when its upload is closed, so a put is atomic. No put fails because the object is there. So of
two writers at the same moment the last one stays. For a result this does no harm: both computed the same run, and the
files of both stay. Whoever must be alone (the lease of a study) reads back what it wrote.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from d2l_study.errors import StorageError, UnreadableError, UserError, nearest
from d2l_study.study.ledger.storage import Stored, checked_key

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss")
AT_ONCE = 32
"""Requests at once when many objects are read. A request takes tens of milliseconds, nearly all of it waiting."""

PATIENCE = 300.0
"""Seconds that a bucket is waited for which has answered before. Each attempt of pyarrow takes 6 s of them if the
connection is refused, and 100 s if it hangs."""

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between attempts; the last value repeats."""

DEFAULTS = (
    ("gs", "retry_limit_seconds=15"),  # its own patience is a quarter of an hour, in which nothing is said
    ("s3", "allow_delayed_open=true"),  # a small object is one request, not the three of an upload in parts
)
"""(scheme, option) that is added to an address which does not set it."""

REFUSALS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")
"""Errors that are not retried."""

_side_by_side = threading.local()
"""Set in the threads of a `map`, so that a `map` within it starts no further threads."""

_answering: set[str] = set()
"""Buckets that have answered this process, and have not been given up since."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def is_address(root: str) -> bool:
    """Whether a root is an address such as s3://bucket/folder and not a path. `s3:/bucket` counts as an address too,
    and is refused later: nobody means a folder named `s3:`."""
    return "://" in str(root) or str(root).startswith(tuple(f"{scheme}:" for scheme in SCHEMES))


class ObjectStorage:
    """A folder in a bucket, by its address: `s3://bucket/folder`, also with options as pyarrow takes them
    (`s3://bucket/folder?region=eu-central-1`, `…&endpoint_override=http://host:9000` for other stores that speak S3).

    Credentials come from where the cloud's own tools find them (environment, profile, the node's role); an address
    that holds some is refused, since addresses are kept and shown. `UserError` for an address that cannot be used.
    """

    exclusive = False
    """Whether `put_if_absent` lets exactly one of several simultaneous writers win."""

    def __init__(self, address: str, known: bool = False) -> None:
        """known: it has answered elsewhere, so that it is waited for from the first request on."""
        parts = urlsplit(address)
        if "://" not in address:
            there = address.partition(":")[2].lstrip("/")
            raise UserError(f"--root {address}: not an address; did you mean {parts.scheme}://{there}?")
        if parts.scheme not in SCHEMES:
            close = nearest(parts.scheme, SCHEMES)
            raise UserError(f"--root {address}: {parts.scheme}:// is not known{close}; expected a folder or "
                            f"{', '.join(f'{name}://' for name in SCHEMES)}")  # fmt: skip
        if not parts.netloc:
            raise UserError(f"--root {address}: names no bucket; expected {parts.scheme}://BUCKET/FOLDER")
        if "@" in parts.netloc and not parts.scheme.startswith("abfs"):
            raise UserError(f"--root {parts.scheme}://…: holds credentials; give them by the environment, a profile or "
                            "the node's role, since addresses are kept with the study and shown")  # fmt: skip
        from pyarrow import ArrowException, fs

        self.address = address
        uri = address.replace("gcs://", "gs://", 1)
        for scheme, option in DEFAULTS:
            if uri.startswith(f"{scheme}://") and option.partition("=")[0] not in parts.query:
                uri += f"{'&' if '?' in uri else '?'}{option}"
        try:
            self._files, base = fs.FileSystem.from_uri(uri)
        except (ArrowException, OSError, ValueError, NotImplementedError) as error:
            raise UserError(f"--root {address}: {_line(error)}{_hint(error)}") from None
        self._base = base.rstrip("/")
        self._said = False
        self._bucket = f"{parts.scheme}://{parts.netloc}?{parts.query}"
        if known:
            _answering.add(self._bucket)

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
        """One request: a bucket that is not there, or that this machine may not read."""
        try:
            self.list("studies")
        except OSError as error:
            raise UserError(f"--root {self.address}: cannot be read: {error.strerror}{_hint(error)}") from None

    def ensure_writable(self) -> None:
        """Write and remove one object, so that a missing bucket or right shows before any work."""
        key = f".probe-{uuid.uuid4().hex[:8]}"
        try:
            self.put(key, b"d2l_study")
            self.delete(key)
        except OSError as error:
            raise UserError(f"--root {self.address}: cannot write there: {error.strerror}{_hint(error)}") from None

    def read(self, key: str) -> bytes:
        """The object's bytes; FileNotFoundError if there is none."""

        def whole() -> bytes:
            with self._files.open_input_stream(self._path(key)) as stream:
                return stream.read()

        with self._reading(key):
            return self._with_retries(whole)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`function` of each item in order, `AT_ONCE` side by side, for functions that wait for this bucket."""
        known = list(items)
        if len(known) < 2 or hasattr(_side_by_side, "begun"):
            return [function(item) for item in known]
        begin = partial(setattr, _side_by_side, "begun", True)
        with ThreadPoolExecutor(min(AT_ONCE, len(known)), initializer=begin) as pool:
            return list(pool.map(function, known))

    def exists(self, key: str) -> bool:
        from pyarrow import fs

        with self._reading(key):
            return self._with_retries(lambda: self._files.get_file_info(self._path(key))).type == fs.FileType.File

    def version(self, key: str) -> None:
        return None

    def put(self, key: str, data: bytes, durable: bool = True) -> None:
        """Write the whole object or nothing; an older one is replaced."""

        def whole() -> None:
            with self._files.open_output_stream(self._path(key)) as stream:
                stream.write(data)

        with self._writing(key):
            self._with_retries(whole)

    def put_if_absent(self, key: str, data: bytes, durable: bool = True) -> bool:
        """Write the object unless one is there; False if one was. See the module for two writers at once."""
        if self.exists(key):
            return False
        self.put(key, data)
        return True

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._writing(key):
            self._with_retries(lambda: self._files.delete_file(self._path(key)))

    def list(self, prefix: str) -> list[str]:
        """The names directly under a prefix (objects and folders), sorted; empty if there is no such prefix."""
        return sorted({PurePosixPath(info.path).name for info in self._infos(prefix)})

    def walk(self, prefix: str) -> Sequence[Stored]:
        """Every object below a prefix, sorted by key."""
        from pyarrow import fs

        infos = [info for info in self._infos(prefix, recursive=True) if info.type == fs.FileType.File]
        head = len(self._base) + 1
        return sorted(Stored(info.path[head:], info.size, info.mtime_ns / 1e9) for info in infos)

    def remove_empty_folders(self, prefix: str) -> None:
        """A bucket has no folders."""

    def _infos(self, prefix: str, recursive: bool = False) -> Sequence[Any]:
        from pyarrow import fs

        where = self._path(prefix) if prefix else self._base
        selector = fs.FileSelector(where, recursive=recursive, allow_not_found=True)
        with self._reading(prefix):
            return self._with_retries(lambda: self._files.get_file_info(selector))

    def _with_retries(self, request: Callable[[], Result]) -> Result:
        """Retry a request for `PATIENCE` seconds if the bucket has answered before: a study survives an outage.
        Refusals are not retried, and neither is a bucket that has never answered."""
        begun = time.monotonic()
        for pause in itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])):
            try:
                result = _answer(request)
            except FileNotFoundError:
                _answering.add(self._bucket)
                raise
            except OSError as error:
                waited = time.monotonic() - begun
                if self._bucket not in _answering or any(refusal in str(error) for refusal in REFUSALS):
                    raise
                if waited + pause > PATIENCE:
                    _answering.discard(self._bucket)  # the others that wait need not wait on
                    raise
                self._warn_once(f"does not answer ({_line(error)}); waiting for it up to {PATIENCE:g} s")
                time.sleep(pause)
            else:
                _answering.add(self._bucket)
                if self._said:
                    self._said = False
                    print(f"{self.address} answers again", file=sys.stderr, flush=True)
                return result
        raise AssertionError("unreachable")

    def _warn_once(self, text: str) -> None:
        """Print a warning once in an outage, however many threads wait."""
        if not self._said:
            self._said = True
            print(f"warning: {self.address} {text}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise UnreadableError(error.errno, _line(error), self.shown(key)) from error

    @contextlib.contextmanager
    def _writing(self, key: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageError(error.errno, _line(error), self.shown(key)) from error

    def _path(self, key: str) -> str:
        return f"{self._base}/{checked_key(key)}"


def _answer(request: Callable[[], Result]) -> Result:
    """The result of a request; errors of pyarrow that are no OSError are raised as one."""
    from pyarrow import ArrowException

    try:
        return request()
    except OSError:
        raise
    except ArrowException as error:
        raise OSError(_line(error)) from error


def _line(error: Exception) -> str:
    """The cause in one line, without the source files that pyarrow lists behind it."""
    text = str(error).strip().splitlines() or [type(error).__name__]
    line = text[0].partition("; Details: ")[0]
    return line if len(line) <= 250 else f"{line[:249]}…"


def _hint(error: Exception) -> str:
    """What the user may look at, in brackets; empty if nothing is known."""
    text = str(error)
    for words, hint in HINTS:
        if any(word in text for word in words):
            return f" ({hint})"
    return ""


HINTS = (
    (("NO_SUCH_BUCKET", "HTTP status 404"), "is the bucket's name right, and was it made?"),
    ((*REFUSALS, "HTTP status 403", "ExpiredToken", "Credential", "access token"),
     "credentials: from the environment, a profile or the node's role"),
    (("HTTP status 301", "HTTP status 400"), "is it the bucket's region? s3://…?region=NAME"),
    (("NETWORK_CONNECTION",), "is the name right, and is there a network?"),
)  # fmt: skip
"""(words of a message, hint); the first that fits is shown."""
