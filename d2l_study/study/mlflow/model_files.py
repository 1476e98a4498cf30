"""A model as MLflow keeps it: its folder (`inference.model_folder`) as an artifact, and the code that scores with it.

    save_mlflow_model(Path("saved"), Path("models/colon-student"), stored)

Nothing of it is a pickle. The code is `pyfunc_model.py`, and for machines without d2l_study an archive of the rooms of
this package that scoring needs (`code.zip`). It is an artifact and none of MLflow's `code_paths`, since these come
first in `sys.path`: a part of d2l_study would hide the installed one from everything that the process imports later.
"""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from functools import cache
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import d2l_study
from d2l_study.inference.instance_table import BAG, INSTANCE, LEVELS, ONE_BAG
from d2l_study.inference.model_file import StoredModel

ARTIFACT = "artifacts/model"
"""The path of a model's folder in what MLflow keeps."""
NEEDED = ("torch", "numpy", "pandas", "pyarrow", "safetensors")
"""The packages that scoring needs; MLflow adds itself."""
ROOMS = ("data", "inference", "learning", "models", "slides")
"""The rooms of this package that scoring needs."""
CODE = Path(__file__).with_name("pyfunc_model.py")
MOST_EXAMPLE = 50_000
"""Numbers of an instance up to which an example of the input lies beside the model."""


def save_mlflow_model(
    target: Path, folder: Path, stored: StoredModel, model_id: str | None = None, run_id: str | None = None
) -> None:
    """Write a model's folder as a model of MLflow. target: must not exist; stored: the model that is in the folder;
    model_id, run_id: of MLflow."""
    from mlflow import pyfunc
    from mlflow.models import Model

    about = {"d2l_study": d2l_study.__version__, "stage": stored.card.stage, "config_id": stored.card.config_id,
             "replicate": stored.card.replicate, "instance_shape": list(stored.model.shape)}  # fmt: skip
    with TemporaryDirectory(prefix="d2l-code-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what MLflow advises about pickles and type hints
        code = Path(scratch) / "code.zip"
        code.write_bytes(code_archive())
        pyfunc.save_model(
            target, python_model=str(CODE), artifacts={"model": str(folder), "code": str(code)},
            signature=_signature(), input_example=_example(stored), pip_requirements=requirements(),
            mlflow_model=Model(artifact_path=None, run_id=run_id, model_id=model_id, model_uuid=model_id),
            metadata=about,
        )  # fmt: skip


def requirements() -> list[str]:
    """What pip is to install where the model scores, in the versions that are here."""
    return [f"{name}=={metadata.version(name).split('+')[0]}" for name in NEEDED]


@cache
def code_archive() -> bytes:
    """The part of this package that scoring needs, as a zip file that Python imports from. Always the same bytes."""
    package = Path(d2l_study.__file__).parent
    files = [*package.glob("*.py"), *(file for room in ROOMS for file in (package / room).rglob("*.py"))]
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(files):
            name = (Path(package.name) / file.relative_to(package)).as_posix()
            archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)
    return written.getvalue()


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import AnyType, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    # Of any type, not an array of numbers: MLflow would look at each number in Python, and refuse nested lists.
    columns = Schema([ColSpec(DataType.string, BAG, required=False), ColSpec(AnyType(), INSTANCE)])
    text, whole = DataType.string, DataType.long
    kinds = {"level": text, "bag": text, "index": whole, "logit": DataType.float, "score": DataType.double,
             "predicted": DataType.integer}  # fmt: skip
    rows = Schema([ColSpec(kind, name, required=name not in ("index", "predicted")) for name, kind in kinds.items()])
    return ModelSignature(columns, rows, ParamSchema([ParamSpec("level", text, LEVELS[0])]))


def _example(stored: StoredModel) -> Any:
    """A table of one instance, the mean of the training data; None of one with very many numbers."""
    import pandas as pd

    if math.prod(stored.model.shape) > MOST_EXAMPLE:
        return None
    mean = np.asarray(stored.card.mean)
    if len(stored.model.shape) == 1:
        values = np.round(mean, 6).tolist()
    else:
        values = np.repeat(np.rint(255 * mean.clip(0, 1)).astype(int), math.prod(stored.model.shape[1:])).tolist()
    return pd.DataFrame({BAG: [ONE_BAG], INSTANCE: [values]})
