"""One's own images, listed in a manifest: `data: {dataset: manifest, path: slides.csv}` (docs/own_data.md).

A row names an image (`path`), the bag that it belongs to (`bag`) and the bag's label (`label`). How instances come out
of it is said by `cut`: patches around the points (x, y) of its rows, patches of a grid over it, or the whole image.
The manifest and all that it names are checked before anything is trained, and what is wrong is said with row and
column, all of it at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from d2l_study.data.collection import PatchCollection
from d2l_study.data.cutting import BagSource, ImageCut, cached_collection
from d2l_study.data.given_bags import PatchBags
from d2l_study.data.manifest_checks import check_bags, check_content, check_pixels, fold_number, reason_of
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import PARTS, Rows, read_rows
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.options import option
from d2l_study.slides.image_files import image_size, read_image

CUTS = ("points", "grid", "whole")

LARGEST_WHOLE = 256
"""Pixels a side of an image that can be an instance as it is; a larger one is taken for one that should be cut."""

MOST_INSTANCES = 10_000_000
"""Of a manifest: with all that is kept of each, more would need many gigabytes of memory."""

_READERS = 8


@dataclass(frozen=True)
class ManifestBags(PatchBags):
    """The `data` section of a space for one's own images."""

    dataset: str = option("manifest", "the data set", choices=("manifest",))
    path: str | None = option(None, "the manifest, a .csv or .parquet file", scientific=False)
    cut: str | None = option(
        None, "instances: patches around points, patches of a grid, or whole images; null: points where the manifest "
        "has the columns x and y, else whole", choices=CUTS,
    )  # fmt: skip
    patch_size: int = option(32, "side of a patch in pixels (cut: points, grid)", least=8, most=1024)
    stride: int | None = option(None, "pixels from patch to patch (cut: grid); null: patch_size", least=1, most=4096)
    root: str | None = option(
        None, "folder that relative paths of the manifest begin at; null: the manifest's own", scientific=False
    )

    POOL_KEYS: ClassVar[tuple[str, ...]] = ("dataset", "root", "path", "cut", "patch_size", "stride")
    PATH_KEYS: ClassVar[tuple[str, ...]] = ("root", "path")

    def idle_keys(self) -> dict[str, str]:
        idle = {"whole": ("patch_size", "stride"), "points": ("stride",)}.get(self.cut or "", ())
        return dict.fromkeys(idle, f"cut {self.cut}")

    def acting_values(self) -> dict[str, Any]:
        return {"stride": self.stride or self.patch_size}

    def collect(self) -> PatchCollection:
        """All bags of the manifest; `UserError` says what is wrong with it, or with an image that it names."""
        if self.path is None:
            raise UserError("data.path: missing; name the manifest, a .csv or .parquet file")
        file = user_path(self.path, "data.path").absolute()
        base = file.parent if self.root is None else user_path(self.root, "data.root").absolute()
        if not base.is_dir():
            raise UserError(f"data.root: {self.root!r} is not a folder")
        rows = read_rows(file, base)
        cut = self.cut or ("points" if "x" in rows.columns else "whole")
        check_bags(rows, cut)
        side, step = self.patch_size, self.stride or self.patch_size
        patch = (side, side)
        if cut == "whole":
            sizes = (_size_or_reason(path) for path in rows.files)  # what cannot be read is told with all the others
            width, height = next((size for size in sizes if not isinstance(size, str)), (1, 1))
            patch = (height, width)
        settings = {"cut": cut, "stride": step if cut == "grid" else None}
        described = []

        def describe(digests: Mapping[Path, bytes]) -> list[BagSource]:
            sizes = _sizes(rows, cut, patch)
            check_content(rows, cut, digests)
            found = sources(rows, sizes, cut, patch, step)
            described.append(True)
            return found

        try:
            found = cached_collection("manifest", [file, *rows.files], settings, describe, patch)
        except UserError:
            if described:  # cutting stops at the first image that it cannot read
                with ThreadPoolExecutor(_READERS) as readers:
                    check_pixels(rows, list(readers.map(lambda path: reason_of(read_image, path), rows.files)))
            raise
        return dataclasses.replace(found, notes=rows.columns.notes)


