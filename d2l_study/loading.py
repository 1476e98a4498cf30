"""`d2l_study.load`: a trained model by its folder, or by the id of its trial."""

from __future__ import annotations

import os
from pathlib import Path

from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.study.trial.model_reference import find_models


def load_model(
    model: str | os.PathLike[str], root: str | os.PathLike[str] = "runs", device: str = "cpu"
) -> LoadedModel:  # fmt: skip
    """As of `d2l_study.load`."""
    return find_models(os.fspath(model), Path(root), device=device)[0].loaded
