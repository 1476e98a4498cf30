"""A stored model as a PyTorch module, for formats that other programs read (`wsinfer_export`, `onnx_export`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from d2l_study.inference.label import normaliser
from d2l_study.inference.model_file import StoredModel
from d2l_study.learning.prediction import Compute, Normalise


class _Network(nn.Module):
    """Holds a model's parameters as buffers, so that they move and are saved with the module."""

    def __init__(self, stored: StoredModel) -> None:
        super().__init__()
        self.model = stored.model
        self._names = {name: f"param_{i}" for i, name in enumerate(sorted(stored.params))}
        for name, buffer in self._names.items():
            self.register_buffer(buffer, stored.params[name].contiguous())

    def params(self) -> dict[str, Tensor]:
        return {name: getattr(self, buffer) for name, buffer in self._names.items()}


class PatchClassifier(_Network):
    """Patches that are normalised already to two outputs, of which a softmax is (1 − score, score)."""

    def forward(self, patches: Tensor) -> Tensor:
        """patches: (n, C, H, W) float32, normalised -> (n, 2): 0, and the logit s, since softmax(0, s) = (·, σ(s))."""
        logit = self.model.terms(self.params(), patches).logit
        return torch.stack([torch.zeros_like(logit), logit], dim=1)


class BagClassifier(_Network):
    """The instances of one bag as they are to their logits, and the bag's."""

    def __init__(self, stored: StoredModel) -> None:
        super().__init__(stored)
        found = normaliser(stored, Compute())
        self.unit_length = found.unit_length
        self.register_buffer("mean", found.mean)
        self.register_buffer("std", found.std)

    def forward(self, instances: Tensor) -> tuple[Tensor, Tensor]:
        """instances: (n, C, H, W) uint8 levels, or (n, D) float32 vectors -> (n,) and (1,) float32 logits."""
        normalise = Normalise(self.mean, self.std, self.unit_length)  # type: ignore[arg-type]
        params = self.params()
        terms = self.model.terms(params, normalise.of_tensor(instances))
        bag_index = torch.zeros_like(terms.logit, dtype=torch.int64)
        return terms.logit, self.model.pool(params, terms, bag_index, 1)
