"""MNIST: the embedded IDX files or the user's own folder, decoded once per machine into a memory-mapped pool.

Format: http://yann.lecun.com/exdb/mnist (IDX: big-endian magic, dimensions, bytes).
"""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from d2l_study.data.decoded_cache import (
    ADVICE,
    FORMAT,
    UNUSABLE,
    AlteredError,
    check_once,
    new_entry,
    one_at_a_time,
    read_meta,
    source_digest,
    warn_if_altered,
    write_meta,
)
from d2l_study.data.memory_maps import new_array
from d2l_study.data.pool import Pool
from d2l_study.environment import cache_dir, user_path
from d2l_study.errors import UserError
from d2l_study.nearest_path import missing_folder_text

EMBEDDED = Path(__file__).with_name("mnist")
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
SIDE = 28
MEAN, STD = 0.1307, 0.3081

FILES = {  # name: (md5 of the unpacked file, shape)
    "train-images-idx3-ubyte": ("6bbc9ace898e44ae57da46a324031adb", (TRAIN_IMAGES, SIDE, SIDE)),
    "train-labels-idx1-ubyte": ("a25bea736e30d166cdddb491f175f624", (TRAIN_IMAGES,)),
    "t10k-images-idx3-ubyte": ("2646ac647ad5339dbf082846283269ea", (TEST_IMAGES, SIDE, SIDE)),
    "t10k-labels-idx1-ubyte": ("27ae3e4e09519cfbb04c329615203637", (TEST_IMAGES,)),
}


def find_files(root: str | Path | None = None) -> dict[str, Path]:
    """The four files in the embedded copy, or in the user's folder: itself or torchvision's `MNIST/raw` below
    it, gzipped or not, also named `train-images.idx3-ubyte`. `UserError` names what is missing."""
    if root is None:
        return {name: EMBEDDED / f"{name}.gz" for name in FILES}
    folder = user_path(root, "data.root")
    if not folder.is_dir():
        raise UserError(missing_folder_text("data.root", root, folder))
    folders = [folder, folder / "MNIST" / "raw", folder / "raw", folder / "mnist"]
    found = {}
    for name in FILES:
        spellings = (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz")
        paths = [f / s for f in folders for s in spellings if (f / s).is_file()]
        if not paths:
            raise UserError(f"data.root: {folder} has no {name} (looked for it there and in MNIST/raw, gzipped or not)")
        found[name] = paths[0]
    return found


def read_idx(path: Path, name: str, verify: bool = True) -> np.ndarray:
    """One IDX file as an array of uint8; `UserError` if it is damaged, or with `verify` if it is not MNIST's."""
    md5, shape = FILES[name]
    with _read_errors(path):
        data = path.read_bytes()
    if path.suffix == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, ValueError) as error:
            raise UserError(f"{path}: damaged or truncated gzip file ({error}); expected {name}, md5 {md5}") from None
        except Exception as error:  # zlib.error has no common base with the above
            raise UserError(f"{path}: damaged gzip file ({error}); expected {name}, md5 {md5}") from None
    header = 4 + 4 * len(shape)
    expected_magic = 0x800 + len(shape)
    magic = struct.unpack(">I", data[:4])[0] if len(data) >= header else None
    if magic != expected_magic:
        raise UserError(f"{path}: not an IDX file of {len(shape)} dimensions (expected magic number {expected_magic})")
    dims = struct.unpack(f">{len(shape)}I", data[4:header])
    if len(data) != header + int(np.prod(dims)):
        raise UserError(f"{path}: {len(data)} bytes; expected {header + int(np.prod(dims))} for dimensions {dims}")
    if dims[1:] != shape[1:] or dims[0] < 1:
        raise UserError(f"{path}: dimensions {dims}; expected {shape}")
    if verify and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        raise UserError(
            f"{path}: altered: md5 {found}; expected {md5} for MNIST (data.verify: false allows other IDX sets)"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(dims)


def load(root: str | Path | None = None, verify: bool = True) -> Pool:
    """The pool of 60,000 training images followed by the test images, (70000, 1, 28, 28) uint8, memory-mapped.

    Decoded once into the cache folder; later loads, and other processes of the machine, map the same file.
    """
    files = find_files(root)
    digest = hashlib.sha256(f"{FORMAT}|{'verified' if verify else 'any'}".encode())
    for name, path in sorted(files.items()):
        with _read_errors(path):
            digest.update(name.encode() + source_digest(path))
    folder = cache_dir() / f"mnist-{digest.hexdigest()[:16]}"
    try:
        return _open(folder)
    except UNUSABLE:  # not there yet, or altered
        pass
    with one_at_a_time(folder.with_name(f"{folder.name}.lock")) as alone:
        try:
            return _open(folder)
        except UNUSABLE as error:
            warn_if_altered(folder, error)
            _decode(files, verify, folder, alone)
            return _open(folder)


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None


def _open(folder: Path) -> Pool:
    meta = read_meta(folder)
    check_once(folder, meta)
    instances = np.load(folder / "instances.npy", mmap_mode="r")
    classes = np.load(folder / "classes.npy")
    if instances.shape != (len(classes), 1, SIDE, SIDE):
        raise AlteredError(f"{instances.shape} images and {classes.shape} classes do not fit together")
    return Pool("mnist", instances, classes, meta["checksum"])


def _decode(files: dict[str, Path], verify: bool, folder: Path, alone: bool) -> None:
    arrays = {name: read_idx(path, name, verify) for name, path in files.items()}
    for part in ("train", "t10k"):
        images, labels = arrays[f"{part}-images-idx3-ubyte"], arrays[f"{part}-labels-idx1-ubyte"]
        if len(images) != len(labels):
            where = files[f"{part}-labels-idx1-ubyte"]
            raise UserError(f"{where}: {len(labels)} labels; expected {len(images)}, one for each image")
    if len(arrays["train-images-idx3-ubyte"]) != TRAIN_IMAGES:
        where = files["train-images-idx3-ubyte"]
        raise UserError(f"{where}: {len(arrays['train-images-idx3-ubyte'])} images; expected {TRAIN_IMAGES}")
    parts = [arrays["train-images-idx3-ubyte"], arrays["t10k-images-idx3-ubyte"]]
    classes = np.concatenate([arrays["train-labels-idx1-ubyte"], arrays["t10k-labels-idx1-ubyte"]]).astype(np.int64)
    with new_entry(folder, alone) as place:
        instances = new_array(place / "instances.npy", (len(classes), 1, SIDE, SIDE), np.uint8, ADVICE)
        np.concatenate(parts, out=instances[:, 0])
        instances.flush()
        np.save(place / "classes.npy", classes)
        checksum = hashlib.sha256(np.ascontiguousarray(instances).data)
        checksum.update(classes.data)
        write_meta(place, {"checksum": checksum.hexdigest()[:16], "verified": verify})
