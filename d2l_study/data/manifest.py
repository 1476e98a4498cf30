"""One's own images, listed in a manifest: `data: {dataset: manifest, path: slides.csv}` (docs/own_data.md).

A row names an image (`path`), the bag that it belongs to (`bag`) and the bag's label (`label`). How instances come out
of it is said by `cut`: patches around the points (x, y) of its rows, patches of a grid over it, or the whole image.
The manifest and all that it names are checked before anything is trained, and what is wrong is said with row and
column, all of it at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from d2l_study.data.annotation_keys import (
    ANNOTATION_KEYS,
    AnnotationKeys,
    coverage_option,
    negative_classes_option,
    positive_classes_option,
)
from d2l_study.data.collection import PatchCollection
from d2l_study.data.cutting import BagSource, cached_collection
from d2l_study.data.given_bags import PatchBags
from d2l_study.data.manifest_checks import (
    check_bags,
    check_content,
    check_pixels,
    check_sizes,
    reason_of,
    with_usable_split,
)
from d2l_study.data.manifest_columns import MANIFEST, SLIDE_MANIFEST, ColumnNames
from d2l_study.data.manifest_rows import Rows, read_rows
from d2l_study.data.manifest_sources import sources
from d2l_study.data.purpose import TRAINING, Purpose
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.nearest_path import missing_folder_text
from d2l_study.options import option
from d2l_study.slides.image_files import image_size, read_image
from d2l_study.slides.opening import is_slide
from d2l_study.slides.tiles import LEAST_TISSUE

CUTS = ("points", "grid", "whole")

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
    mpp: float | None = option(
        None, "resolution of the patches in µm per pixel: images are slides, which are read tile by tile and resampled "
        "(cut: grid); null: pixels as they are", least=0.01, most=100, neutral=None,
    )  # fmt: skip
    tissue: bool = option(False, "only patches of tissue, found on each slide's thumbnail (mpp)", neutral=False)
    least_tissue: float = option(
        LEAST_TISSUE, "share of a patch that is tissue at least (tissue)", least=0, most=1, neutral=LEAST_TISSUE
    )
    coverage: float = coverage_option("column annotation; mpp")
    positive_classes: str | None = positive_classes_option("mpp")
    negative_classes: str | None = negative_classes_option("mpp")
    root: str | None = option(
        None, "folder that relative paths of the manifest begin at; null: the manifest's own", scientific=False
    )

    SLIDE_KEYS: ClassVar[tuple[str, ...]] = ("mpp", "tissue", "least_tissue", *ANNOTATION_KEYS)
    """Keys of patches that are cut from slides at a resolution."""
    POOL_KEYS: ClassVar[tuple[str, ...]] = ("dataset", "root", "path", "cut", "patch_size", "stride", *SLIDE_KEYS)
    PATH_KEYS: ClassVar[tuple[str, ...]] = ("root", "path")

    def idle_keys(self) -> dict[str, str]:
        idle = {"whole": ("patch_size", "stride"), "points": ("stride",)}.get(self.cut or "", ())
        found = dict.fromkeys(idle, f"cut {self.cut}")
        if self.mpp is None:
            found |= dict.fromkeys(self.SLIDE_KEYS[1:], "mpp null")
        elif not self.tissue:
            found["least_tissue"] = "tissue false"
        return found

    def acting_values(self) -> dict[str, Any]:
        return {"stride": self.stride or self.patch_size}

    def collect(self) -> PatchCollection:
        """All bags of the manifest; `UserError` says what is wrong with it, or with an image that it names."""
        return self.collect_for(TRAINING)

    def collect_for(self, purpose: Purpose) -> PatchCollection:
        if self.path is None:
            raise UserError("data.path: missing; name the manifest, a .csv or .parquet file")
        file = user_path(self.path, "data.path").absolute()
        base = file.parent if self.root is None else user_path(self.root, "data.root").absolute()
        if not base.is_dir():
            raise UserError(missing_folder_text("data.root", self.root, base))
        if self.mpp is not None:
            return self._collect_slides(self.mpp, file, base, purpose)
        if set_in_vain := [key for key in self.SLIDE_KEYS if getattr(self, key) != self._default(key)]:
            key = set_in_vain[0]
            raise UserError(f"data.{key}: {getattr(self, key)} does nothing without data.mpp, the resolution in µm per "
                            "pixel of patches of slides")  # fmt: skip
        rows, changed = _rows(file, base, MANIFEST, purpose)
        cut = self.cut or ("points" if "x" in rows.columns else "whole")
        check_bags(rows, cut, both_classes=purpose.both_classes)
        side, step = self.patch_size, self.stride or self.patch_size
        patch = (side, side)
        if cut == "whole":
            sizes = (_size_or_reason(path) for path in rows.files)  # what cannot be read is told with all the others
            width, height = next((size for size in sizes if not isinstance(size, str)), (1, 1))
            patch = (height, width)
        settings = {"cut": cut, "stride": step if cut == "grid" else None} | changed
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
        return _of_purpose(found, rows, purpose)

    def _collect_slides(self, mpp: float, file: Path, base: Path, purpose: Purpose) -> PatchCollection:
        from d2l_study.data.manifest_slides import SlideKeys, content_files, inverted_masks, slide_sources

        if self.cut != "grid":
            raise UserError(f"data.mpp: {mpp:g}: patches of slides are those of a grid; expected data.cut: grid, not "
                            f"{self.cut or 'null'}")  # fmt: skip
        rows, changed = _rows(file, base, SLIDE_MANIFEST, purpose)
        check_bags(rows, self.cut, both_classes=purpose.both_classes)
        annotations = AnnotationKeys.of(self.coverage, self.positive_classes, self.negative_classes)
        keys = SlideKeys(
            mpp, self.patch_size, self.stride or self.patch_size, self.tissue, self.least_tissue, annotations
        )

        def describe(digests: Mapping[Path, bytes]) -> list[BagSource]:
            check_content(rows, "grid", digests)
            return slide_sources(rows, keys)

        files = [file, *content_files(rows)]
        settings = keys.settings() | inverted_masks(rows) | changed
        found = cached_collection("manifest", files, settings, describe, (self.patch_size, self.patch_size))
        return _of_purpose(found, rows, purpose)

    @classmethod
    def _default(cls, key: str) -> Any:
        return next(field.default for field in dataclasses.fields(cls) if field.name == key)


def _rows(file: Path, base: Path, names: ColumnNames, purpose: Purpose) -> tuple[Rows, dict[str, str]]:
    """The rows, and by which settings their patches are kept apart from those of the same file read to train on."""
    rows = read_rows(file, base, names.for_purpose(purpose))
    if purpose.given_split:
        return rows, {}
    kept = with_usable_split(rows)
    return kept, {} if kept is rows else {"split": "left alone"}


def _of_purpose(found: PatchCollection, rows: Rows, purpose: Purpose) -> PatchCollection:
    found = dataclasses.replace(found, notes=rows.columns.notes)
    return found if purpose.given_split else dataclasses.replace(found, fold=None, part=None)


def _sizes(rows: Rows, cut: str, patch: tuple[int, int]) -> list[tuple[int, int]]:
    """(width, height) of every file; `UserError` as of `check_sizes`."""
    with ThreadPoolExecutor(_READERS) as readers:
        found = list(readers.map(_size_or_reason, rows.files))
    return check_sizes(rows, found, cut, patch, f"data.patch_size: {patch[1]}")


def _size_or_reason(path: Path) -> tuple[int, int] | str:
    try:
        return image_size(path)
    except UserError as error:
        hint = "; slides are read with data.mpp, the resolution of patches" if is_slide(path) else ""
        return f"{error}{hint}"
