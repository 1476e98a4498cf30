"""What is to be labelled: files of patches, read in parts of bounded memory as (n, C, H, W) uint8.

    for part in read_parts(open_inputs(["digits.npy", "scans/"], (1, 28, 28)), (1, 28, 28)): ...

Kinds are told by content, not by name: NumPy arrays (`.npy`; of a `.npz` with several arrays one, as `FILE.npz:NAME`),
IDX images (gzipped or not), and images (PNG, JPEG, BMP, TIFF), alone or in a folder, which is walked in sorted order.

Values. uint8 are the levels as they are; other integers must lie in 0 … 255. Floating point numbers may be in [0, 1] or
in [0, 255], whichever the file's largest value says: up to 1 it is [0, 1], from 16 on it is [0, 255]; between the two
the file is refused, since it might be either, and so are negative numbers (an array that is normalised already: the
model does that itself). Both are rounded to the 256 levels that models are trained on.
"""

from __future__ import annotations

import gzip
import math
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from d2l_study.data.features import hdf5
from d2l_study.data.features.opening import kind_of
from d2l_study.environment import user_path
from d2l_study.errors import UserError, first_line, listed, nearest
from d2l_study.inference.array_headers import IDX_TYPES, idx_header, npy_header
from d2l_study.inference.image_colour import check_grey
from d2l_study.nearest_path import path_hint
from d2l_study.slides import image_files

Shape = tuple[int, int, int]
"""(C, H, W) of a patch."""

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")
PART_PATCHES, PART_BYTES = 8192, 32 * 2**20
HEAD = 8
"""Bytes from a file's beginning that `array_format` looks at."""
UNIT_MOST, LEVELS_LEAST = 1.0, 16.0
"""Floats whose largest value lies between these two are refused."""
NEAR = 0.75
"""How alike a name is that is asked about; 0.5 would find 'api.py' for 'nope.npy'."""
_FEATURE_ENDINGS = (".h5", ".hdf5", ".pt", ".pth")
"""Of files that hold nothing that a model of patches could label."""
_OF_PATCHES = "this model labels patches; one that was trained on feature vectors is needed"
KINDS = "a .npy or .npz array, an IDX file, or a PNG, JPEG, BMP or TIFF image"


@dataclass(frozen=True)
class Input:
    """The patches of one file (or of one array in it): how many, and `parts(n)`, which reads them at most n at a
    time, as (≤ n, C, H, W) uint8."""

    source: str
    count: int
    parts: Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class Part:
    """Patches of one or more inputs.

    sources: the n names; index: (n,) int64, each one's position within its source; patches: (n, C, H, W) uint8.
    """

    sources: list[str]
    index: np.ndarray
    patches: np.ndarray


def open_inputs(names: Sequence[str | Path], shape: Shape) -> list[Input]:
    """Find and check every input, folders opened out; `shape` is the model's (C, H, W).

    `UserError` names the files that cannot be used, with the reason, before anything is labelled. What only shows when
    pixels are decoded (a truncated image) is raised by `read_parts`, but for colour where a model reads grey.
    """
    inputs: list[Input] = []
    problems: list[str] = []
    for name in names:
        try:
            files = input_files(str(name))
        except UserError as error:
            problems.append(str(error))
            continue
        for path, member in files:
            try:
                inputs.append(_open(path, member, shape))
            except UserError as error:
                problems.append(str(error))
    problems += [f"{source}: given twice" for source, n in Counter(entry.source for entry in inputs).items() if n > 1]
    stop_if_any(problems)
    return inputs


def stop_if_any(problems: Sequence[str]) -> None:
    """`UserError` with what is wrong with the inputs: the first of it, and how much more there is."""
    if problems:
        shown = [*problems[:8], *([f"… and {len(problems) - 8} more"] if len(problems) > 8 else [])]
        raise UserError("\n  ".join([f"{len(problems)} inputs cannot be used:", *shown]) if problems[1:] else shown[0])


