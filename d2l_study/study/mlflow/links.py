"""Addresses of MLflow's pages, and the columns that its table of a study shows."""

from __future__ import annotations

import json
from collections.abc import Sequence

from d2l_study.study.mlflow.address import page_server
from d2l_study.study.mlflow.tags import REPLICATES

VIEW = "d2l"
"""The key of the shared view that `table_view` describes."""

TRAINING = "workflowType=machine_learning"
"""MLflow's mode for training; without it a page opens among the pages about language models."""


def run_path(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The path of a run's page, or of one of its artifacts, which follows the address of a server."""
    shown = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{shown}?{TRAINING}"


def experiment_url(server: str, experiment_id: str) -> str:
    """The address of an experiment's page, with the table that `table_view` describes."""
    return f"{page_server(server)}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&{TRAINING}"


def table_view(params: Sequence[str], metrics: Sequence[str], order_by: str) -> dict[str, str]:
    """Tags of an experiment by which MLflow shows its runs as a table with these columns, the best run first.

    The columns are a shared view of the MLflow UI (`?viewStateShareKey=d2l`), which a tag holds as JSON. A version of
    the UI that does not know the tag shows its usual page.
    """
    columns = [f"params.`{p}`" for p in params] + [f"metrics.`{m}`" for m in metrics] + [f"tags.`{REPLICATES}`"]
    state = {
        "searchFilter": "", "orderByKey": f"metrics.`{order_by}`", "orderByAsc": False, "startTime": "ALL",
        "lifecycleFilter": "Active", "selectedColumns": columns,
    }  # fmt: skip
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(state),
    }
