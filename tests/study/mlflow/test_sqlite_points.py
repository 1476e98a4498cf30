"""Points that are written into a sqlite store directly are to MLflow as if it had written them."""

import math
import sqlite3

import pytest

from d2l_study.study.mlflow.address import client, sqlite_path
from d2l_study.study.mlflow.sqlite_points import write_points

POINTS = [
    ("curve/bag_auc", 0.5, 1005, 5), ("curve/bag_auc", 0.75, 1010, 10), ("curve/loss/r000", math.nan, 1005, 5),
    ("curve/bag_auc", 0.6, 1007, 7), ("bag_auc", 0.75, 2000, 0), ("curve/loss/r000", -1e300, 1000, 5),
]  # fmt: skip
"""Not in order of steps; a NaN that comes later than the number of the same step."""


@pytest.fixture
def store(uri):
    """MLflow's client, an experiment, and the file."""
    mlflow = client(uri)
    return mlflow, mlflow.create_experiment("points"), sqlite_path(uri)


def seen(mlflow, run):
    """All that MLflow tells of a run's metrics, NaN as text."""
    keys = {key for key, *_ in POINTS}
    history = {
        key: sorted((m.step, m.timestamp, str(m.value)) for m in mlflow.get_metric_history(run, key)) for key in keys
    }
    return history, {key: str(value) for key, value in mlflow.get_run(run).data.metrics.items()}


def test_histories_and_last_values_are_those_that_mlflow_would_have_written(store):
    from mlflow.entities import Metric

    mlflow, experiment, path = store
    theirs, ours, parts = (mlflow.create_run(experiment).info.run_id for _ in range(3))
    mlflow.log_batch(theirs, metrics=[Metric(*point) for point in POINTS])
    assert write_points(path, ours, POINTS)
    for point in reversed(POINTS):
        assert write_points(path, parts, [point])
    expected = seen(mlflow, theirs)
    assert expected[1]["curve/bag_auc"] == "0.75"
    assert seen(mlflow, ours) == expected and seen(mlflow, parts) == expected


def test_points_written_twice_by_either_are_there_once(store):
    from mlflow.entities import Metric

    mlflow, experiment, path = store
    run = mlflow.create_run(experiment).info.run_id
    assert write_points(path, run, POINTS)
    once = seen(mlflow, run)
    assert write_points(path, run, POINTS)
    mlflow.log_batch(run, metrics=[Metric(*point) for point in POINTS])
    assert seen(mlflow, run) == once


def test_a_run_that_is_deleted_or_unknown_is_left_to_mlflow(store):
    mlflow, experiment, path = store
    run = mlflow.create_run(experiment).info.run_id
    mlflow.delete_run(run)
    assert not write_points(path, run, POINTS) and not write_points(path, "0" * 32, POINTS)
    mlflow.restore_run(run)
    assert mlflow.get_run(run).data.metrics == {}


def test_tables_of_another_mlflow_are_left_to_it(store):
    mlflow, experiment, path = store
    run = mlflow.create_run(experiment).info.run_id
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE latest_metrics ADD COLUMN more INTEGER")
    assert not write_points(path, run, POINTS)


def test_a_store_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(sqlite3.Error):
        write_points(tmp_path / "no folder" / "mlflow.db", "0" * 32, POINTS)
