"""Predictions of a bag classifier: each distinct instance goes through the extractor once, then bags are pooled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.learning import metrics
from d2l_study.models import MilModel, Terms
from d2l_study.models.extractors import Params

CHUNK = 500
"""Instances per extractor call in evaluation: large enough for the arithmetic, small enough for the cache."""

_LARGE = 64 * 64
"""Pixels of a patch above which fewer go through at a time: maps of large patches need gigabytes."""


def chunk_size(shape: Sequence[int], most: int | None = None) -> int:
    """Instances per extractor call in evaluation. shape: of an instance, (C, H, W) or (D,); most: of small ones, by
    default `CHUNK`."""
    most = CHUNK if most is None else most
    return most if len(shape) == 1 else max(1, min(most, most * _LARGE // (shape[1] * shape[2])))


@dataclass(frozen=True)
class Compute:
    """Where and how to compute; in no configuration's identity.

    packed: whether a configuration's replicates are trained with stacked parameters, in lockstep, rather than by turns;
    None: if `pack` is above 1, and without `pack` on a GPU, and on a CPU vectors in small bags (`packing`). pack: most
    replicates in one stack, 1 for taking turns; None: as many as suit the device. halvings: how often that number is
    halved, since there was no memory for it. formulation: of the stacked network,
    `grouped` or `matmul` (None: the faster one); graphs: CUDA graphs, where there is CUDA; compiled: the stacked step
    by `torch.compile` (None: on a GPU).
    """

    device: str = "cpu"
    precision: str = "float32"
    packed: bool | None = None
    pack: int | None = None
    halvings: int = 0
    formulation: str | None = None
    graphs: bool = True
    compiled: bool | None = None

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision: {self.precision!r} is not allowed; expected float32 or bfloat16")
        if self.pack is not None and self.pack < 1:
            raise ValueError(f"pack: {self.pack!r} is not allowed; expected a whole number ≥ 1 or None")

    @property
    def packs(self) -> bool:
        if self.packed is not None:
            return self.packed
        return self.device.startswith("cuda") if self.pack is None else self.pack > 1

    @property
    def compiles(self) -> bool:
        """Whether a stack's step is compiled, where that is possible."""
        return self.device.startswith("cuda") if self.compiled is None else self.compiled

    def autocast(self) -> Any:
        """bfloat16 for the extractor where asked for; logits, KL and losses stay in float32."""
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bfloat16")


@dataclass(frozen=True)
class Normalise:
    """Instances to normalised units: of uint8 patches (x/255 − mean)/std per channel, of vectors (x − mean)/std per
    dimension, or with unit_length x/‖x‖.

    mean, std: (C, 1, 1) for patches (C, H, W), (D,) for vectors.
    """

    mean: Tensor
    std: Tensor
    unit_length: bool = False

    @classmethod
    def of(cls, replicate: Replicate, compute: Compute) -> Normalise:
        return cls.by(replicate.mean, replicate.std, replicate.unit_length, replicate.pool.shape, compute.device)

    @classmethod
    def by(
        cls, mean: Sequence[float] | np.ndarray, std: Sequence[float] | np.ndarray, unit_length: bool,
        shape: tuple[int, ...], device: str,
    ) -> Normalise:  # fmt: skip
        """Of instances of `shape` by means and standard deviations, (C,) or (D,)."""
        view = (-1,) if len(shape) == 1 else (-1, 1, 1)
        means, deviations = (torch.tensor(v, dtype=torch.float32).view(view).to(device) for v in (mean, std))
        return cls(means, deviations, unit_length)

    def __call__(self, instances: np.ndarray) -> Tensor:
        """instances: (n, C, H, W) uint8 -> the same shape, float32, channels last in memory; or (n, D) of any float
        type -> (n, D) float32."""
        return self.of_tensor(torch.from_numpy(instances).to(self.mean.device))

    def of_tensor(self, instances: Tensor) -> Tensor:
        """The same of a tensor on the device of mean and std."""
        x = instances.to(torch.float32)
        if x.dim() == 2:
            return unit_vectors(x) if self.unit_length else (x - self.mean) / self.std
        return ((x / 255 - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def unit_vectors(x: Tensor) -> Tensor:
    """(…, D) each vector divided by its L2 norm; a vector of zeros stays one."""
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length > 0, length, torch.ones_like(length))


@torch.no_grad()
def instance_terms(
    model: MilModel, params: Params, pool: Pool, instances: np.ndarray, normalise: Normalise, compute: Compute
) -> Terms:
    """The terms of the named instances of the pool, in order."""

    def parts() -> Iterator[Terms]:
        size = chunk_size(pool.shape)
        for start in range(0, len(instances), size):
            with compute.autocast():
                yield model.terms(params, normalise(pool.instances[instances[start : start + size]]))

    return Terms.collected(parts(), len(instances))


@torch.no_grad()
def predict_bags(
    model: MilModel, params: Params, pool: Pool, sets: Sequence[Bags], normalise: Normalise, compute: Compute
) -> list[np.ndarray]:
    """The logit of each bag, (bags,) float32, for each of several sets of bags of one pool.

    Every distinct instance of all the sets together goes through the extractor once. A set may be empty.
    """
    if not any(len(bags) for bags in sets):
        return [np.empty(0, np.float32) for _ in sets]
    distinct, inverse = np.unique(np.concatenate([bags.instance for bags in sets]), return_inverse=True)
    terms = instance_terms(model, params, pool, distinct, normalise, compute)
    results = []
    for bags, at in zip(sets, np.split(inverse, np.cumsum([len(b.instance) for b in sets])[:-1]), strict=True):
        logits = []
        for start in range(0, len(bags), CHUNK):
            chosen = np.arange(start, min(start + CHUNK, len(bags)))
            positions, bag_index = bags.select(chosen)
            index = torch.from_numpy(at[positions]).to(compute.device)
            where = torch.from_numpy(bag_index).to(compute.device)
            logits.append(model.pool(params, terms.at(index), where, len(chosen)))
        results.append(torch.cat(logits).cpu().numpy() if logits else np.empty(0, np.float32))
    return results


def bag_metrics(label: np.ndarray, logit: np.ndarray, prefix: str) -> dict[str, float]:
    """`{prefix}_auc`, `_ap`, `_nll`, `_brier`, and accuracy, precision, recall and f1 at 0.5."""
    values = {
        "auc": metrics.auc(label, logit),
        "ap": metrics.average_precision(label, logit),
        "nll": metrics.log_loss(label, logit),
        "brier": metrics.brier(label, logit),
        **metrics.at_threshold(label, logit),
    }
    return {f"{prefix}_{name}": value for name, value in values.items()}