def read_parts(inputs: Iterable[Input], shape: Shape) -> Iterator[Part]:
    """The patches of all inputs in order, in parts of at most `PART_PATCHES` and about `PART_BYTES`; small inputs
    share a part. `UserError` for a file that turns out to be damaged."""
    most = max(1, min(PART_PATCHES, PART_BYTES // math.prod(shape)))
    waiting: list[tuple[str, int, np.ndarray]] = []
    held = 0
    for entry in inputs:
        first = 0
        for patches in entry.parts(most):
            if held + len(patches) > most:
                yield _joined(waiting)
                waiting, held = [], 0
            waiting.append((entry.source, first, patches))
            first, held = first + len(patches), held + len(patches)
    if waiting:
        yield _joined(waiting)


def _joined(pieces: list[tuple[str, int, np.ndarray]]) -> Part:
    return Part(
        [source for source, _, patches in pieces for _ in range(len(patches))],
        np.concatenate([np.arange(first, first + len(patches)) for _, first, patches in pieces]),
        np.concatenate([patches for _, _, patches in pieces]),
    )


# ---- finding
def input_files(name: str) -> list[tuple[Path, str | None]]:
    """The files that a name stands for, each with the array meant in it, if the name says so."""
    with _readable(name):
        return _found(name)


def _found(name: str) -> list[tuple[Path, str | None]]:
    path = user_path(name, "input")
    if path.is_dir():
        found = sorted(
            folder / file
            for folder, files in _folders(path)
            for file in files
            if Path(file).suffix.lower() in IMAGE_SUFFIXES and not file.startswith(".")
        )
        if not found:
            features = any(entry.name.lower().endswith(_FEATURE_ENDINGS) for entry in path.iterdir())
            raise UserError(f"{path}: a folder without images; expected files ending in {', '.join(IMAGE_SUFFIXES)}"
                            + f"; it has feature files, but {_OF_PATCHES}" * features)  # fmt: skip
        return [(file, None) for file in found]
    if path.is_file():
        return [(path, None)]
    if (archive := array_in_file(name)) is not None:
        return [archive]
    raise missing(path, KINDS)


def _folders(path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder and those within, with the names of their files; linked ones come last, each once whatever links lead to
    it. Folders whose names begin with a dot hold what programs keep for themselves."""
    waiting, seen = [path], set[Path]()
    while waiting:
        for name, within, files in os.walk(waiting.pop(0), onerror=_unreadable):
            folder = Path(name)
            real = folder.resolve()
            if real in seen:
                within.clear()
                continue
            seen.add(real)
            within[:] = sorted(name for name in within if not name.startswith("."))
            waiting += [folder / name for name in within if (folder / name).is_symlink()]
            yield folder, files


def array_in_file(name: str) -> tuple[Path, str] | None:
    """The file and the array that `FILE.npz:NAME` means; None if it means none."""
    stem, colon, member = name.rpartition(":")
    if colon and stem and (archive := user_path(stem, "input")).is_file():
        return archive, member
    return None


def missing(path: Path, kinds: str) -> UserError:
    """Why a name that is neither a file nor a folder is no input. kinds: what is expected, in words."""
    if path.exists():  # a pipe would be waited for, a device never ends
        return UserError(f"{path}: neither a file nor a folder; expected {kinds}")
    return UserError(f"{path}: no such file or folder{path_hint(path, NEAR)}")


def _unreadable(error: OSError) -> None:
    """Of a folder within: to leave its images out without a word would be wrong."""
    raise UserError(f"{error.filename}: cannot be read: {error.strerror}") from None


def array_format(head: bytes) -> str:
    """`npz`, `npy`, `gzip` (of IDX) or `idx` for a file that begins so, in its first 8 bytes; "" for no array."""
    for begin, name in ((b"PK", "npz"), (b"\x93NUMPY", "npy"), (b"\x1f\x8b", "gzip")):
        if head.startswith(begin):
            return name
    return "idx" if head.startswith(b"\0\0") and len(head) >= HEAD and head[2] in IDX_TYPES else ""


def _open(path: Path, member: str | None, shape: Shape) -> Input:
    with _readable(str(path)), path.open("rb") as file:
        head = file.read(HEAD)
        size = os.fstat(file.fileno()).st_size
    if _has_features(path, head):
        raise UserError(f"{path}: a feature file, but {_OF_PATCHES}")
    kind = array_format(head)
    if kind == "npz":
        return _open_npz(path, member, shape)
    if member is not None:
        raise UserError(f"{path}:{member}: only a .npz file holds several arrays")
    if kind == "npy":
        return _open_array(_Array(str(path), lambda: path.open("rb"), npy_header, size), shape)
    if kind == "gzip":
        return _open_array(_Array(str(path), lambda: gzip.open(path, "rb"), idx_header, None), shape)
    if kind == "idx":
        return _open_array(_Array(str(path), lambda: path.open("rb"), idx_header, size), shape)
    return _open_image(path, shape)


def _has_features(path: Path, head: bytes) -> bool:
    """Whether it is an HDF5 file or one of torch, and not named as an image: that is answered as an image is."""
    if path.suffix.lower() in IMAGE_SUFFIXES or not head.startswith((hdf5.MAGIC, b"PK", b"\x80")):
        return False
    with suppress(UserError):
        return kind_of(path) in ("hdf5", "torch")
    return False


def _open_npz(path: Path, member: str | None, shape: Shape) -> Input:
    with _readable(str(path)), zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()
                 if info.filename.endswith(".npy")}  # fmt: skip
    if not sizes:
        raise UserError(f"{path}: a zip file without arrays; expected {KINDS}")
    if member is None and len(sizes) > 1:
        raise UserError(f"{path}: holds the arrays {listed(sizes)}; expected one of them, as {path}:{min(sizes)}")
    chosen = member if member is not None else min(sizes)
    if chosen not in sizes:
        raise UserError(f"{path}: has no array {chosen!r}{nearest(chosen, sizes)} (arrays: {listed(sizes)})")
    source = f"{path}:{member}" if member is not None else str(path)
    return _open_array(_Array(source, lambda: _zip_member(path, f"{chosen}.npy"), npy_header, sizes[chosen]), shape)


@contextmanager
def _zip_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(name) as file:
        yield file


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """What a reader says of a damaged file, in the user's words: `UserError`, whatever it raises (numpy ValueError,
    SyntaxError, TypeError, OverflowError …, zipfile RuntimeError, zlib.error)."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = (isinstance(error, OSError) and error.strerror) or first_line(error)
        raise UserError(f"{source}: cannot be read: {reason[:200]}; expected {KINDS}") from None


# ---- arrays
@dataclass(frozen=True)
class _Array:
    """A header, then numbers in C order: read front to back, so that a zip or gzip file need not fit in memory.

    header: reads the header, returns dimensions and type; size: bytes of header and numbers, None if not known.
    """

    source: str
    open: Callable[[], AbstractContextManager[Any]]
    header: Callable[[IO[bytes]], tuple[tuple[int, ...], np.dtype]]
    size: int | None


def _open_array(array: _Array, shape: Shape) -> Input:
    with _readable(array.source), array.open() as file:
        dims, dtype = array.header(file)
        start = file.tell()
    if dtype.kind not in "uif":
        raise UserError(f"{array.source}: holds {dtype.name}; expected uint8, or floats in [0, 1] or [0, 255]")
    count = _count(array.source, dims, shape)
    needed = start + math.prod(dims) * dtype.itemsize
    if array.size is not None and array.size != needed:
        raise UserError(f"{array.source}: {array.size} bytes; expected {needed} for dimensions {dims}: damaged?")

    def blocks(most: int) -> Iterator[np.ndarray]:
        each = math.prod(shape) * dtype.itemsize
        step = max(1, min(most, PART_BYTES // each))
        with _readable(array.source), array.open() as file:
            array.header(file)
            for first in range(0, count, step):
                wanted = min(step, count - first)
                data = file.read(wanted * each)
                if len(data) < wanted * each:
                    raise UserError(f"{array.source}: ends after {first + len(data) // each} of {count} patches")
                yield np.frombuffer(data, dtype).reshape(wanted, *shape)
            if file.read(1):
                raise UserError(f"{array.source}: goes on after its {count} patches: damaged?")

    scale = 1.0 if dtype == np.uint8 else _scale(array.source, dtype, blocks(PART_PATCHES))

    def parts(most: int) -> Iterator[np.ndarray]:
        for block in blocks(most):
            # a copy in any case: what comes from a file's buffer cannot be written, which torch wants to be able to
            yield (np.rint(block.astype(np.float64) * scale) if dtype.kind == "f" else block).astype(np.uint8)

    return Input(array.source, count, parts)


def _count(source: str, dims: tuple[int, ...], shape: Shape) -> int:
    channels, *sides = shape
    grey = channels == 1
    if dims[1:] == shape or (grey and dims[1:] == tuple(sides)):
        if dims[0] == 0:
            raise UserError(f"{source}: holds no patches: dimensions {dims}")
        return dims[0]
    if grey and dims == tuple(sides):
        return 1
    height, width = sides
    forms = [f"(N, {channels}, {height}, {width})", *[f"(N, {height}, {width})", f"({height}, {width})"] * grey]
    hint = ""
    if dims == shape:
        hint = "; a single patch is array[None]"
    elif dims[1:] == (*sides, channels):
        hint = "; channels come before height and width: numpy.moveaxis(array, -1, 1)"
    elif len(dims) == 1:
        hint = "; are these labels?"
    elif len(dims) == 2 and not grey:
        hint = f"; are these feature vectors? {_OF_PATCHES.capitalize()}"
    raise UserError(f"{source}: dimensions {dims}; the model expects {' or '.join(forms)}{hint}")


def _scale(source: str, dtype: np.dtype, blocks: Iterable[np.ndarray]) -> float:
    """What the numbers are multiplied by to be levels; reads the whole file once. `UserError` if that is not clear."""
    extremes = [(block.min(), block.max()) for block in blocks]
    least, most = (float(f([e[i] for e in extremes])) for i, f in enumerate((np.min, np.max)))
    found = f"{source}: {dtype.name} from {least:g} to {most:g}"
    if math.isnan(least) or least < 0 or most > 255:
        hint = "; normalised values are not taken, the model normalises by itself" if least < 0 else ""
        raise UserError(f"{found}; expected values in [0, 255]{' or [0, 1]' if dtype.kind == 'f' else ''}{hint}")
    if dtype.kind != "f":
        return 1.0
    if UNIT_MOST < most < LEVELS_LEAST:
        raise UserError(
            f"{found}: not clear whether it is meant in [0, 1] or in [0, 255]; expected a largest value up to "
            f"{UNIT_MOST:g} or from {LEVELS_LEAST:g} on (clip it, or save levels as uint8)"
        )
    return 255.0 if most <= UNIT_MOST else 1.0


# ---- images
def read_image(path: Path, channels: int) -> np.ndarray:
    """An image as (channels, height, width) uint8, RGB (3) or grey (1); `UserError` for what `image_files` does not
    read. Whether colour would be lost says `check_grey`."""
    return np.array(image_files.read_image(path, channels).transpose(2, 0, 1), order="C")


def _open_image(path: Path, shape: Shape) -> Input:
    channels, height, width = shape
    size = image_files.image_size(path, channels)
    if size != (width, height):
        found = f"{size[0]}×{size[1]}"
        raise UserError(f"{path}: {found} pixels (width×height); the model expects patches of {width}×{height}")
    check_grey(path, channels)

    def parts(most: int) -> Iterator[np.ndarray]:
        yield read_image(path, channels)[None]

    return Input(str(path), 1, parts)
