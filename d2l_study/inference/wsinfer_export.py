"""A patch classifier as WSInfer and QuPath's WSInfer extension read it (specification 1.0).

    export_wsinfer(stored, Path("out"), mpp=0.5, classes=("stroma", "tumour"))

OUT/torchscript_model.pt    two outputs for each patch, (0, s): a softmax of them is (1 − score, score)
OUT/config.json             side of a patch, µm per pixel, names of the classes, how a patch is prepared

Specification: https://github.com/SBU-BMI/wsinfer-zoo (schemas/model-config.schema.json).
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from d2l_study.atomic_files import atomic_write, write_whole
from d2l_study.errors import UserError
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.network_modules import PatchClassifier
from d2l_study.inference.onnx_export import SIZES, TOLERANCE, random_bag

MODEL, CONFIG = "torchscript_model.pt", "config.json"
SPECIFICATION = "1.0"


def export_wsinfer(stored: StoredModel, folder: Path, mpp: float, classes: tuple[str, str]) -> float:
    """Write both files, and return the largest difference of a logit from the model's on random patches.

    mpp: µm per pixel of the model's patches; classes: the names of the negative and of the positive class. `UserError`
    for a model that is not of square RGB patches, for names that are alike, and if the file's scores are not the
    model's.
    """
    check_wsinfer(stored, classes)
    side = stored.model.patch_shape[1]
    config = wsinfer_config(stored, mpp, classes)
    with atomic_write(folder / MODEL) as path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of shapes that are fixed while it is traced, and of TorchScript's age
            script = torch.jit.trace(PatchClassifier(stored).eval(), torch.zeros(2, 3, side, side))
            with path.open("wb") as file:  # torch takes no path whose bytes are no UTF-8
                torch.jit.save(script, file)
            with path.open("rb") as file:
                loaded = torch.jit.load(file, map_location="cpu")
        worst = _difference(stored, loaded)
        if not worst <= TOLERANCE:
            raise UserError(f"--to wsinfer: the file's logits differ from the model's by {worst:.2g}, more than "
                            f"{TOLERANCE:g}; it was not kept")  # fmt: skip
    write_whole(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    return worst


def check_wsinfer(stored: StoredModel, classes: tuple[str, str]) -> None:
    """`UserError` for what WSInfer cannot use."""
    shape = stored.model.shape
    if len(shape) == 1:
        raise UserError(f"--to wsinfer: this model takes feature vectors of {shape[0]:,} dimensions; WSInfer and "
                        "QuPath run classifiers of RGB patches; --to onnx takes it")  # fmt: skip
    if shape[0] != 3 or shape[1] != shape[2]:
        raise UserError(f"--to wsinfer: this model takes patches of {'×'.join(map(str, shape))} (C×H×W); WSInfer and "
                        "QuPath run classifiers of square RGB patches; --to onnx takes it")  # fmt: skip
    if not all(name.strip() for name in classes) or classes[0] == classes[1]:
        raise UserError(f"--classes: {classes[0]!r} and {classes[1]!r}; expected two different names, that of the "
                        "negative class first")  # fmt: skip


def wsinfer_config(stored: StoredModel, mpp: float, classes: tuple[str, str]) -> dict[str, Any]:
    """The content of `config.json`. Arguments as of `export_wsinfer`."""
    side = stored.model.patch_shape[1]
    return {
        "spec_version": SPECIFICATION,
        "architecture": f"d2l_study {stored.model.extractor}",
        "num_classes": 2,
        "patch_size_pixels": side,
        "spacing_um_px": mpp,
        "class_names": list(classes),
        "transform": [
            {"name": "Resize", "arguments": {"size": [side, side]}},
            {"name": "ToTensor"},
            {"name": "Normalize", "arguments": {"mean": list(stored.card.mean), "std": list(stored.card.std)}},
        ],
    }  # fmt: skip


@torch.no_grad()
def _difference(stored: StoredModel, script: Any) -> float:
    model, worst = LoadedModel(stored), 0.0
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (stored.card.mean, stored.card.std))
    for seed, size in enumerate(SIZES):
        patches = random_bag(stored, size, seed)
        ready = torch.from_numpy((patches.astype(np.float32) / 255 - mean) / std)
        output = script(ready).numpy()
        expected = model.instance_logits(patches)
        worst = max(worst, float(np.max(np.abs(output[:, 1] - output[:, 0] - expected) / np.maximum(1, abs(expected)))))
    return worst
