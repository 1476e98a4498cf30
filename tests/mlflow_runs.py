"""The runs of a study in an MLflow store, as tests make them and as MLflow's own client sees them."""

import time

from d2l_study.study.mlflow.address import client

PARAMS = {"dataset": "mnist", "num_bags": 50, "mean_bag_size": 10, "lambda_adv": 1.0}


def rows_of(aucs, failed=(), missing=()):
    rows = []
    for r, auc in enumerate(aucs):
        status = "failed" if r in failed else "missing" if r in missing else "done"
        row = {**PARAMS, "replicate": r, "status": status, "cause": "NaNLoss: at step 3" if r in failed else None}
        rows.append(row | ({"bag_auc": auc, "val_bag_auc": auc - 0.1} if status == "done" else {}))
    return rows


def begin(tracker, config_id="c1", method="vat"):
    tracker.begin(config_id, method=method, stage="teacher", params=PARAMS, tags={"d2l.space": "made"})


def runs_of(uri, study="made"):
    """(parents, children by config_id) as lists, so that a double would show."""
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name(study)
    assert experiment is not None
    found = mlflow.search_runs([experiment.experiment_id])
    children: dict[str, list] = {}
    for run in found:
        if "mlflow.parentRunId" in run.data.tags:
            children.setdefault(run.data.tags["d2l.config_id"], []).append(run)
    return [r for r in found if "mlflow.parentRunId" not in r.data.tags], children


def everything(uri, study="made"):
    """All that a store holds of a study, times included."""
    mlflow = client(uri)
    parents, children = runs_of(uri, study)
    state = {}
    for run in [*parents, *(r for runs in children.values() for r in runs)]:
        points = {k: [(m.step, str(m.value), m.timestamp) for m in mlflow.get_metric_history(run.info.run_id, k)]
                  for k in run.data.metrics}  # fmt: skip
        artifacts = sorted((a.path, a.file_size) for a in mlflow.list_artifacts(run.info.run_id))
        state[run.info.run_id] = (dict(run.info), run.data.params, run.data.tags, points, artifacts)
    return state


def steps_of(uri, run, key):
    return [m.step for m in client(uri).get_metric_history(run.info.run_id, key)]


def until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
