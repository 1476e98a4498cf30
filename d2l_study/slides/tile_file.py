"""Files of tile coordinates in HDF5, as TRIDENT lays them out: `OUT/patches/NAME_patches.h5`.

    coords      (N, 2) int64, upper left corners (x, y) in level-0 pixels
    attributes  patch_size, patch_size_level0, level0_magnification, target_magnification, overlap, name, savetodir,
                level0_width, level0_height; and of our own level0_mpp, target_mpp, patch_size_level0_xy, d2l_study

Magnifications are 10 / mpp, as TRIDENT takes them, and exact, so that it reads the same tiles of a slide of 0.2527 µm.
Files of TRIDENT itself (Zhang et al., arXiv:2502.06750) and of CLAM (Lu et al., Nature Biomedical Engineering 2021) are
read as well.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.damaged_files import open_hdf5, reading_errors
from d2l_study.errors import UserError, listed
from d2l_study.slides.tile_attributes import level0_side, number, text
from d2l_study.slides.tiles import SlideTiles

FOLDER = "patches"
ENDING = "_patches.h5"
ABOUT = "d2l_study"
"""The attribute that says, as JSON, how the tiles were made."""


def tile_path(out: Path, name: str) -> Path:
    """Where the tiles of a slide of that name are, in a folder."""
    return out / FOLDER / f"{name}{ENDING}"


def magnification(mpp: float) -> float:
    """The objective that a resolution in µm per pixel is said to be of: 10 / mpp, 20 for 0.5 µm. Whole ones are int."""
    found = 10 / mpp
    return round(found) if abs(found - round(found)) < 1e-6 else found


def write_tiles(out: Path, tiles: SlideTiles, about: Mapping[str, Any]) -> Path:
    """Write the tiles of a slide below a folder; returns the file, which appears whole or not at all.

    tiles: of a slide whose resolution is known; about: plain values on how they were made, which `read_about` gives
    back.
    """
    import h5py

    assert tiles.mpp is not None and tiles.slide_mpp is not None
    path = tile_path(out, tiles.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    attributes = {
        "patch_size": tiles.size, "patch_size_level0": round(sum(tiles.side) / 2),
        "level0_magnification": magnification(sum(tiles.slide_mpp) / 2),
        "target_magnification": magnification(tiles.mpp), "overlap": tiles.overlap, "name": tiles.name,
        "savetodir": str(out), "level0_width": tiles.width, "level0_height": tiles.height,
        "level0_mpp": np.array(tiles.slide_mpp), "target_mpp": tiles.mpp, "patch_size_level0_xy": np.array(tiles.side),
        ABOUT: json.dumps(about, sort_keys=True),
    }  # fmt: skip
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        coords = file.create_dataset("coords", data=np.asarray(tiles.xy, np.int64).reshape(-1, 2), maxshape=(None, 2))
        coords.attrs.update(attributes)
    return path


def read_tiles(path: Path) -> SlideTiles:
    """The tiles of a file that `write_tiles`, TRIDENT or CLAM wrote. `UserError` if it is none, or damaged."""
    with reading_errors(path, "as tiles in HDF5"), open_hdf5(path) as file:
        if "coords" not in file:
            raise UserError(f"{path}: no dataset coords (found: {listed(file) or 'nothing'})")
        coords = file["coords"]
        xy, given = coords[()], dict(coords.attrs)
    if xy.size == 0:
        xy = np.empty((0, 2), np.int64)
    if xy.ndim != 2 or xy.shape[1] != 2 or xy.dtype.kind not in "iuf":
        raise UserError(f"{path}: coords has the shape {xy.shape} and type {xy.dtype}; expected (N, 2) whole numbers")
    if not np.isfinite(xy).all():
        raise UserError(f"{path}: coords holds NaN or infinity")
    size = number(given, "patch_size")
    side = level0_side(given)
    if math.isnan(size) or math.isnan(side[0]):
        raise UserError(
            f"{path}: does not say how large its tiles are; expected the attributes patch_size and patch_size_level0 "
            "(TRIDENT), or patch_level and downsample (CLAM)"
        )
    own = np.ravel(given.get("level0_mpp", ()))
    mpp = number(given, "target_mpp")
    width, height, overlap = (number(given, key) for key in ("level0_width", "level0_height", "overlap"))
    return SlideTiles(
        text(given.get("name", path.name.removesuffix(ENDING).removesuffix(".h5"))), np.rint(xy).astype(np.int64),
        int(size), side, 0 if math.isnan(overlap) else int(overlap), None if math.isnan(mpp) else mpp,
        (float(own[0]), float(own[1])) if len(own) == 2 else None, 0 if math.isnan(width) else int(width),
        0 if math.isnan(height) else int(height),
    )  # fmt: skip


def read_about(path: Path) -> dict[str, Any]:
    """How the tiles of a file were made, as `write_tiles` was told; empty for files of other tools."""
    with reading_errors(path, "as tiles in HDF5"), open_hdf5(path) as file:
        said = text(file["coords"].attrs.get(ABOUT, "{}"))
        return dict(json.loads(said))
