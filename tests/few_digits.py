"""MNIST with few test digits: a run is measured on all of them, and 10,000 would take most of the time of a test."""

from __future__ import annotations

import atexit
import gzip
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path


@cache
def digits(count: int = 400) -> Path:
    """A folder with MNIST's files, of the test digits only the first `count`."""
    from d2l_study.data.mnist import find_files

    target = Path(tempfile.mkdtemp(prefix="d2l_study-digits-"))
    atexit.register(shutil.rmtree, target, ignore_errors=True)
    for name, path in find_files().items():
        if name.startswith("train"):
            shutil.copy(path, target / path.name)
            continue
        data = gzip.decompress(path.read_bytes())
        axes = data[3]  # of an IDX file: two zeros, the type, the number of axes, their lengths
        shape = (count, *struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])[1:])
        values = count if axes == 1 else count * shape[1] * shape[2]
        head = data[:4] + struct.pack(f">{axes}I", *shape)
        (target / name).write_bytes(head + data[4 + 4 * axes : 4 + 4 * axes + values])
    return target
