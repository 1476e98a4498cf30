"""One's own images, listed in a manifest: `data: {dataset: manifest, path: slides.csv}` (docs/own_data.md).

A row names an image (`path`), the bag that it belongs to (`bag`) and the bag's label (`label`). How instances come out
of it is said by `cut`: patches around the points (x, y) of its rows, patches of a grid over it, or the whole image.
The manifest and all that it names are checked before anything is trained, and what is wrong is said with row and
column, all of it at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.cutting import BagSource, ImageCut, cached_collection
from d2l_study.data.given_bags import GivenBags
from d2l_study.data.image_files import image_size, read_image
from d2l_study.data.manifest_rows import PARTS, Problems, Row, read_rows
from d2l_study.environment import user_path
from d2l_study.errors import UserError, counted, listed, nearest
from d2l_study.options import option

CUTS = ("points", "grid", "whole")

LARGEST_WHOLE = 256
"""Pixels a side of an image that can be an instance as it is; a larger one is taken for one that should be cut."""

_READERS = 8


@dataclass(frozen=True)
class ManifestBags(GivenBags):
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

    def resolved(self) -> ManifestBags:
        data = super().resolved()
        assert isinstance(data, ManifestBags)
        path = None if data.path is None else str(user_path(data.path, "data.path").absolute())
        return dataclasses.replace(data, path=path)

    def idle_keys(self) -> dict[str, str]:
        idle = {"whole": ("patch_size", "stride"), "points": ("stride",)}.get(self.cut or "", ())
        return dict.fromkeys(idle, f"cut {self.cut}")

    def collect(self) -> BagCollection:
        """All bags of the manifest; `UserError` says what is wrong with it, or with an image that it names."""
        if self.path is None:
            raise UserError("data.path: missing; name the manifest, a .csv or .parquet file")
        file = user_path(self.path, "data.path").absolute()
        base = file.parent if self.root is None else user_path(self.root, "data.root").absolute()
        if not base.is_dir():
            raise UserError(f"data.root: {self.root!r} is not a folder")
        rows, columns = read_rows(file, base)
        cut = self.cut or ("points" if "x" in columns else "whole")
        check_bags(file, rows, columns, cut)
        files = list(dict.fromkeys(row.path for row in rows))
        side, step = self.patch_size, self.stride or self.patch_size
        patch = (side, side)
        if cut == "whole":
            width, height = image_size(files[0])
            patch = (height, width)
        settings = {"cut": cut, "stride": step if cut == "grid" else None}
        described: list[BagSource] = []

        def describe() -> list[BagSource]:
            described.extend(sources(file, rows, cut, patch, step, "split" in columns))
            return described

        try:
            return cached_collection("manifest", [file, *files], settings, describe, patch)
        except UserError:
            if described:  # cutting stops at the first image that it cannot read
                _check_pixels(file, rows)
            raise


def check_bags(file: Path, rows: Sequence[Row], columns: Iterable[str], cut: str) -> None:
    """`UserError` with all contradictions between the rows of a manifest, and what `cut` does not go with."""
    problems = Problems(file)
    columns = set(columns)
    if cut == "points" and "x" not in columns:
        problems.add("header", "no columns x and y, which data.cut: points needs")
    if cut == "grid" and "instance_label" in columns:
        problems.add("header", "column instance_label: rows are whole images under data.cut: grid, not instances; use "
                     "cut points or whole, or take the column out")  # fmt: skip
    problems.stop_if_any()
    first: dict[str, Row] = {}
    seen: dict[tuple[object, ...], Row] = {}
    for row in rows:
        place = f"row {row.number}"
        other = first.setdefault(row.bag, row)
        for column in ("label", "group", "split"):
            mine, theirs = getattr(row, column), getattr(other, column)
            if mine != theirs:
                problems.add(f"{place}, column {column}", f"bag {row.bag!r} has {mine!r} here and {theirs!r} in row "
                             f"{other.number}; all rows of a bag must agree")  # fmt: skip
        if row.instance_label == 1 and row.label == 0:
            problems.add(f"{place}, column instance_label", f"1 in bag {row.bag!r}, which has label 0: a bag is "
                         "positive if any of its instances is")  # fmt: skip
        if cut == "points" and (np.isnan(row.x) or np.isnan(row.y)):
            problems.add(f"{place}, column {'x' if np.isnan(row.x) else 'y'}", "empty; data.cut: points needs a place")
        point = (row.x, row.y) if cut == "points" else ()
        again = seen.setdefault((row.bag, row.path, *point), row)
        if again is not row:
            what = "the same point of the same image" if point else "the same image"
            hint = "; data.cut: points reads the columns x and y" if not point and "x" in columns else ""
            problems.add(place, f"{what} as row {again.number}{hint}")
    _check_images_apart(rows, problems)
    if "split" in columns:
        _check_split(list(first.values()), problems)
    if len(labels := {row.label for row in first.values()}) == 1:
        problems.add("column label", f"all {len(first)} bags have label {labels.pop()}; both classes are needed")
    problems.stop_if_any()


def _group_of(row: Row) -> str:
    """The group of a row's bag; without one the bag is a group of its own."""
    return row.group or f"bag {row.bag}"


def _check_images_apart(rows: Sequence[Row], problems: Problems) -> None:
    """An image in two bags that may come into different folds would be trained and tested on."""
    first: dict[Path, Row] = {}
    told: set[tuple[str, str]] = set()
    for row in rows:
        other = first.setdefault(row.path, row)
        if _group_of(other) != _group_of(row) and (pair := (other.bag, row.bag)) not in told:
            told.add(pair)
            problems.add(f"row {row.number}, column path", f"{row.path.name} is in bag {row.bag!r} and in bag "
                         f"{other.bag!r} (row {other.number}); give both bags the same group, so that no image is both "
                         "trained and tested on")  # fmt: skip


