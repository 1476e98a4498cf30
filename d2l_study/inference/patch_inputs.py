"""What a model of patches is to score: found, told apart, and checked as far as headers tell.

    bags = open_patch_bags(["cohort/", "slides.csv"], Cutting.of(stored, asked))

A manifest        bags as it says; without a column `bag` each image is one
A slide           a bag
An image          a bag; an image of exactly a patch is one instance
A folder          its slides; else its images, each a bag, but all images of a folder that are exactly patches are one
An array, IDX     a bag of patches

Images and slides are cut as the model's data were: tiles at a resolution, patches around the points of a manifest, a
grid, or the whole image. Images that are exactly patches can be no other way, and are taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from d2l_study.data.features.tables import TABLES
from d2l_study.data.manifest_checks import check_instances, check_resolutions, check_sizes
from d2l_study.data.manifest_columns import UNLABELLED_MANIFEST
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import Rows, read_rows
from d2l_study.data.manifest_sources import MOST_INSTANCES, rows_of_images, strided_centres
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.inference.image_colour import check_grey
from d2l_study.inference.image_cutting import AskedCut, Cutting
from d2l_study.inference.inputs import input_files, open_inputs, stop_if_any
from d2l_study.inference.patch_bags import ArrayPatches, ImagePatches, PatchBag, PatchFile, SlidePatches
from d2l_study.inference.slide_inputs import SlideInput
from d2l_study.slides import image_files
from d2l_study.slides.opening import is_slide, open_slide, slide_files

SAME_RESOLUTION = 0.05
"""Shares by which the µm per pixel of a patch that is there as such may differ from the model's: scanners of one
magnification differ by some percent."""

_READERS = 8

_IMAGES = ("PNG", "JPEG", "BMP", "TIFF")


def check_used(bags: Sequence[PatchBag], asked: AskedCut) -> None:
    """`UserError` for an option that none of the bags uses."""
    files = [file for bag in bags for file in bag.files]
    slides = any(isinstance(file, SlidePatches) for file in files)
    for name, value in (("--mpp", asked.mpp), ("--slide-mpp", asked.slide_mpp),
                        ("--no-tissue", None if asked.tissue else True)):  # fmt: skip
        if value is not None and not slides:
            raise UserError(f"{name}: nothing here is cut into tiles of a resolution")
    if asked.stride is not None and not (slides or any(isinstance(f, ImagePatches) and f.cut == "grid" for f in files)):
        raise UserError("--stride: nothing here is cut by a grid")


def open_patch_bags(names: Sequence[str | Path], cutting: Cutting) -> tuple[list[PatchBag], list[str]]:
    """The bags of every input, and notes for the user.

    `UserError` names what cannot be used, with the reason, before anything is scored. What only shows when pixels are
    decoded, or slides opened, shows when the bag is read.
    """
    bags: list[PatchBag] = []
    notes: list[str] = []
    problems: list[str] = []
    for name in names:
        try:
            path = user_path(name, "data")
            if path.is_file() and path.suffix.lower() in TABLES:
                found, said = _of_manifest(path, cutting)
                notes += said
            elif path.is_dir():
                found = _of_folder(path, cutting)
            else:
                found = [_of_file(str(name), path, cutting)]
            bags += found
        except UserError as error:
            problems.append(str(error))
    stop_if_any([*problems, *_twice(bags)])
    return bags, notes


def cut_text(bags: Sequence[PatchBag], cutting: Cutting) -> str:
    """How the images of these bags are cut, in words; empty if none is."""
    files = [file for bag in bags for file in bag.files]
    cuts = {file.cut for file in files if isinstance(file, ImagePatches)}
    said = []
    if any(isinstance(file, SlidePatches) for file in files):
        scale = "of level-0 pixels" if cutting.mpp is None else f"at {cutting.mpp:g} µm per pixel"
        tissue = f", of which {cutting.least_tissue:.0%} are tissue" if cutting.tissue else ""
        said.append(f"tiles of {cutting.side} {scale}, every {cutting.stride}{tissue}")
    words = {"points": f"{cutting.side} pixels around points", "whole": f"images of {cutting.side} as they are",
             "grid": f"a grid of {cutting.side} pixels, every {cutting.stride}"}  # fmt: skip
    return "; ".join([*said, *(text for cut, text in words.items() if cut in cuts)])


# ---- files and folders
def _of_file(name: str, path: Path, cutting: Cutting) -> PatchBag:
    if path.exists() and is_slide(path):
        return _slide_bag(SlideInput(path, None, cutting.slide_mpp), cutting)
    if path.is_file() and _content(path) in _IMAGES:
        (size,) = _sizes([path], cutting)
        return PatchBag(path.stem, (_image(path, size, cutting),))
    (entry,) = open_inputs([name], (cutting.channels, *cutting.patch))
    stem, colon, member = Path(entry.source).name.partition(":")
    return PatchBag(f"{Path(stem).stem}{colon}{member}", (ArrayPatches(entry),))


def _of_folder(path: Path, cutting: Cutting) -> list[PatchBag]:
    slides = slide_files(path)  # itself, where it holds the DICOM files of one
    if any(is_slide(file) for file in slides):
        return [_slide_bag(SlideInput(file, None, cutting.slide_mpp), cutting) for file in slides]
    images = [file for file, _ in input_files(str(path))]
    sizes = _sizes(images, cutting)
    stop_if_any([size for size in sizes if isinstance(size, str)])
    h, w = cutting.patch
    by_folder: dict[Path, list[int]] = {}
    for number, file in enumerate(images):
        by_folder.setdefault(file.parent, []).append(number)
    bags = []
    for folder, numbers in by_folder.items():
        found = [_image(images[i], sizes[i], cutting) for i in numbers]
        inner = folder.relative_to(path)
        if all(sizes[i] == (w, h) for i in numbers):
            bags.append(PatchBag(path.resolve().name if inner == Path() else inner.as_posix(), tuple(found)))
            continue
        bags += [PatchBag((inner / images[i].stem).as_posix(), (file,))
                 for i, file in zip(numbers, found, strict=True)]  # fmt: skip
    return bags


def _content(path: Path) -> str:
    with image_files.decode_errors(path), path.open("rb") as file:
        return image_files.content_of(file.read(image_files.HEAD))


def _sizes(paths: Sequence[Path], cutting: Cutting) -> list[tuple[int, int] | str]:
    """(width, height) of each image, or why it cannot be scored."""

    def size(path: Path) -> tuple[int, int] | str:
        try:
            found = image_files.image_size(path, cutting.channels)
            check_grey(path, cutting.channels)
            return found
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(size, paths))


def _slide_bag(entry: SlideInput, cutting: Cutting) -> PatchBag:
    return PatchBag(entry.name, (_slide(entry, cutting),))


def _slide(entry: SlideInput, cutting: Cutting) -> SlidePatches:
    _check_square(cutting)
    return SlidePatches(entry, cutting.tiles())


def _check_square(cutting: Cutting) -> None:
    if cutting.channels != 3 or cutting.patch[0] != cutting.patch[1]:
        raise UserError(f"slides: this model scores patches of {cutting.channels} channels and {cutting.side} pixels; "
                        "tiles of slides are square and RGB")  # fmt: skip


def _image(
    path: Path, size: tuple[int, int] | str, cutting: Cutting, mpp: float | None = None
) -> PatchFile:  # fmt: skip
    """The patches of an image that is a bag, or a part of one. size: as of `_sizes`; mpp: its own µm per pixel, where a
    table says it. `UserError` for one that cannot be read, is smaller than a patch, or is a patch of another
    resolution than the model's."""
    h, w = cutting.patch
    if isinstance(size, str):
        raise UserError(size)
    if size == (w, h):
        _check_resolution(path, mpp, cutting)
        return ImagePatches(path, _whole, 1, cutting.patch, cutting.channels, "whole")
    if cutting.mpp is not None:
        return _slide(SlideInput(path, mpp, cutting.slide_mpp), cutting)
    if size[0] < w or size[1] < h:
        raise UserError(f"{path}: {size[0]}×{size[1]} pixels (width×height); the model expects patches of "
                        f"{cutting.side}, or larger images to cut")  # fmt: skip
    return _grid(path, size, cutting)


