"""Images to patches: cut once, kept as one memory-mapped array in the cache folder, shared by a machine's processes.

    collection = cached_collection("colon", files, settings, lambda _: [BagSource(...), ...], patch=(27, 27))

A cache entry is addressed by the content of the files and the settings of cutting. So that later trials need not read
the files again, an index beside it knows which content the files had at their size and time of change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.collection import PatchCollection
from d2l_study.data.decoded_cache import (
    ADVICE,
    FORMAT,
    UNUSABLE,
    AlteredError,
    check_may_decode,
    check_once,
    files_of,
    index_of,
    new_entry,
    one_at_a_time,
    read_index,
    read_meta,
    warn_if_altered,
    write_index,
    write_meta,
)
from d2l_study.data.memory_maps import disk_full_as_user_error, new_array
from d2l_study.data.pool import UNKNOWN, Bags
from d2l_study.data.slow_progress import said_slowly
from d2l_study.environment import cache_dir
from d2l_study.errors import UserError, listed
from d2l_study.slides.image_files import decode_errors, read_image
from d2l_study.slides.opening import open_slide
from d2l_study.slides.resolution import PatchReader

_VERSION = 1
"""Of what cutting computes; part of the checksum, and so of ids."""

_READERS = 4
"""Images decoded at a time: decoding is in C and releases the interpreter."""

_BLOCK = 16 * 2**20
"""Bytes of patches that are cut from an image at a time."""


@dataclass(frozen=True)
class ImageCut:
    """Patches to cut from one image: xy (k, 2) their centres as (column, row) in 0-based pixels; label (k,) int8 truth,
    −1 unknown; truths: further ones by name; channels: 3 for RGB, 1 for grey. With xy NaN (k = 1) the whole image is
    the patch."""

    path: Path
    xy: np.ndarray
    label: np.ndarray
    truths: Mapping[str, np.ndarray] = field(default_factory=dict)
    channels: int = 3

    def patches(self, patch: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """The patches of size `patch` (h, w) in order, (k, C, h, w) uint8 with k at most `most`. `UserError` as of
        `read_image` and `check_cut`."""
        if not len(self.xy):
            return
        image = read_image(self.path, self.channels)
        check_cut(self, image, patch)
        if np.isnan(self.xy).any():
            yield image.transpose(2, 0, 1)[None]
            return
        for first in range(0, len(self.xy), most):
            yield cut_patches(image, self.xy[first : first + most], patch)


@dataclass(frozen=True, kw_only=True)
class TileCut(ImageCut):
    """Tiles to cut from a slide, which is read tile by tile and never whole. xy: their centres, in pixels of level 0;
    corners: (k, 2) int64 their upper left corners; side: of a tile in level-0 pixels, as (x, y); mpp: µm per pixel of
    the tiles; slide_mpp: that of level 0."""

    corners: np.ndarray
    side: tuple[float, float]
    mpp: float
    slide_mpp: tuple[float, float]

    def patches(self, patch: tuple[int, int], most: int) -> Iterator[np.ndarray]:
        """As of an `ImageCut`, for square patches. `UserError` as of `open_slide` and `PatchReader`."""
        if not len(self.corners):
            return
        with open_slide(self.path, self.slide_mpp) as slide:
            reader = PatchReader(slide, self.mpp, patch[0])
            for first in range(0, len(self.corners), most):
                yield reader.read(self.corners[first : first + most]).transpose(0, 3, 1, 2)


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
    even ones the place between the two middle pixels, of which a centre on a pixel becomes the one after the middle.
    The reflection does not repeat the border pixel.
    """
    height, width = image.shape[:2]
    h, w = patch
    top, left = _first(xy[:, 1] - (h - 1) / 2, h), _first(xy[:, 0] - (w - 1) / 2, w)
    rows = _reflected(top[:, None] + np.arange(h), height)
    columns = _reflected(left[:, None] + np.arange(w), width)
    return image[rows[:, :, None], columns[:, None, :]].transpose(0, 3, 1, 2)


