"""Files of features told apart by what they hold, whatever their names end in."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from d2l_study.damaged_files import open_hdf5, reading_errors
from d2l_study.data.features import hdf5, numpy_files, torch_file
from d2l_study.data.features.feature_file import FeatureFile, places_of
from d2l_study.data.features.named_arrays import PLACES
from d2l_study.errors import UserError, listed

ENDINGS = (".h5", ".hdf5", ".pt", ".pth", ".npy", ".npz")
"""How names of feature files end; what is looked for in folders."""

_OTHERS = {
    b"\x1f\x8b": "compressed (gzip); unpack it",
    b"II*\x00": "a TIFF image or slide; extract features first",
    b"MM\x00*": "a TIFF image or slide; extract features first",
    b"\x89PNG": "a PNG image; extract features first",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself; fetch it (git lfs pull)",
}


def stem_of(name: str) -> str:
    """A file's name without the ending of a feature file; other dots stay (TCGA's slides have some)."""
    lower = name.lower()
    return next((name[: -len(ending)] for ending in ENDINGS if lower.endswith(ending)), name)


def open_features(path: Path, truth: str | None = None) -> FeatureFile:
    """The vectors of one slide, described. truth: the data set in the file that labels each instance, where the user
    names one; None: found by itself. `UserError` says what the file is, if it is none."""
    kind = kind_of(path)
    if kind == "hdf5":
        return hdf5.describe(path, truth)
    if kind == "npy":
        return numpy_files.describe_npy(path)
    if kind == "npz":
        return numpy_files.describe_npz(path, truth)
    return torch_file.describe(path, stem_of(path.name), truth)


def places(file: FeatureFile) -> np.ndarray:
    """(N, 2) float64 places of a file's tiles, wherever they stand; NaN where there are none."""
    if file.places_file is None:
        return file.places()
    return places_of(file.places_file, "it", load_values(file.places_file, (*PLACES, "arr_0")), file.count)


def load_values(path: Path, names: Sequence[str]) -> np.ndarray:
    """The one array of a small file, or the one that has one of the names, whatever its format. `UserError` if there is
    none."""
    kind = kind_of(path)
    if kind == "npy":
        return numpy_files.load_array(path)
    if kind == "npz":
        return numpy_files.load_array(path, _chosen(path, numpy_files.member_names(path), names))
    if kind == "hdf5":
        with reading_errors(path, "as HDF5"), open_hdf5(path) as file:
            return np.asarray(file[_chosen(path, list(file), names)][()])
    return torch_file.load_values(path, names)


def _chosen(path: Path, found: Sequence[str], names: Sequence[str]) -> str:
    chosen = next((name for name in names if name in found), found[0] if len(found) == 1 else None)
    if chosen is None:
        raise UserError(f"{path}: no array {' or '.join(names)} (found: {listed(found) or 'nothing'})")
    return chosen


def kind_of(path: Path) -> str:
    """`hdf5`, `npy`, `npz` or `torch`; `UserError` for what is none of them."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: {'a folder' if path.is_dir() else 'a pipe or a device'}, not a file of features")
    with reading_errors(path), path.open("rb") as file:
        begin = file.read(32)
    if not begin:
        raise UserError(f"{path}: an empty file of 0 bytes")
    if begin.startswith(hdf5.MAGIC):
        return "hdf5"
    if begin.startswith(numpy_files.MAGIC):
        return "npy"
    if begin.startswith(b"PK\x03\x04"):
        with reading_errors(path, "as a file of torch or numpy (cut short?)"), zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        return "torch" if any(name.endswith("data.pkl") for name in names) else "npz"
    if begin[:1] == b"\x80" and begin[1:2] in b"\x02\x03\x04\x05":  # a pickle, as torch wrote before 1.6
        return "torch"
    found = next((text for magic, text in _OTHERS.items() if begin.startswith(magic)), None)
    found = found or f"no file of features: neither HDF5, nor torch, nor numpy (it begins with {begin[:8]!r})"
    raise UserError(f"{path}: this is {found}")
