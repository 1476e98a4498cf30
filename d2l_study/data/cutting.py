"""Images to patches: cut once, kept as one memory-mapped array in the cache folder, shared by a machine's processes.

    collection = cached_collection("colon", files, settings, lambda: [BagSource(...), ...], patch=(27, 27))

A cache entry is addressed by the content of the files and the settings of cutting. So that later trials need not read
the files again, an index beside it knows which content the files had at their size and time of change.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.image_files import read_image
from d2l_study.data.pool import UNKNOWN, Bags
from d2l_study.environment import cache_dir
from d2l_study.errors import UserError, listed

_VERSION = 1
"""Of the cache's format and of what cutting computes."""

_READERS = 4
"""Images decoded at a time: decoding is in C and releases the interpreter."""


@dataclass(frozen=True)
class ImageCut:
    """Patches to cut from one image: xy (k, 2) their centres as (column, row) in 0-based pixels; label (k,) int8 truth,
    −1 unknown; truths: further ones by name. With xy NaN (k = 1) the whole image is the patch."""

    path: Path
    xy: np.ndarray
    label: np.ndarray
    truths: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class BagSource:
    """One bag before it is cut. group: bags of the same name share a fold; fold, part: as of a `BagCollection`."""

    name: str
    label: int
    group: str
    cuts: tuple[ImageCut, ...]
    fold: int | None = None
    part: int | None = None


def check_cut(cut: ImageCut, image: np.ndarray, patch: tuple[int, int]) -> None:
    """`UserError` if a decoded image, (H, W, C), is smaller than a patch, is not a patch where it shall be one, or an
    instance lies more than a pixel outside of it."""
    size = f"{image.shape[1]}×{image.shape[0]} pixels"
    if image.shape[0] < patch[0] or image.shape[1] < patch[1]:
        raise UserError(f"{cut.path}: {size}, smaller than a patch of {patch[1]}×{patch[0]}")
    if np.isnan(cut.xy).any():
        if image.shape[:2] != patch:
            raise UserError(f"{cut.path}: {size}; expected a patch of {patch[1]}×{patch[0]}")
        return
    outside = ~((cut.xy > -1.5) & (cut.xy < np.array(image.shape[1::-1]) + 0.5)).all(axis=1)
    if outside.any():
        x, y = cut.xy[np.argmax(outside)]
        raise UserError(f"{cut.path}: {size}, but an instance is at column {x:g}, row {y:g} (from 0)")


def cut_patches(image: np.ndarray, xy: np.ndarray, patch: tuple[int, int]) -> np.ndarray:
    """(k, C, h, w) the patches of size `patch` (h, w) about the centres; what lies beyond the border is reflected.

    image: (H, W, C); xy: (k, 2) centres (column, row) in 0-based pixels: for odd sides the pixel in the middle, for
    even ones the place between the two middle pixels. The reflection does not repeat the border pixel.
    """
    height, width = image.shape[:2]
    h, w = patch
    top = np.rint(xy[:, 1] - (h - 1) / 2).astype(np.int64)
    left = np.rint(xy[:, 0] - (w - 1) / 2).astype(np.int64)
    rows = _reflected(top[:, None] + np.arange(h), height)
    columns = _reflected(left[:, None] + np.arange(w), width)
    return image[rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)


def _reflected(index: np.ndarray, size: int) -> np.ndarray:
    index = np.abs(index)
    return np.where(index >= size, 2 * (size - 1) - index, index)