def sources(
    rows: Rows, sizes: Sequence[tuple[int, int]], cut: str, patch: tuple[int, int], stride: int
) -> list[BagSource]:
    """The bags in the order in which the manifest first names them; of a bag its images likewise, and of an image its
    rows. sizes: (width, height) of each file. `UserError` for more than `MOST_INSTANCES`."""
    count = len(rows)
    if cut == "grid":
        columns, lines = (
            np.maximum(0, (np.array(sizes, np.int64)[:, i] - patch[1 - i]) // stride + 1)[rows.path] for i in (0, 1)
        )
        count = int((columns * lines).sum())
    if count > MOST_INSTANCES:
        key = f"data.stride: {stride} makes" if cut == "grid" else f"{rows.file}:"
        raise UserError(f"{key} {count:,} patches in all; at most {MOST_INSTANCES:,} are held"
                        + (" (a larger stride makes fewer)" if cut == "grid" else ""))  # fmt: skip
    image = np.arange(len(rows)) if cut == "whole" else rows.bag.codes * len(rows.files) + rows.path
    _, first, inverse = np.unique(image, return_index=True, return_inverse=True)
    order = np.lexsort((np.arange(len(rows)), first[inverse], rows.bag.codes))
    bag, image = rows.bag.codes[order], image[order]
    begins = np.flatnonzero(np.concatenate([[True], (bag[1:] != bag[:-1]) | (image[1:] != image[:-1])]))
    cuts: dict[int, list[ImageCut]] = {}
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True):
        mine = order[begin:end]
        if cut == "grid":
            xy = strided_centres(*sizes[int(rows.path[mine[0]])], patch=patch, stride=stride)
            label = np.full(len(xy), -1, np.int8)
        else:
            xy = np.stack([rows.x[mine], rows.y[mine]], axis=1) if cut == "points" else np.full((1, 2), np.nan)
            label = rows.instance_label[mine]
        cuts.setdefault(int(bag[begin]), []).append(ImageCut(rows.files[rows.path[mine[0]]], xy, label))
    found = []
    for i in rows.first_of_bag().tolist():
        split = rows.split.text(i)
        found.append(
            BagSource(
                rows.bag.text(i), int(rows.label[i]), rows.group_of(i), tuple(cuts[int(rows.bag.codes[i])]),
                None if split in PARTS else fold_number(split), PARTS.index(split) if split in PARTS else None,
            )
        )  # fmt: skip
    return found


def strided_centres(width: int, height: int, patch: tuple[int, int], stride: int) -> np.ndarray:
    """(k, 2) centres (column, row) of the patches that lie wholly in the image, every `stride` pixels from the upper
    left corner, row by row."""
    h, w = patch
    column, row = np.meshgrid(
        np.arange(0, width - w + 1, stride) + (w - 1) / 2, np.arange(0, height - h + 1, stride) + (h - 1) / 2
    )
    return np.stack([column.ravel(), row.ravel()], axis=1)


def _sizes(rows: Rows, cut: str, patch: tuple[int, int]) -> list[tuple[int, int]]:
    """(width, height) of every file, checked against what is to be cut from it: `UserError` names all images that
    cannot be opened or are of another size, and all points outside."""
    problems = Problems(rows.file)
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(_size_or_reason, rows.files))
    reasons = {f: size for f, size in enumerate(found) if isinstance(size, str)}
    shown, number = rows.columns.shown, rows.number
    problems.add_values(number, rows.path, reasons, lambda f: (shown["path"], reasons[f]))
    sizes = [(0, 0) if isinstance(size, str) else size for size in found]
    width, height = np.array(sizes, np.int64).T
    h, w = patch

    def told(f: int) -> str:
        return f"{rows.files[f].name} has {width[f]}×{height[f]} pixels"

    def wrong(mask: np.ndarray) -> list[int]:
        return [f for f in np.flatnonzero(mask).tolist() if f not in reasons]

    if cut == "whole":
        problems.add_values(number, rows.path, wrong((height != h) | (width != w)), lambda f: (
            shown["path"], f"{told(f)}, that of row {number[0]} {w}×{h}; whole images (data.cut: whole) must be of one "
            "size"))  # fmt: skip
        large = (np.maximum(width, height) > LARGEST_WHOLE) & (height == h) & (width == w)
        problems.add_values(number, rows.path, wrong(large), lambda f: (
            shown["path"], f"{told(f)}; an instance has at most {LARGEST_WHOLE} a side (data.cut: grid cuts patches "
            "from larger images)"))  # fmt: skip
    else:
        small = (width < w) | (height < h)
        problems.add_values(number, rows.path, wrong(small), lambda f: (
            shown["path"], f"{told(f)}, smaller than a patch (data.patch_size: {w})"))  # fmt: skip
        if cut == "points":
            fits = np.ones(len(found), bool)
            fits[[*reasons, *np.flatnonzero(small)]] = False
            # A centre up to a pixel outside is let pass: annotators click on the rim.
            for column, values, most in (("x", rows.x, width[rows.path]), ("y", rows.y, height[rows.path])):
                outside = np.flatnonzero(fits[rows.path] & ~((values >= -1) & (values <= most)))
                problems.add_rows(number, outside, lambda i, column=column, values=values: (  # type: ignore[misc]
                    shown[column], f"{values[i]:g} is outside: {told(int(rows.path[i]))}, counted from 0"))  # fmt: skip
    problems.stop_if_any()
    return sizes


def _size_or_reason(path: Path) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except UserError as error:
        return str(error)
