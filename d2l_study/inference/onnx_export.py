"""A model as ONNX: one bag in, the logits of its instances and its own out. What it writes is checked before it stays.

    export_onnx(stored, Path("out"))        # out/model.onnx

Input `instances`: (n, C, H, W) uint8 levels of patches, or (n, D) float32 vectors, as they are; the normalisation is in
the graph. Outputs `instance_logits` (n,) and `bag_logit` (1,), float32; a probability is 1 / (1 + exp(−logit)).
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2l_study.atomic_files import atomic_write
from d2l_study.errors import UserError
from d2l_study.inference.export_packages import needed
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.network_modules import BagClassifier

FILE = "model.onnx"
OPSET = 18
"""The first with the reductions that pooling needs."""
TOLERANCE = 1e-5
"""Largest difference of a logit, relative to its size where that is above 1."""
SIZES = (1, 2, 7, 300)
"""Instances of the bags that it is checked with."""
FAR = 1000.0
"""Standard deviations by which vectors of further bags lie off the mean: their logits must be finite where the model's
are."""


def export_onnx(stored: StoredModel, folder: Path) -> float:
    """Write `folder/model.onnx`, and return the largest difference of its logits from the model's on random bags.

    `UserError` if a package is missing, or the file's scores are not the model's.
    """
    for package in ("onnx", "onnxscript"):
        needed(package, "--to onnx")
    runtime = needed("onnxruntime", "--to onnx, which checks what it writes,")
    example = torch.from_numpy(random_bag(stored, 5, 0))
    with atomic_write(folder / FILE) as path:
        with _quiet():
            torch.onnx.export(
                BagClassifier(stored).eval(), (example,), path, input_names=["instances"],
                output_names=["instance_logits", "bag_logit"], opset_version=OPSET, dynamo=True, external_data=False,
                dynamic_shapes={"instances": {0: torch.export.Dim("n", min=1)}}, verbose=False,
                custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
            )  # fmt: skip
        session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        model, worst = LoadedModel(stored), 0.0
        for seed, size in enumerate(SIZES):
            bag = random_bag(stored, size, seed)
            found = session.run(["instance_logits", "bag_logit"], {"instances": bag})
            expected = model.score_bag([bag])
            for got, want in zip(found, (expected.instance_logits, np.array([expected.bag_logit])), strict=True):
                worst = max(worst, float(np.max(np.abs(got - want) / np.maximum(1, np.abs(want)))))
        if not worst <= TOLERANCE:
            raise UserError(f"--to onnx: the file's logits differ from the model's by {worst:.2g}, more than "
                            f"{TOLERANCE:g}; it was not kept")  # fmt: skip
        for spread in (FAR, -FAR):  # opposite ones, of which one is likely to be very negative
            bag = random_bag(stored, 1, 0, spread)
            found, scores = session.run(["instance_logits", "bag_logit"], {"instances": bag}), model.score_bag([bag])
            for got, want in zip(found, (scores.instance_logits, np.array([scores.bag_logit])), strict=True):
                if not np.isfinite(got[np.isfinite(want)]).all():
                    raise UserError("--to onnx: the file gives no finite logits of instances far from those of "
                                    "training, where the model does; it was not kept")  # fmt: skip
    return worst


def _log_sigmoid(x: Any) -> Any:
    """log σ(x) in ONNX. The exporter's own, a logarithm of a sigmoid, is −∞ below −88, and NaN in the mean pooling."""
    from onnxscript import opset18

    return opset18.Neg(opset18.Softplus(opset18.Neg(x)))


def random_bag(stored: StoredModel, size: int, seed: int, spread: float = 1.0) -> np.ndarray:
    """A bag of `size` instances as the model takes them, of random levels, or of numbers like those of its training,
    whose standard deviation is `spread` times theirs."""
    rng = np.random.default_rng(seed)
    shape = stored.model.shape
    if len(shape) == 3:
        return rng.integers(0, 256, (size, *shape), dtype=np.uint8)
    mean, std = np.array(stored.card.mean), np.array(stored.card.std)
    return (rng.normal(size=(size, *shape)) * spread * std + mean).astype(np.float32)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its steps, and warns of its own inner changes."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)