def channel_sums(patches: np.ndarray) -> np.ndarray:
    """(k, 2, C) float32, over the pixels of each patch the mean of x/255 and of (x/255)². patches: (k, C, h, w)
    uint8."""
    count, channels = patches.shape[:2]
    pixels: np.ndarray = patches.reshape(count, channels, -1)
    axis = 2
    if pixels.strides == (pixels[0].size, 1, channels):
        # Channels side by side, as they are cut and read. They alone would be an inner loop of three values; with those
        # of all patches it is a long one. Each sum is still made pixel after pixel, the same to the last bit.
        pixels, axis = pixels.transpose(2, 0, 1).reshape(-1, count * channels), 0
    scaled = pixels.astype(np.float32) / 255
    means = np.stack([scaled.mean(axis=axis), np.square(scaled).mean(axis=axis)])
    return np.ascontiguousarray(means.reshape(2, count, channels).transpose(1, 0, 2))


def _first(place: np.ndarray, side: int) -> np.ndarray:
    """The nearest whole pixel to where a patch begins. For even sides it lies between two wherever a centre is on a
    pixel: then always the one before, so that all patches lie alike about their centres."""
    return (np.rint(place) if side % 2 else np.ceil(place - 0.5)).astype(np.int64)


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
    describe: Callable[[Mapping[Path, bytes]], Sequence[BagSource]],
    patch: tuple[int, int],
) -> PatchCollection:
    """The collection of all bags, from the cache where it holds what these files say, else described, cut and kept.

    files: all that the result depends on, in an order that is the same everywhere; settings: what else it depends on
    (plain values); describe: makes the bags from the files, of which it is given the SHA-256 (called only if they are
    not in the cache). `UserError` from `describe`, or if an image is unreadable, smaller than a patch, or a bag has no
    instances.
    """
    about = json.dumps([_VERSION, name, list(patch), settings], sort_keys=True)
    index = index_of(name, about, files)
    try:
        entry = str(read_index(index)["entry"])
    except UNUSABLE:
        entry = ""
    if entry:
        try:
            return _open(name, cache_dir() / entry, files)
        except UNUSABLE:  # said below, if it is
            pass
    check_may_decode(name)
    content = hashlib.sha256(f"{FORMAT}|{about}".encode())
    digests = dict(zip(files, file_digests(files), strict=True))
    for path in files:
        content.update(path.name.encode("utf-8", "surrogateescape") + digests[path])
    entry = f"{name}-{content.hexdigest()[:16]}"
    folder = cache_dir() / entry
    with disk_full_as_user_error(cache_dir(), ADVICE):
        index.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(index.with_name(f"{entry}.lock")) as alone:
        try:
            collection = _open(name, folder, files)
        except UNUSABLE as error:
            warn_if_altered(folder, error)
            sources = describe(digests)
            with new_entry(folder, alone) as place:
                _cut(name, about, list(files), sources, patch, place)
            collection = _open(name, folder, files)
    write_index(index, {"entry": entry})
    return collection


def file_digests(files: Sequence[Path]) -> list[bytes]:
    """The SHA-256 of each file's content; `UserError` for one that cannot be read."""

    def digest(path: Path) -> bytes:
        if path.is_dir():  # a slide of several files
            return hashlib.sha256(b"".join(digest(part) for part in files_of(path))).digest()
        with decode_errors(path), path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(digest, files))


def _open(name: str, folder: Path, files: Sequence[Path]) -> PatchCollection:
    meta = read_meta(folder)
    check_once(folder, meta)
    instances = np.load(folder / "instances.npy", mmap_mode="r")
    with np.load(folder / "bags.npz") as kept:
        arrays = dict(kept)
    count, label = len(instances), arrays["label"]
    if len(arrays["instance_label"]) != count or instances.shape[1:] != tuple(meta["shape"]):
        raise AlteredError("its arrays do not fit together")
    bags = Bags(arrays["offsets"], np.arange(count), label, arrays["instance_label"], label, np.arange(len(label)))
    return PatchCollection(
        name, instances, arrays["instance_label"].astype(np.int64), meta["checksum"], bags=bags,
        names=tuple(meta["names"]), group=arrays["group"], group_names=tuple(meta["group_names"]), xy=arrays["xy"],
        images=tuple(files[i] for i in meta["images"]), image=arrays["image"],
        truths={key[len("truth_") :]: value for key, value in arrays.items() if key.startswith("truth_")},
        sums=arrays["sums"], tile_side=arrays.get("tile_side"), fold=arrays.get("fold"), part=arrays.get("part"),
    )  # fmt: skip


