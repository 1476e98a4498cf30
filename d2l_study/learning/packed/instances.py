"""Instances of the pool on the device, and in the normalised units of each of R replicates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Pool
from d2l_study.learning.packed.batches import ReplicateTask
from d2l_study.learning.prediction import unit_vectors


def pool_on(pool: Pool, device: str) -> Tensor:
    """All instances of the pool on the device: (N, C, H, W) uint8 patches, or (N, D) vectors of any float type."""
    with warnings.catch_warnings():  # a memory map cannot be written to, and is not
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(np.asarray(pool.instances)).to(device)


def means_and_stds(problems: Sequence[ReplicateTask]) -> Tensor:
    """(R, 2, C or D) float32: what each replicate's input is normalised by; (R, 0) for vectors of unit length. The
    replicates are of one kind (`instance_kinds`): all of their vectors have unit length, or none."""
    if problems[0].replicate.unit_length:
        return torch.zeros(len(problems), 0)
    return torch.from_numpy(np.array([(p.replicate.mean, p.replicate.std) for p in problems], np.float32))


def normalised(instances: Tensor, norm: Tensor, dtype: torch.dtype) -> Tensor:
    """instances: (R·I, C, H, W) uint8 or (R·I, D), norm: of `means_and_stds` -> the same shape in normalised units."""
    if instances.dim() == 2:
        x = instances.to(torch.float32)
        if norm.dim() == 2:
            return unit_vectors(x).to(dtype)
        mean, std = norm[:, :, None].unbind(1)
        return ((x.unflatten(0, (len(norm), -1)) - mean) / std).flatten(0, 1).to(dtype)
    mean, std = norm[:, :, None, :, None, None].unbind(1)
    x = instances.unflatten(0, (len(norm), -1)).to(torch.float32) / 255
    return ((x - mean) / std).flatten(0, 1).to(dtype)


def normalised_rows(vectors: Tensor, norm: Tensor, replicate: Tensor) -> Tensor:
    """vectors: (n, D) of any float type, norm: of `means_and_stds`, replicate: (n,) of each -> (n, D) float32 in
    normalised units."""
    x = vectors.to(torch.float32)
    if norm.dim() == 2:
        return unit_vectors(x)
    mean, std = norm.unbind(1)
    return (x - mean[replicate]) / std[replicate]
