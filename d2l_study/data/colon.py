"""Colon (CRCHistoPhenotypes): one image is one bag, an instance is the 27×27 patch around an annotated nucleus.

Source: Sirinukunwattana et al., IEEE Transactions on Medical Imaging 2016; bags as in Ilse, Tomczak, Welling, ICML
2018: a bag is positive if it holds an epithelial nucleus. Patients are not identified in the archive, so folds may
share some.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from d2l_study.data.collection import PatchCollection
from d2l_study.data.cutting import BagSource, ImageCut, cached_collection
from d2l_study.data.given_bags import PatchBags
from d2l_study.data.tissue_folders import entries_by_lower_name, find_folder
from d2l_study.environment import data_root
from d2l_study.errors import UserError, listed
from d2l_study.options import option

ARCHIVE = "CRCHistoPhenotypes_2016_04_28"
CLASSES = ("epithelial", "fibroblast", "inflammatory", "others")
POSITIVE = "epithelial"
IMAGES, NUCLEI = 100, 22_444
"""Images of the whole archive, and nuclei with a class, by its Readme."""
PATCH = (27, 27)
WHERE_FROM = "https://warwick.ac.uk/fac/cross_fac/tia/data/crchistolabelednucleihe"


@dataclass(frozen=True)
class ColonBags(PatchBags):
    """The `data` section of a space for the colon images."""

    dataset: str = option("colon", "the data set", choices=("colon",))

    INSTANCE_CLASSES: ClassVar[tuple[str, str]] = ("epithelial", "other nuclei")

    def collect(self) -> PatchCollection:
        return load(data_root(self.root))


@dataclass(frozen=True)
class ColonImage:
    """The files of one image: the picture, and class -> nuclei."""

    name: str
    image: Path
    nuclei: dict[str, Path]


def image_folder(root: Path) -> Path | None:
    """The folder of the folders img1, img2, … below one that holds the archive, or is it; None if there is none."""
    return find_folder(root, (f"{ARCHIVE}/Classification", "Classification", "."), _holds_images)


def find_images(root: Path, problems: list[str] | None = None) -> list[ColonImage]:
    """The images below a folder that holds the archive, or is it, or its `Classification`; sorted by number.

    `UserError` if there is no such folder, or an image lacks a file; with `problems` that is noted there and the image
    left out.
    """
    folder = image_folder(root)
    if folder is None:
        raise UserError(
            f"data.root: {root} holds no colon images (looked for {ARCHIVE}/Classification/img1/img1.bmp and the "
            f"like); they are to be had from {WHERE_FROM}"
        )
    found = []
    for sub in sorted((d for d in folder.iterdir() if _is_image_folder(d)), key=lambda d: int(d.name[3:])):
        name = sub.name.lower()
        files = entries_by_lower_name(sub)
        image = files.get(f"{name}.bmp")
        nuclei = {kind: files[f"{name}_{kind}.mat"] for kind in CLASSES if f"{name}_{kind}.mat" in files}
        missing = [] if image else [f"{name}.bmp"]
        missing += [f"{name}_{kind}.mat" for kind in CLASSES if kind not in nuclei]
        if missing or image is None:
            problem = f"{sub}: no {listed(missing)}"
            if problems is None:
                raise UserError(problem)
            problems.append(problem)
            continue
        found.append(ColonImage(name, image, nuclei))
    return found


def _is_image_folder(path: Path) -> bool:
    return path.name.lower().startswith("img") and path.name[3:].isdecimal() and path.is_dir()


def _holds_images(folder: Path) -> bool:
    return any(_is_image_folder(path) for path in folder.iterdir())


def read_nuclei(path: Path) -> np.ndarray:
    """(k, 2) int64 centre pixels (column, row), 0-based, of one `.mat` file; `UserError` with file and reason.

    The archive's coordinates are 1-based, fractional, of varying type, and at times below 1: round(c) − 1 may be −1.
    """
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # scipy raises its own, ValueError, TypeError, zlib.error, NotImplementedError …
        raise UserError(f"{path}: cannot be read as a MATLAB file: {str(error) or type(error).__name__}") from None
    keys = [key for key in content if not key.startswith("__")]
    if "detection" not in keys:
        raise UserError(f"{path}: no array 'detection' (found: {listed(keys) or 'none'})")
    values = content["detection"]
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise UserError(f"{path}: 'detection' is of type {getattr(values, 'dtype', type(values))}; expected numbers")
    if values.ndim != 2 or values.shape[1] != 2:
        if values.size == 0:  # an empty class, however it was written
            return np.zeros((0, 2), np.int64)
        raise UserError(
            f"{path}: 'detection' has the shape {values.shape}; expected (k, 2): column and row of each nucleus"
        )
    centres = values.astype(np.float64)
    if not np.isfinite(centres).all():
        raise UserError(f"{path}: nucleus {int(np.argmin(np.isfinite(centres).all(axis=1)))} has no finite coordinates")
    if (centres <= 0).any():
        x, y = centres[np.argmax((centres <= 0).any(axis=1))]
        raise UserError(f"{path}: a nucleus at column {x:g}, row {y:g} is outside the image (coordinates count from 1)")
    return np.floor(centres + 0.5).astype(np.int64) - 1


def describe(images: Sequence[ColonImage]) -> list[BagSource]:
    """A bag per image, its nuclei in the order of `CLASSES`; an image without nuclei is a bag without instances."""
    sources = []
    for image in images:
        centres = {kind: read_nuclei(image.nuclei[kind]) for kind in CLASSES}
        xy = np.concatenate([centres[kind] for kind in CLASSES]).astype(np.float64)
        label = np.concatenate([np.full(len(centres[kind]), kind == POSITIVE, np.int8) for kind in CLASSES])
        positive = int(label.max(initial=0))
        sources.append(BagSource(image.name, positive, image.name, (ImageCut(image.image, xy, label),)))
    return sources


def load(root: Path, name: str = "colon", before: Callable[[], object] = lambda: None) -> PatchCollection:
    """All colon images below a folder, cut once per machine; name: that of the data set; before: called before they
    are cut."""
    images = find_images(root)
    files = [path for image in images for path in (image.image, *image.nuclei.values())]

    def sources(_: Mapping[Path, bytes]) -> list[BagSource]:
        before()
        return describe(images)

    return cached_collection(name, files, {"classes": list(CLASSES)}, sources, PATCH)
