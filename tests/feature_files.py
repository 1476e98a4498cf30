"""Writes feature files as the tools of the field write them, so that tests read real ones.

Each function writes one slide and returns its path. The layouts are those of the tools' documentation and code (see
docs/own_data.md); none of their code is used.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import torch


@dataclasses.dataclass(frozen=True)
class Slide:
    """What a file holds: vectors (N, D), coords (N, 2), truth (N,) 0/1."""

    name: str
    vectors: np.ndarray
    coords: np.ndarray
    truth: np.ndarray


def make_slide(
    name: str, count: int, width: int = 12, dtype=np.float32, positive: bool = False, seed: int = 0
) -> Slide:
    """Random vectors on a grid of tiles of 256 pixels; of a positive slide every third one is shifted."""
    rng = np.random.default_rng([seed, *name.encode()])
    truth = (np.arange(count) % 3 == 0) & positive
    vectors = rng.normal(0.5, 2.0, (count, width)) + 3.0 * truth[:, None]
    coords = np.stack([np.arange(count) % 7, np.arange(count) // 7], axis=1) * 256 + [1024, 512]
    return Slide(name, vectors.astype(dtype), coords.astype(np.int64), truth.astype(np.int8))


def _resizable(file: h5py.File, name: str, values: np.ndarray) -> h5py.Dataset:
    """A dataset in chunks of one row, as CLAM and TRIDENT make them to append batches."""
    chunk = (1, *values.shape[1:]) if values.ndim > 1 else (1,)
    made = file.create_dataset(name, values.shape, values.dtype, chunks=chunk, maxshape=(None, *values.shape[1:]))
    if len(values):
        made[:] = values
    return made


def trident(folder: Path, slide: Slide, encoder: str = "uni_v1", magnification: int = 20, level0: int = 40) -> Path:
    """`20x_256px_0px_overlap/features_uni_v1/NAME.h5`."""
    path = folder / f"{slide.name}.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        features = _resizable(file, "features", slide.vectors)
        features.attrs.update({"name": slide.name, "savetodir": str(folder), "encoder": encoder})
        coords = _resizable(file, "coords", slide.coords)
        coords.attrs.update({
            "patch_size": 256, "patch_size_level0": 256 * level0 // magnification, "level0_magnification": level0,
            "target_magnification": magnification, "overlap": 0, "name": slide.name, "savetodir": str(folder),
            "level0_width": 40000, "level0_height": 30000,
        })  # fmt: skip
    return path


def trident_pt(folder: Path, slide: Slide) -> Path:
    """TRIDENT's `.pt`: a pickled numpy array."""
    path = folder / f"{slide.name}.pt"
    torch.save(slide.vectors, path)
    return path


def clam_h5(folder: Path, slide: Slide) -> Path:
    """`h5_files/NAME.h5`: no attributes."""
    path = folder / f"{slide.name}.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        _resizable(file, "features", slide.vectors.astype(np.float32))
        _resizable(file, "coords", slide.coords.astype(np.int32))
    return path


def clam_pt(folder: Path, slide: Slide) -> Path:
    """`pt_files/NAME.pt`: a tensor."""
    path = folder / f"{slide.name}.pt"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(torch.from_numpy(slide.vectors), path)
    return path


def clam_patches(folder: Path, slide: Slide) -> Path:
    """`patches/NAME.h5`: coordinates, before features are extracted."""
    path = folder / f"{slide.name}.h5"
    with h5py.File(path, "w") as file:
        coords = _resizable(file, "coords", slide.coords)
        coords.attrs.update({
            "patch_size": 256, "patch_level": 0, "downsample": (1.0, 1.0), "downsampled_level_dim": (40000, 30000),
            "level_dim": (40000, 30000), "name": slide.name, "save_path": str(folder),
        })  # fmt: skip
    return path


def stamp(folder: Path, slide: Slide, feat_type: str = "tile") -> Path:
    """`feats` in float16, places in µm, attributes of the file."""
    path = folder / f"{slide.name}.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["coords"] = (slide.coords * 0.5).astype(np.float32)
        file["feats"] = slide.vectors.astype(np.float16)
        file.attrs.update({
            "stamp_version": "2.3.0", "extractor": "uni2", "unit": "um", "tile_size_um": 128.0, "tile_size_px": 224,
            "code_hash": "0123abcd", "feat_type": feat_type,
        })  # fmt: skip
    return path


def nnmil(folder: Path, slide: Slide) -> Path:
    """`features` and `coords`, one block each, here as (1, N, D)."""
    path = folder / f"{slide.name}.h5"
    folder.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["features"] = slide.vectors[None]
        file["coords"] = slide.coords
    return path


def slideflow(folder: Path, slide: Slide) -> Path:
    """`NAME.pt` and `NAME.index.npz`."""
    path = clam_pt(folder, slide)
    np.savez(folder / f"{slide.name}.index", slide.coords)
    return path


def torchmil(folder: Path, slide: Slide, label: int) -> Path:
    """Parallel folders features, labels, patch_labels, coords."""
    for part, values in (
        ("features", slide.vectors), ("labels", np.array(label)), ("patch_labels", slide.truth),
        ("coords", slide.coords),
    ):  # fmt: skip
        (folder / part).mkdir(parents=True, exist_ok=True)
        np.save(folder / part / f"{slide.name}.npy", values)
    return folder / "features" / f"{slide.name}.npy"


def npy(folder: Path, slide: Slide) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{slide.name}.npy", slide.vectors)
    return folder / f"{slide.name}.npy"


def npz(folder: Path, slide: Slide) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / f"{slide.name}.npz", features=slide.vectors, coords=slide.coords, patch_labels=slide.truth)
    return folder / f"{slide.name}.npz"


def dictionary_pt(folder: Path, slide: Slide) -> Path:
    """A dictionary of tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slide.name}.pt"
    torch.save({"features": torch.from_numpy(slide.vectors), "coords": torch.from_numpy(slide.coords)}, path)
    return path


def whole_set(path: Path, slides: list[Slide], labels: list[int], **more: np.ndarray) -> Path:
    """One file for a data set; HDF5 or `.npz` by its name."""
    arrays = {
        "features": np.concatenate([slide.vectors for slide in slides]),
        "bag_index": np.repeat(np.arange(len(slides)), [len(slide.vectors) for slide in slides]),
        "bag_label": np.array(labels, np.int8), "instance_label": np.concatenate([slide.truth for slide in slides]),
        **more,
    }  # fmt: skip
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return path
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def cohort(count: int = 10, sizes: tuple[int, ...] = (5, 9, 30, 1), **more) -> list[tuple[Slide, int]]:
    """Slides s0 … with their labels, of the two classes in turn."""
    return [
        (make_slide(f"s{i}", sizes[i % len(sizes)], positive=bool(i % 2), **more), i % 2) for i in range(count)
    ]  # fmt: skip


def table(path: Path, slides: list[tuple[Slide, int]], header: str = "slide_id,label") -> Path:
    """A CSV of slides and labels."""
    rows = [f"{slide.name},{label}" for slide, label in slides]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path