def _check_split(bags: Sequence[Row], problems: Problems) -> None:
    before = len(problems.found)
    folds = all(row.split.isdecimal() for row in bags)
    for row in bags:
        if row.split not in PARTS and not folds:
            hint = "; did you mean 'val'?" if row.split.startswith("val") else nearest(row.split, PARTS)
            found = repr(row.split) if row.split else "empty"
            problems.add(f"row {row.number}, column split", f"{found}; expected train, val or test (or the number of "
                         f"a fold, in all rows){hint}")  # fmt: skip
    if len(problems.found) > before:
        return
    first: dict[str, Row] = {}
    for row in bags:
        other = first.setdefault(_group_of(row), row)
        if other.split != row.split:
            problems.add(f"row {row.number}, column split", f"group {row.group!r} is in {row.split} (bag {row.bag!r}) "
                         f"and in {other.split} (bag {other.bag!r}, row {other.number}); a group must not be "
                         "split")  # fmt: skip
    parts = {row.split for row in bags}
    if folds:
        count = max(int(part) for part in parts) + 1
        missing = [f for f in range(count) if str(f) not in {str(int(part)) for part in parts}]
        if missing:
            problems.add("column split", f"no bag is in fold {listed(missing)}; folds count from 0 without gaps")
        elif count < 3:
            problems.add("column split", f"{counted(count, 'fold')}; at least 3 are needed (train, validation, test)")
        return
    for part in ("train", "test"):
        if part not in parts:
            problems.add("column split", f"no bag is in {part}")
    labels = {row.label for row in bags if row.split == "train"}
    if len(labels) == 1:
        problems.add("column split", f"all bags in train have label {labels.pop()}; both classes are needed")


def sources(
    file: Path, rows: Sequence[Row], cut: str, patch: tuple[int, int], stride: int, split: bool
) -> list[BagSource]:
    """The bags in the order in which the manifest first names them; of a bag its images likewise, and of an image its
    rows. `UserError` names all images that cannot be opened or are of another size, and all points outside."""
    sizes = _sizes(file, rows, cut, patch)
    bags: dict[str, dict[object, list[Row]]] = {}
    for row in rows:
        key: object = row.path if cut != "whole" else row.number
        bags.setdefault(row.bag, {}).setdefault(key, []).append(row)
    found = []
    for bag, images in bags.items():
        cuts = []
        for mine in images.values():
            path = mine[0].path
            if cut == "grid":
                xy = strided_centres(*sizes[path], patch, stride)
                label = np.full(len(xy), -1, np.int8)
            else:
                xy = np.array([(row.x, row.y) for row in mine]) if cut == "points" else np.full((1, 2), np.nan)
                label = np.array([row.instance_label for row in mine], np.int8)
            cuts.append(ImageCut(path, xy, label))
        row = next(iter(images.values()))[0]
        named = split and row.split in PARTS
        found.append(
            BagSource(
                bag, row.label, _group_of(row), tuple(cuts), int(row.split) if split and not named else None,
                PARTS.index(row.split) if named else None,
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


def _sizes(file: Path, rows: Sequence[Row], cut: str, patch: tuple[int, int]) -> dict[Path, tuple[int, int]]:
    """(width, height) of every image, checked against what is to be cut from it."""
    first = {row.path: row for row in reversed(rows)}
    problems = Problems(file)
    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(zip(first, readers.map(_size_or_reason, first), strict=True))
    sizes: dict[Path, tuple[int, int]] = {}
    h, w = patch
    for row in rows:
        size, place = found[row.path], f"row {row.number}"
        if isinstance(size, str):
            if first[row.path] is row:
                problems.add(f"{place}, column path", size)
            continue
        sizes[row.path] = width, height = size
        shown = f"{row.path.name} has {width}×{height} pixels"
        if cut == "whole":
            if (height, width) != patch:
                problems.add(f"{place}, column path", f"{shown}, that of row {rows[0].number} {w}×{h}; whole images "
                             "(data.cut: whole) must be of one size")  # fmt: skip
            elif max(size) > LARGEST_WHOLE and first[row.path] is row:
                problems.add(f"{place}, column path", f"{shown}; an instance has at most {LARGEST_WHOLE} a side "
                             "(data.cut: grid cuts patches from larger images)")  # fmt: skip
        elif (width < w or height < h) and first[row.path] is row:
            problems.add(f"{place}, column path", f"{shown}, smaller than a patch (data.patch_size: {w})")
        elif cut == "points":
            # A centre up to a pixel outside is let pass: annotators click on the rim.
            for column, value, most in (("x", row.x, width), ("y", row.y, height)):
                if not -1 <= value <= most:
                    problems.add(f"{place}, column {column}", f"{value:g} is outside: {shown}, counted from 0")
    problems.stop_if_any()
    return sizes


def _size_or_reason(path: Path) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except UserError as error:
        return str(error)


def _check_pixels(file: Path, rows: Sequence[Row]) -> None:
    """`UserError` that names all images whose pixels cannot be read."""
    problems = Problems(file)
    first = {row.path: row for row in reversed(rows)}

    def reason(path: Path) -> str:
        try:
            read_image(path)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(_READERS) as readers:
        found = dict(zip(first, readers.map(reason, first), strict=True))
    for row in rows:
        if found[row.path] and first[row.path] is row:
            problems.add(f"row {row.number}, column path", found[row.path])
    problems.stop_if_any()
