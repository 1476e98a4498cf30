"""What is said of files that are damaged, cut short or not there, whatever a library says of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from d2l_study.errors import UserError, first_line
from d2l_study.nearest_path import path_hint


@contextmanager
def reading_errors(path: Path, what: str = "as features") -> Iterator[None]:
    """Says in a line, as `UserError`, what a library says of a file that it cannot read `what`."""
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{path_hint(path)}") from None
    except PermissionError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # h5py, zipfile, numpy and torch raise their own, OSError, ValueError, EOFError …
        raise UserError(f"{path}: cannot be read {what}: {first_line(error)}") from None


def open_hdf5(path: Path) -> Any:
    """An HDF5 file for reading; locks only where the file system has them."""
    import h5py

    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if "truncated file" in str(error):
            size = path.stat().st_size
            raise UserError(f"{path}: cut short: {size:,} bytes are here, the file says that it has more") from None
        raise
