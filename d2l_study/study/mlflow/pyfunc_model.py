"""The code of our models in MLflow, which MLflow keeps beside each and runs when it loads one ("models from code").

    mlflow.pyfunc.load_model("models:/colon@champion").predict(table, params={"level": "bag"})

`table` is as of `inference.instance_table`, and so is what comes back. `d2l_study` is taken where it is installed. Else
the part of it that scores, which lies in the model's artifacts, is read from there. This file imports nothing of it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ScoringModel(PythonModel):
    """Scores bags and instances. Only numbers are read from the model's folder; none of its parameters is a pickle."""

    def load_context(self, context: Any) -> None:
        """Read the model that the artifact `model` is."""
        try:
            import d2l_study  # noqa: F401
        except ModuleNotFoundError:
            sys.path.append(context.artifacts["code"])
        from d2l_study.inference.loaded_model import LoadedModel
        from d2l_study.inference.model_folder import read_model_folder

        self._model = LoadedModel(*read_model_folder(Path(context.artifacts["model"])))

    def predict(
        self, context: Any, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> pandas.DataFrame:
        """The scores of a table. params: `level`, one of both, bag, instance. `MlflowException` for a table that is
        wrong, which a server answers with its text."""
        from d2l_study.errors import UserError
        from d2l_study.inference.instance_table import score_table

        try:
            return score_table(self._model, model_input, (params or {}).get("level", "both"))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


set_model(ScoringModel())