def grid_centres(width: int, height: int, patch: tuple[int, int]) -> np.ndarray:
    """(k, 2) centres of the whole patches of a grid from the upper left corner, row by row; a rest is left out."""
    h, w = patch
    column, row = np.meshgrid(np.arange(width // w) * w + (w - 1) / 2, np.arange(height // h) * h + (h - 1) / 2)
    return np.stack([column.ravel(), row.ravel()], axis=1)


def cached_collection(
    name: str,
    files: Sequence[Path],
    settings: Mapping[str, Any],
    describe: Callable[[], Sequence[BagSource]],
    patch: tuple[int, int],
    read: Callable[[Path], np.ndarray] = read_image,
) -> BagCollection:
    """The collection of all bags, from the cache where it holds what these files say, else described, cut and kept.

    files: all that the result depends on, in an order that is the same everywhere; settings: what else it depends on
    (plain values); describe: makes the bags from the files (called only if they are not in the cache). `UserError` from
    `describe`, or if an image is unreadable, smaller than a patch, or a bag has no instances.
    """
    about = json.dumps([_VERSION, name, list(patch), settings], sort_keys=True)
    stats = [(path, path.stat()) for path in files]
    seen = hashlib.sha256(about.encode())
    for path, stat in stats:
        seen.update(f"{path}|{stat.st_size}|{stat.st_mtime_ns}\n".encode())
    index = cache_dir() / f"{name}-files" / f"{seen.hexdigest()[:24]}.json"
    try:
        return _open(name, cache_dir() / json.loads(index.read_text())["entry"], files)
    except (OSError, EOFError, ValueError, KeyError, TypeError):  # not there yet, or damaged
        pass
    content = hashlib.sha256(about.encode())
    for path in files:
        content.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    entry = f"{name}-{content.hexdigest()[:16]}"
    folder = cache_dir() / entry
    index.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(index.with_name(f"{entry}.lock")):
        try:
            collection = _open(name, folder, files)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            _cut(name, about, list(files), describe(), patch, read, folder)
            collection = _open(name, folder, files)
    temporary = index.with_name(f"{index.name}-{uuid.uuid4().hex[:8]}")
    temporary.write_text(json.dumps({"entry": entry}))
    temporary.replace(index)
    return collection


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Held by one process (or thread) of the machine; the others wait, so that what all need is made once.

    path: of a lock file, which stays. The system frees the lock of a process that is gone. Where there are no such
    locks, nobody waits: then several make the same, and the first is kept.
    """
    with ExitStack() as held:
        with suppress(ImportError, OSError):  # no such locks here, or the file is another user's
            import fcntl

            fcntl.flock(held.enter_context(path.open("w")), fcntl.LOCK_EX)
        yield


def _open(name: str, folder: Path, files: Sequence[Path]) -> BagCollection:
    meta = json.loads((folder / "meta.json").read_text())
    instances = np.load(folder / "instances.npy", mmap_mode="r")
    arrays = dict(np.load(folder / "bags.npz"))
    count, label = len(instances), arrays["label"]
    if len(arrays["instance_label"]) != count or instances.shape[1:] != tuple(meta["shape"]):
        raise ValueError(f"{folder}: its arrays do not fit together")
    bags = Bags(arrays["offsets"], np.arange(count), label, arrays["instance_label"], label, np.arange(len(label)))
    return BagCollection(
        name, instances, arrays["instance_label"].astype(np.int64), meta["checksum"], bags=bags,
        names=tuple(meta["names"]), group=arrays["group"], group_names=tuple(meta["group_names"]), xy=arrays["xy"],
        images=tuple(files[i] for i in meta["images"]), image=arrays["image"],
        truths={key[len("truth_") :]: value for key, value in arrays.items() if key.startswith("truth_")},
        sums=arrays["sums"], fold=arrays.get("fold"), part=arrays.get("part"),
    )  # fmt: skip


def _cut(
    name: str, about: str, files: list[Path], sources: Sequence[BagSource], patch: tuple[int, int],
    read: Callable[[Path], np.ndarray], folder: Path,
) -> None:  # fmt: skip
    """Cut every patch into a folder beside the final one, which is then renamed into place: several processes may
    do so at once, and the first is kept."""
    if empty := [source.name for source in sources if not sum(len(cut.xy) for cut in source.cuts)]:
        raise UserError(f"data set {name}: bags without an instance: {listed(empty)}")
    cuts = [(cut, b) for b, source in enumerate(sources) for cut in source.cuts]
    counts = np.array([len(cut.xy) for cut, _ in cuts])
    starts = np.concatenate([[0], np.cumsum(counts)])
    temporary = folder.with_name(f"{folder.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        shape = (int(starts[-1]), 3, *patch)
        instances = np.lib.format.open_memmap(temporary / "instances.npy", "w+", np.uint8, shape)
        sums = np.empty((shape[0], 2, 3))

        def fill(i: int) -> None:
            cut, part = cuts[i][0], slice(starts[i], starts[i + 1])
            if not len(cut.xy):
                return
            image = read(cut.path)
            check_cut(cut, image, patch)
            whole = np.isnan(cut.xy).any()
            patches = image.transpose(2, 0, 1)[None] if whole else cut_patches(image, cut.xy, patch)
            instances[part] = patches
            scaled = patches.reshape(len(patches), 3, -1).astype(np.float32) / 255
            sums[part, 0], sums[part, 1] = scaled.mean(axis=2), np.square(scaled).mean(axis=2)

        with ThreadPoolExecutor(_READERS) as readers:
            for _ in readers.map(fill, range(len(cuts))):
                pass
        names = sorted({source.group for source in sources})
        places = {path: i for i, path in enumerate(files)}
        paths = list(dict.fromkeys(cut.path for cut, _ in cuts))
        image_index = {path: i for i, path in enumerate(paths)}
        sizes = np.bincount([b for _, b in cuts], counts, len(sources)).astype(np.int64)
        arrays: dict[str, Any] = {
            "offsets": np.concatenate([[0], np.cumsum(sizes)]),
            "instance_label": np.concatenate([cut.label for cut, _ in cuts]).astype(np.int8),
            "label": np.array([source.label for source in sources], np.int8),
            "group": np.array([names.index(source.group) for source in sources]),
            "xy": np.concatenate([cut.xy for cut, _ in cuts]).astype(np.float64),
            "image": np.repeat([image_index[cut.path] for cut, _ in cuts], counts),
            "sums": sums,
        }  # fmt: skip
        for truth in dict.fromkeys(key for cut, _ in cuts for key in cut.truths):
            found = [cut.truths.get(truth, np.full(len(cut.xy), UNKNOWN)) for cut, _ in cuts]
            arrays[f"truth_{truth}"] = np.concatenate(found).astype(np.int8)
        for fixed in ("fold", "part"):
            values = [getattr(source, fixed) for source in sources]
            if None not in values:
                arrays[fixed] = np.array(values, np.int64)
        bag_names = [source.name for source in sources]
        checksum = hashlib.sha256(f"{about}|{bag_names}|{names}".encode())
        checksum.update(np.ascontiguousarray(instances).data)
        for key in sorted(arrays):
            checksum.update(key.encode() + np.ascontiguousarray(arrays[key]).tobytes())
        instances.flush()
        np.savez(temporary / "bags.npz", **arrays)
        meta = {
            "checksum": checksum.hexdigest()[:16], "shape": shape[1:], "names": bag_names, "group_names": names,
            "images": [places[path] for path in paths],
        }  # fmt: skip
        (temporary / "meta.json").write_text(json.dumps(meta))
        try:
            temporary.rename(folder)
        except OSError:  # another process was first, or a damaged entry is in the way
            try:
                _open(name, folder, files)
            except Exception:
                shutil.rmtree(folder, ignore_errors=True)
                temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
