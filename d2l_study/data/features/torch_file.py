"""Features in `.pt` files, as CLAM and slideflow write them: a tensor, or a dictionary of tensors; nothing else of a
pickle is read."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.damaged_files import reading_errors
from d2l_study.data.features.feature_file import (
    CENTRE,
    LEVEL_0,
    Tiles,
    places_of,
    shape_of,
)
from d2l_study.data.features.named_arrays import FEATURES, PLACES, NamedArraysFile, first_known, name_of_labels
from d2l_study.errors import UserError, first_line, listed

_CONVERSION = (
    'python -c "import sys, torch; p = sys.argv[1]; torch.save(torch.as_tensor(torch.load(p, weights_only=False)), p)" '
)


@dataclass(frozen=True)
class TorchFile(NamedArraysFile):
    """features: the key of the vectors in a dictionary; empty where the file is one tensor."""

    features: str = ""

    def pieces(self) -> Iterator[np.ndarray]:
        with reading_errors(self.path):
            tensor = _part(_load(self.path), self.features)
            tensor = tensor[0] if tensor.ndim == 3 else tensor
            for first in range(0, self.count, self.rows()):
                yield _array(tensor[first : first + self.rows()])

    def load(self, name: str) -> np.ndarray:
        return _array(_load(self.path)[name])


def describe(path: Path, stem: str, truth: str | None = None) -> TorchFile:
    """What a file of torch holds. stem: its name without ending. `UserError` for a pickle of anything but tensors."""
    import torch

    found = _load(path)
    index = path.with_name(f"{stem}.index.npz")
    beside = index if index.is_file() else None
    tiles = Tiles(LEVEL_0, CENTRE) if beside is not None else Tiles()
    if isinstance(found, torch.Tensor):
        count, width = _shape(path, "the tensor", found)
        return TorchFile(path, count, width, _kept(found), tiles=tiles, has_places=beside is not None,
                         places_file=beside)  # fmt: skip
    names = _tensors(path, found)
    name, coords = first_known(names, FEATURES), first_known(names, PLACES)
    if not name:
        said = listed(key if key in names else f"{key} ({type(found[key]).__name__})" for key in found) or "nothing"
        raise UserError(f"{path}: a dictionary without a tensor {' or '.join(FEATURES)} (found: {said})")
    count, width = _shape(path, name, found[name])
    labels = name_of_labels(path, names, truth, "tensor")
    if labels:
        _check_plain(path, labels, found[labels])
    if coords:
        _check_plain(path, coords, found[coords])
        places_of(path, coords, _array(found[coords]), count)
    return TorchFile(path, count, width, _kept(found[name]), tiles=tiles, has_places=bool(coords or beside),
                     has_truth=bool(labels), places_file=None if coords else beside, features=name, coords=coords,
                     labels=labels)  # fmt: skip


def load_values(path: Path, names: Sequence[str]) -> np.ndarray:
    """The one tensor of a file, or the one that has one of the names."""
    import torch

    found = _load(path)
    if isinstance(found, torch.Tensor):
        _check_plain(path, "it", found)
        return _array(found)
    there = _tensors(path, found)
    chosen = next((name for name in names if name in there), there[0] if len(there) == 1 else None)
    if chosen is None:
        raise UserError(f"{path}: no tensor {' or '.join(names)} (found: {listed(there) or 'nothing'})")
    _check_plain(path, chosen, found[chosen])
    return _array(found[chosen])


def _tensors(path: Path, found: Any) -> list[str]:
    import torch

    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise UserError(f"{path}: holds {type(found).__name__}; expected a tensor, or a dictionary of tensors")
    return [key for key, value in found.items() if isinstance(value, torch.Tensor)]


def _load(path: Path) -> Any:
    """What the file holds, mapped into memory where it can be; nothing but tensors in plain containers is unpickled."""
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file of before torch 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "an array of numpy" if "numpy" in str(error) else "Python objects"
        raise UserError(
            f"{path}: {what} as a pickle, not a tensor (so TRIDENT writes .pt): a pickle may run code, and is not read."
            f" Where you trust the file, this makes a tensor of it: {_CONVERSION}{path.name}; or let TRIDENT write .h5"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # what torch, zipfile and pickle raise for a damaged file
        raise UserError(f"{path}: cannot be read as a file of torch (cut short?): {first_line(error)[:200]}"
                        ) from None  # fmt: skip


def _part(found: Any, key: str) -> Any:
    return found[key] if key else found


def _check_plain(path: Path, name: str, tensor: Any) -> None:
    """`UserError` for a tensor that is no plain array of numbers that numpy has."""
    import torch

    kind = (
        "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else "without values (meta)"
        if tensor.is_meta else "sparse" if tensor.layout is not torch.strided else ""
    )  # fmt: skip
    if kind:
        raise UserError(f"{path}: {name} is {kind}; expected a plain (dense) tensor")
    try:
        _kept(tensor)
    except TypeError:  # float8 and the like
        kind = str(tensor.dtype).removeprefix("torch.")
        raise UserError(f"{path}: {name} is of type {kind}; expected float16, float32 or float64") from None


def _shape(path: Path, name: str, tensor: Any) -> tuple[int, int]:
    _check_plain(path, name, tensor)
    return shape_of(path, name, tuple(tensor.shape), _kept(tensor))


def _kept(tensor: Any) -> np.dtype:
    """The type that numpy has for a tensor's; bfloat16, which it has not, is kept as float32, which has its values."""
    import torch

    return np.dtype(np.float32) if tensor.dtype == torch.bfloat16 else torch.empty(0, dtype=tensor.dtype).numpy().dtype


def _array(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.detach().resolve_neg()
    found = tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy()
    return np.ascontiguousarray(found)
