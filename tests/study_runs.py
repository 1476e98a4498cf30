"""The `run` command in a process of its own or in this one, and what MLflow has of its study."""

from __future__ import annotations

import subprocess
import sys

from whole_root import command as command_here
from whole_root import without_ray

from d2l_study import cli


def command(*arguments):
    return [sys.executable, "-m", "d2l_study", *map(str, arguments)]


def run(folder, *arguments, space="few.yaml", code=0):
    done = subprocess.run(
        command("run", "--space", folder / space, "--root", folder / "runs", *arguments),
        capture_output=True, text=True, timeout=300, cwd=folder,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stdout


def run_here(folder, *arguments, space="few.yaml", code=0):
    """The same in this process, its trials too."""
    with without_ray():
        said = command_here(cli.main, "run", "--space", folder / space, "--root", folder / "runs", *arguments)
    assert said.code == code, said.text
    assert "Traceback" not in said.text
    return said.out


def children(folder, study):
    """The child runs of a study, asked of MLflow itself."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db")
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id])
    return [r for r in runs if "mlflow.parentRunId" in r.data.tags], runs


def steps_of(folder, child, metric):
    from mlflow import MlflowClient

    history = MlflowClient(f"sqlite:///{folder}/runs/mlflow.db").get_metric_history(child.info.run_id, metric)
    return sorted({point.step for point in history})