def _checksum(
    about: str, names: list[str], groups: list[str], instances: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> str:
    """Of all that a study of the collection depends on."""
    checksum = hashlib.sha256(f"{about}|{names}|{groups}".encode())
    checksum.update(np.ascontiguousarray(instances).data)
    for key in sorted(arrays):
        checksum.update(key.encode() + np.ascontiguousarray(arrays[key]).tobytes())
    return checksum.hexdigest()[:16]


def _cut(
    name: str, about: str, files: list[Path], sources: Sequence[BagSource], patch: tuple[int, int], place: Path,
) -> None:  # fmt: skip
    """Cut every patch into files in the folder `place`."""
    if empty := [source.name for source in sources if not sum(len(cut.xy) for cut in source.cuts)]:
        raise UserError(f"data set {name}: bags without an instance: {listed(empty)}")
    cuts = [(cut, b) for b, source in enumerate(sources) for cut in source.cuts]
    counts = np.array([len(cut.xy) for cut, _ in cuts])
    starts = np.concatenate([[0], np.cumsum(counts)])
    shape = (int(starts[-1]), 3, *patch)
    instances = new_array(place / "instances.npy", shape, np.uint8, ADVICE)
    sums = np.empty((shape[0], 2, 3))
    step = max(1, _BLOCK // (3 * patch[0] * patch[1]))

    def fill(i: int) -> None:
        first = int(starts[i])
        for patches in cuts[i][0].patches(patch, step):
            part = slice(first, first + len(patches))
            instances[part] = patches
            sums[part] = channel_sums(patches)
            first = part.stop

    def tell(images: int) -> str:
        return (f"data set {name}: {starts[images]:,} of {shape[0]:,} patches are cut, once on this machine "
                f"({images:,} of {len(cuts):,} images)")  # fmt: skip

    readers = ThreadPoolExecutor(_READERS)
    try:
        for _ in said_slowly(readers.map(fill, range(len(cuts))), tell):
            pass
    finally:
        readers.shutdown(cancel_futures=True)  # whoever fails or stops does not wait for slides to come
    names = sorted({source.group for source in sources})
    group_index = {group: i for i, group in enumerate(names)}
    places = {path: i for i, path in enumerate(files)}
    paths = list(dict.fromkeys(cut.path for cut, _ in cuts))
    image_index = {path: i for i, path in enumerate(paths)}
    sizes = np.bincount([b for _, b in cuts], counts, len(sources)).astype(np.int64)
    arrays: dict[str, Any] = {
        "offsets": np.concatenate([[0], np.cumsum(sizes)]),
        "instance_label": np.concatenate([cut.label for cut, _ in cuts]).astype(np.int8),
        "label": np.array([source.label for source in sources], np.int8),
        "group": np.array([group_index[source.group] for source in sources]),
        "xy": np.concatenate([cut.xy for cut, _ in cuts]).astype(np.float64),
        "image": np.repeat([image_index[cut.path] for cut, _ in cuts], counts),
        "sums": sums,
    }  # fmt: skip
    for truth in dict.fromkeys(key for cut, _ in cuts for key in cut.truths):
        found = [cut.truths.get(truth, np.full(len(cut.xy), UNKNOWN)) for cut, _ in cuts]
        arrays[f"truth_{truth}"] = np.concatenate(found).astype(np.int8)
    if tiles := {cut.path: cut.side for cut, _ in cuts if isinstance(cut, TileCut)}:
        arrays["tile_side"] = np.array([tiles[path] for path in paths], np.float64)
    for fixed in ("fold", "part"):
        values = [getattr(source, fixed) for source in sources]
        if None not in values:
            arrays[fixed] = np.array(values, np.int64)
    bag_names = [source.name for source in sources]
    instances.flush()
    np.savez(place / "bags.npz", **arrays)
    write_meta(place, {
        "checksum": _checksum(about, bag_names, names, instances, arrays), "shape": shape[1:], "names": bag_names,
        "group_names": names, "images": [places[path] for path in paths],
    })  # fmt: skip
