"""The one place that reads the environment (Ray's and MLflow's own variables are set in `study`)."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from d2l_study.errors import UserError
from d2l_study.nearest_path import missing_folder_text

CACHE = "D2L_CACHE"
DATA = "D2L_DATA"
REPORT = "D2L_REPORT"


_LONGEST_NAME, _LONGEST_PATH = 255, 4095
"""Bytes that file systems take in one name, and Linux in a whole path."""


def user_path(text: str | Path, what: str) -> Path:
    """A path as the user wrote it, with `~` opened out; relative ones stay relative, and nothing is looked up.

    what: the key or option that it was given for, named in the message. `UserError` for a `~name` of nobody here, and
    for what no file system takes: an empty path, a zero byte, a name of more than 255 bytes.
    """
    written = str(text)
    if not written.strip():
        raise UserError(f"{what}: an empty path; name a file or folder")
    if "\0" in written:
        raise UserError(f"{what}: {written!r} is no path: it holds a zero byte")
    try:
        path = Path(written).expanduser()
    except RuntimeError:
        first = Path(written).parts[0]
        known = "no home folder is set here" if first == "~" else f"there is no user {first[1:]!r} here"
        raise UserError(f"{what}: {written!r}: {known}; ./{first} is a file of that name") from None
    longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    if longest > _LONGEST_NAME:
        raise UserError(f"{what}: {written[:60]}…: a name of {longest} bytes; file systems take {_LONGEST_NAME}")
    if len(whole := os.fsencode(path)) > _LONGEST_PATH:
        raise UserError(f"{what}: {written[:60]}…: a path of {len(whole)} bytes; at most {_LONGEST_PATH} work")
    return path


@contextmanager
def file_errors_as_user_errors(what: str) -> Iterator[None]:
    """Says in a line what the system says of a file or folder that cannot be read or written: `UserError`. That the
    reader of our output has gone is no error of a file."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"{what}: {error.filename or 'a file'}: {error.strerror or error}") from None


def tracking_uri() -> str | None:
    """MLflow's own variable for the address of the tracking store, or None."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def reports_wanted() -> bool:
    """Whether a study writes its report at its end: unless `D2L_REPORT` is `no` or `0`."""
    return os.environ.get(REPORT, "").lower() not in ("no", "0", "false")


def data_root(named: str | None = None) -> Path:
    """The folder that holds archives of tissue images: the one named, else that of `D2L_DATA`; `UserError` if there is
    neither, or no such folder."""
    found = named or os.environ.get(DATA)
    if not found:
        raise UserError(f"data.root: not given; name the folder that holds the archives, or set {DATA} to it")
    folder = user_path(found, "data.root" if named else DATA).absolute()
    if not folder.is_dir():
        raise UserError(missing_folder_text("data.root" if named else DATA, found, folder))
    return folder


def in_data_folder(relative: str) -> str | None:
    """Where a file or folder of that relative path is in the folder of `D2L_DATA`; None if it is not there."""
    folder = os.environ.get(DATA)
    found = os.path.join(os.path.expanduser(folder), relative) if folder else ""  # noqa: PTH111, PTH118 -- never raise
    return found if found and os.path.exists(found) else None  # noqa: PTH110


@lru_cache(maxsize=8)
def _warn_once(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def cache_dir() -> Path:
    """A node-local folder for decoded data: `D2L_CACHE`, else `~/.cache/d2l_study`, else under the temp folder.

    Absolute, so that it is the same one wherever a process goes."""
    named = os.environ.get(CACHE)
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118
    candidates = [user_path(named, CACHE)] if named else [Path(base) / "d2l_study"]
    candidates.append(Path(tempfile.gettempdir()) / f"d2l_study-{os.getuid()}")
    reason = ""
    for path in (candidate.absolute() for candidate in candidates):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = reason or str(error.strerror)
            continue
        if os.access(path, os.W_OK | os.X_OK):
            if named and path != candidates[0].absolute():
                _warn_once(f"{CACHE}: {named} cannot be used ({reason or 'not writable'}); {path} is used instead")
            return path
        reason = reason or "not writable"
    raise UserError(f"no writable cache folder among {', '.join(map(str, candidates))}; set {CACHE}")
