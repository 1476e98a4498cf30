"""What a process that was killed leaves behind, removed by the next one: temporary files whose owner is gone.

The owner holds a lock on a file beside them, which the system takes from it when it ends, however it ends, on
whatever machine; so nobody's work is taken for a leftover.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LOCK = "owner.lock"
OLD_SECONDS = 7 * 24 * 3600.0
"""After so long what has no lock, from a version that had none, or from one killed at its first moment, is nobody's."""


@contextlib.contextmanager
def held(lock: Path) -> Iterator[None]:
    """Hold a lock file while the block runs; it is removed then."""
    file = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: then it is nobody's to remove
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        with contextlib.suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(file)


def is_orphaned(lock: Path, marked: Path) -> bool:
    """Whether nobody holds the lock; without one, whether what it would be for (`marked`) is old."""
    try:
        file = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            return time.time() - marked.stat().st_mtime > OLD_SECONDS
        return False
    except OSError:  # somebody else's
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(file)
    return True


@contextlib.contextmanager
def scratch_folder(prefix: str, base: str | None = None) -> Iterator[str]:
    """A temporary folder for the block, under `base` or the system's; dead processes' of that prefix go first."""
    place = Path(base or tempfile.gettempdir())
    with contextlib.suppress(OSError):
        for folder in place.glob(f"{prefix}*"):
            if is_orphaned(folder / LOCK, folder):
                shutil.rmtree(folder, ignore_errors=True)
    made = tempfile.mkdtemp(prefix=prefix, dir=base)
    try:
        with held(Path(made) / LOCK):
            yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