def _whole() -> np.ndarray:
    return np.full((1, 2), math.nan)


def _grid(path: Path, size: tuple[int, int], cutting: Cutting) -> ImagePatches:
    h, w = cutting.patch
    count = ((size[0] - w) // cutting.stride + 1) * ((size[1] - h) // cutting.stride + 1)
    if count > MOST_INSTANCES:
        raise UserError(f"{path}: {count:,} patches every {cutting.stride} pixels; at most {MOST_INSTANCES:,} are "
                        "scored in an image: give a larger --stride")  # fmt: skip
    centres = partial(strided_centres, *size, patch=cutting.patch, stride=cutting.stride)
    return ImagePatches(path, centres, count, cutting.patch, cutting.channels, "grid")


def _check_resolution(path: Path, mpp: float | None, cutting: Cutting) -> None:
    """`UserError` if an image of exactly a patch, which cannot be resampled, says another resolution."""
    if cutting.mpp is None:
        return
    if mpp is None and path.suffix.lower() in (".tif", ".tiff"):  # of others none is known
        with suppress(UserError), open_slide(path) as slide:
            mpp = slide.mpp[0] if slide.mpp is not None else None
    if mpp is not None and abs(mpp / cutting.mpp - 1) > SAME_RESOLUTION:
        raise UserError(f"{path}: a patch of {mpp:g} µm per pixel; the model's are of {cutting.mpp:g} µm, and an image "
                        "of exactly a patch cannot be resampled")  # fmt: skip


# ---- manifests
def _of_manifest(file: Path, cutting: Cutting) -> tuple[list[PatchBag], list[str]]:
    file = file.absolute()
    rows = read_rows(file, file.parent, UNLABELLED_MANIFEST, "data")
    slides = np.array([is_slide(path) for path in rows.files])
    plain = [path for path, slide in zip(rows.files, slides, strict=True) if not slide]
    measured = iter(_sizes(plain, cutting))
    h, w = cutting.patch
    sizes = [(w, h) if slide else next(measured) for slide in slides]
    exact = not slides.any() and all(size == (w, h) for size in sizes)
    cut = _cut_of(cutting, "x" in rows.columns, exact)
    problems = Problems(file)
    why = f"this model was trained on {'whole images' if cut == 'whole' else 'a grid'}, so that x and y are not read"
    check_instances(rows, cut, problems, why)
    check_resolutions(rows, problems)
    if cut == "points":
        wrong = [f for f, slide in enumerate(slides) if slide]
        problems.add_values(rows.number, rows.path, wrong, lambda f: (
            rows.columns.shown["path"], f"{rows.files[f].name} is a slide; patches around points are of images that "
            "are decoded whole"))  # fmt: skip
    problems.stop_if_any()
    # Images that are read as slides are resampled, so that their size in pixels says little.
    tiled = cutting.mpp is not None and cut == "grid"
    sized = [(w, h) if tiled and not isinstance(size, str) else size for size in sizes]
    check_sizes(rows, sized, cut, cutting.patch, f"the model's: {cutting.side}")
    notes = list(rows.columns.notes)
    if "mpp" in rows.columns and cutting.mpp is None:
        notes.append(f"column {rows.columns.shown['mpp']} is not used: at which µm per pixel the model was trained is "
                     "not known (--mpp says it)")  # fmt: skip
    files: dict[str, list[PatchFile]] = {}
    for mine in rows_of_images(rows, cut):
        number = int(rows.path[mine[0]])
        entry = _of_rows(rows, mine, cut, cutting, sizes[number], bool(slides[number]))
        files.setdefault(rows.bag.text(int(mine[0])), []).append(entry)
    return [PatchBag(name, tuple(entries)) for name, entries in files.items()], notes


def _cut_of(cutting: Cutting, has_points: bool, exact: bool) -> str:
    """How the images of a manifest are cut. exact: all of them are exactly patches."""
    if cutting.mpp is not None or cutting.cut == "grid":
        return "whole" if exact else "grid"
    if has_points and not (cutting.cut == "whole" and exact):
        return "points"
    return "whole" if exact else "grid"


def _of_rows(
    rows: Rows, mine: np.ndarray, cut: str, cutting: Cutting, size: tuple[int, int] | str, slide: bool
) -> PatchFile:
    """The patches of an image of a bag, by its rows. size: as of `_sizes`."""
    number = int(rows.path[mine[0]])
    path, own = rows.files[number], float(rows.mpp[mine[0]])
    mpp = None if math.isnan(own) else own
    if slide:
        return _slide(SlideInput(path, mpp, cutting.slide_mpp), cutting)
    if cut == "points":
        xy = np.stack([rows.x[mine], rows.y[mine]], axis=1)
        return ImagePatches(path, lambda: xy, len(xy), cutting.patch, cutting.channels, "points")
    return _image(path, size, cutting, mpp)


def _twice(bags: Sequence[PatchBag]) -> Iterator[str]:
    """Scores name bags, so that no two may have the same name."""
    seen: dict[str, PatchBag] = {}
    for bag in bags:
        other = seen.setdefault(bag.name, bag)
        if other is not bag:
            yield (f"{bag.files[0].source} and {other.files[0].source} are both a bag {bag.name!r}; score them one "
                   "after the other, or list them in a manifest with a column bag")  # fmt: skip
