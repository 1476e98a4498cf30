"""`d2l_study.load`: a trained model by its folder, or by another name that `--run` takes."""

from __future__ import annotations

import os
from pathlib import Path

from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_folder import named_folder, read_model_folder
from d2l_study.learning.prediction import Compute


def load_model(
    model: str | os.PathLike[str], root: str | os.PathLike[str] = "runs", device: str = "cpu",
    replicate: int | None = None,
) -> LoadedModel:  # fmt: skip
    """As of `d2l_study.load`."""
    name = os.fspath(model)
    folder = named_folder(name)
    in_mlflow = ":" in name.partition("/")[0]  # models:/NAME
    if replicate is None and folder is not None and not in_mlflow:
        return LoadedModel(*read_model_folder(folder), folder.name, Compute(device))
    # A folder needs torch, numpy and safetensors alone; what looks a trial up needs more.
    from d2l_study.study.trial.model_reference import find_models

    return find_models(name, Path(root), replicate, device=device)[0].loaded
