"""MLflow as a window on a study, seen through MLflow's own client: nothing twice, nothing left running, nothing
waited for. Real stores throughout; a store is made once (50 migrations) and copied."""

import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from empty_store import copied_store, empty_store
from make_study import make_study

from d2l_study.errors import UserError
from d2l_study.study.commands import mlflow_ui
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.sync import sync_mlflow
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow import run_page
from d2l_study.study.mlflow.address import _create_sqlite, check_uri, client, resolve_uri
from d2l_study.study.mlflow.store import StudyRuns
from d2l_study.study.mlflow.tracking import Tracker

PARAMS = {"dataset": "mnist", "num_bags": 50, "mean_bag_size": 10, "lambda_adv": 1.0}


def new_store(tmp_path_factory):
    """A new store, and what making it printed."""
    path = empty_store(tmp_path_factory)
    return path, path.with_suffix(".txt").read_text()


@pytest.fixture
def uri(tmp_path, tmp_path_factory):
    return copied_store(tmp_path, tmp_path_factory)


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


# ---- the address
def test_the_flag_comes_before_the_variable_and_both_before_the_root(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert resolve_uri(None, tmp_path) == "http://server:5000"
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///own.db", tmp_path) == f"sqlite:///{tmp_path}/own.db"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("localhost:5000", "did you mean 'http://localhost:5000'"),
        ("./mlruns", "store of plain files"),
        ("file:///tmp/mlruns", "store of plain files"),
        ("ftp://host/x", "expected http://"),
        ("sqlite://", "expected http://"),
        ("http://127.0.0.1:9", "connection refused"),
        ("sqlite:////dev/null/mlflow.db", "there is no folder /dev/null"),
        ("sqlite:////proc/version", "cannot write /proc/version"),
    ],
)
def test_an_address_that_cannot_serve_is_named_before_anything_runs(bad, told):
    with pytest.raises(UserError) as caught:
        check_uri(bad)
    assert told in str(caught.value) and bad in str(caught.value) and "\n" not in str(caught.value)


def test_of_two_processes_that_make_a_store_at_once_the_first_one_stays(tmp_path, monkeypatch):
    path, made = tmp_path / "mlflow.db", []

    class Client:
        def __init__(self, uri):
            self.path = Path(uri.removeprefix("sqlite:///"))

        def search_experiments(self, max_results):
            made.append(self.path)
            self.path.write_text("ours")
            path.write_text("theirs")

    monkeypatch.setattr("d2l_study.study.mlflow.address.client", Client)
    _create_sqlite(path)
    assert path.read_text() == "theirs" and made[0] != path and [*tmp_path.iterdir()] == [path]


def test_a_file_that_is_no_store_is_left_as_it_was(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, but somebody's notes\n" * 20)
    before = (tmp_path / "notes.db").read_bytes()
    with pytest.raises(UserError, match="not a database"):
        check_uri(f"sqlite:///{tmp_path}/notes.db")
    assert (tmp_path / "notes.db").read_bytes() == before


def test_a_server_that_never_answers_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="no answer within"):
        check_uri(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)


def test_making_a_store_is_silent(tmp_path_factory):
    path, said = new_store(tmp_path_factory)
    assert path.stat().st_size > 0 and said == ""


# ---- a study that runs
def test_a_study_is_one_parent_and_one_child_per_configuration(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # somebody else's: must not be written to
    tracker = Tracker(uri, "made", flush_seconds=0.05)
    tracker.start({"d2l.commit": "abc"}, {"replicates": 3}, {"space.yaml": "a: 1\n"}, varied=["lambda_adv"])
    for config, method in (("c1", "vat"), ("c2", "none")):
        begin(tracker, config, method)
        for step in (0, 10, 20):
            tracker.report(config, step, {r: {"train_loss": 1.0 + r - step / 100, "step": step} for r in range(3)})
    tracker.report("c1", 30, {0: {"train_loss": math.nan}, 1: {"train_loss": math.inf}, 2: {"train_loss": 0.5}})
    tracker.finish("c1", rows_of([0.8, 0.9, 1.0]), {"config.yaml": b"n: 50\n", "roc.png": lambda: b"drawn late"})
    tracker.finish("c2", rows_of([0.7, 0.8, 0.9], failed=(1,)), {}, reused_from="older")
    tracker.end("FINISHED", {"table.md": "| |"})
    assert tracker.close() and tracker.problems is None

    parents, children = runs_of(uri)
    assert [p.info.status for p in parents] == ["FINISHED"] and parents[0].data.params == {"replicates": "3"}
    assert parents[0].data.tags["d2l.commit"] == "abc"
    assert {config: len(runs) for config, runs in children.items()} == {"c1": 1, "c2": 1}
    (done,), (failed,) = children["c1"], children["c2"]
    assert done.info.run_name == "vat n=50 K=10" and done.info.status == "FINISHED"
    assert done.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
    assert done.data.params["num_bags"] == "50" and done.data.tags["d2l.replicates"] == "3 of 3"
    assert done.data.metrics["bag_auc"] == pytest.approx(0.9) and done.data.metrics["bag_auc/r002"] == 1.0
    assert done.data.metrics["bag_auc_std"] == pytest.approx(0.1)  # n − 1
    assert done.data.metrics["val_bag_auc"] == pytest.approx(0.8)  # the value selected, not the last of a curve
    assert steps_of(uri, done, "curve/train_loss/r001") == [0, 10, 20, 30]
    assert math.isnan(done.data.metrics["curve/train_loss/r000"])
    assert math.isnan(done.data.metrics["curve/train_loss/r001"])  # infinity would end every axis
    means = [m.value for m in client(uri).get_metric_history(done.info.run_id, "curve/train_loss")]
    assert means == pytest.approx([2.0, 1.9, 1.8, 0.5])
    folder = Path(client(uri).download_artifacts(done.info.run_id, "", str(tmp_path)))
    assert (folder / "roc.png").read_bytes() == b"drawn late" and (folder / "config.yaml").exists()
    assert failed.info.status == "FAILED" and failed.data.tags["d2l.cause"] == "r001: NaNLoss: at step 3"
    assert failed.data.tags["d2l.replicates"] == "2 of 3" and failed.data.tags["d2l.reused_from"] == "older"
    assert failed.data.metrics["bag_auc"] == pytest.approx(0.8) and "bag_auc/r001" not in failed.data.metrics
    assert (tmp_path / "mlartifacts" / "made").is_dir()


def test_more_replicates_update_the_same_run(uri):
    runs = []
    for total, first in ((2, 0), (4, 2)):
        tracker = Tracker(uri, "made", flush_seconds=0.05)
        tracker.start({}, {}, {})
        begin(tracker)
        for step in (0, 10):
            tracker.report("c1", step, {r: {"train_loss": float(r)} for r in range(first, total)})
        tracker.finish("c1", rows_of([0.6, 0.8, 1.0, 1.0][:total]), {})
        tracker.end("FINISHED", {})
        assert tracker.close()
        parents, children = runs_of(uri)
        assert len(parents) == len(children["c1"]) == 1
        runs.append(children["c1"][0])
    before, after = runs
    assert before.info.run_id == after.info.run_id
    assert before.data.metrics["bag_auc"] == pytest.approx(0.7) and after.data.metrics["bag_auc"] == pytest.approx(0.85)
    assert after.data.tags["d2l.replicates"] == "4 of 4" and after.info.status == "FINISHED"
    assert steps_of(uri, after, "curve/train_loss/r003") == [0, 10]
    assert steps_of(uri, after, "curve/train_loss") == [0, 10]  # no second mean at the same steps


def test_replicates_spread_over_trials_share_one_mean_curve(uri):
    tracker = Tracker(uri, "made", flush_seconds=0.02)
    tracker.start({}, {}, {})
    tracker.begin("c1", method="vat", stage="teacher", params=PARAMS, tags={}, replicates=[0, 1])
    for replicate, last in ((0, 20), (1, 10)):  # one trial after the other; the second stops earlier
        for step in range(0, last + 1, 10):
            tracker.report("c1", step, {replicate: {"train_loss": 1.0 + replicate, "step": step}})
        _until(lambda: not tracker._changed)
    tracker.finish("c1", rows_of([0.8, 0.9]), {})
    assert tracker.close()
    (run,) = runs_of(uri)[1]["c1"]
    means = client(uri).get_metric_history(run.info.run_id, "curve/train_loss")
    assert [(m.step, m.value) for m in means] == [(0, 1.5), (10, 1.5), (20, 1.0)]


def test_a_resumed_run_fills_the_gaps_of_its_curves_from_the_ledger(uri):
    everything = [(step, {0: {"train_loss": 1.0 - step / 100}}) for step in (0, 10, 20)]
    for reports in (everything[:1], everything[2:]):  # the point between was lost with the first driver
        tracker = Tracker(uri, "made", flush_seconds=0.02)
        tracker.start({}, {}, {})
        begin(tracker)
        for step, values in reports:
            tracker.report("c1", step, values)
        if reports[0][0] == 20:
            tracker.finish("c1", rows_of([0.9]), {}, curves=lambda: everything)
        assert tracker.close()
    (run,) = runs_of(uri)[1]["c1"]
    assert steps_of(uri, run, "curve/train_loss/r000") == steps_of(uri, run, "curve/train_loss") == [0, 10, 20]


def test_a_killed_driver_leaves_nothing_running_once_the_study_runs_again(uri):
    script = (
        "import sys, time\n"
        "from d2l_study.study.mlflow.tracking import Tracker\n"
        f"t = Tracker({uri!r}, 'made', flush_seconds=0.02)\n"
        "t.start({}, {}, {})\n"
        f"for c in ('c1', 'c2'): t.begin(c, method='vat', stage='teacher', params={PARAMS!r}, tags={{}})\n"
        "t.report('c1', 10, {0: {'train_loss': 2.0}})\n"
        "while t._changed or not t._opened: time.sleep(0.01)\n"
        "time.sleep(0.3); print('written', flush=True); time.sleep(60)\n"
    )
    driver = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None and driver.stdout.readline() == "written\n"
    driver.kill()
    driver.wait()
    driver.stdout.close()
    _, children = runs_of(uri)
    assert [r.info.status for runs in children.values() for r in runs] == ["RUNNING", "RUNNING"]

    tracker = Tracker(uri, "made", flush_seconds=0.05)
    tracker.start({}, {}, {})
    begin(tracker, "c1")
    for step in (10, 20):  # resumed from a checkpoint: step 10 comes again
        tracker.report("c1", step, {0: {"train_loss": 2.0 if step == 10 else 1.0}})
    tracker.finish("c1", rows_of([0.9]), {})
    tracker.end("FINISHED", {})
    assert tracker.close()
    parents, children = runs_of(uri)
    assert [p.info.status for p in parents] == ["FINISHED"]
    assert {c: [r.info.status for r in runs] for c, runs in children.items()} == {"c1": ["FINISHED"], "c2": ["KILLED"]}
    assert steps_of(uri, children["c1"][0], "curve/train_loss/r000") == [10, 20]


def test_a_run_made_twice_by_a_late_answer_is_one_again(uri):
    tracker = Tracker(uri, "made", flush_seconds=0.05)
    tracker.start({}, {}, {})
    begin(tracker)
    tracker.close()
    (run,) = runs_of(uri)[1]["c1"]
    client(uri).create_run(run.info.experiment_id, tags=run.data.tags)
    store = StudyRuns(uri, "made")
    store.open()
    assert [r.info.run_id for r in runs_of(uri)[1]["c1"]] == [run.info.run_id] == [store.known["c1"].run_id]


def test_a_run_deleted_by_a_person_during_the_study_holds_up_nothing(uri):
    tracker = Tracker(uri, "made", flush_seconds=0.05)
    tracker.start({}, {}, {})
    begin(tracker, "c1")
    _until(lambda: "c1" in tracker._written)
    client(uri).delete_run(tracker._runs.known["c1"].run_id)
    begin(tracker, "c2")
    for config in ("c1", "c2"):
        tracker.finish(config, rows_of([0.9, 0.8]), {})
    _until(lambda: not tracker._changed and tracker.problems is None)
    assert tracker.close()
    children = runs_of(uri)[1]
    assert {c: [r.info.status for r in runs] for c, runs in children.items()} == {
        "c1": ["FINISHED"],
        "c2": ["FINISHED"],
    }


def test_a_store_that_is_away_costs_neither_time_nor_memory():
    tracker = Tracker("http://127.0.0.1:9", "made", flush_seconds=0.02, max_buffered=100)
    tracker.start({}, {}, {})
    begin(tracker)
    for step in range(2000):
        tracker.report("c1", step, {0: {"train_loss": 1.0}, 1: {"train_loss": 2.0}})
    assert tracker._buffered <= 100
    _until(lambda: tracker.problems is not None and "connection refused" in tracker.problems)
    assert not tracker.close(timeout=10)


def test_closing_leaves_a_store_that_hangs_and_writes_a_backlog_to_its_end(uri):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracker = Tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "made", flush_seconds=0.02)
        tracker.start({}, {}, {})
        assert not tracker.close(timeout=0.3)
    tracker = Tracker(uri, "made", flush_seconds=0.02)
    tracker.start({}, {}, {})
    for i in range(60):
        begin(tracker, f"c{i}")
        tracker.finish(f"c{i}", rows_of([0.8, 0.9]), {"config.yaml": "a: 1"})
    assert tracker.close(timeout=5)  # since the last run written, however many there are
    assert {r.info.status for runs in runs_of(uri)[1].values() for r in runs} == {"FINISHED"}


# ---- from the ledger
def test_sync_fills_an_empty_store_and_then_changes_nothing(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), replicates=3, failed=((1, 2),), missing=((2, 0), (2, 1), (2, 2)),
                        with_predictions=True)  # fmt: skip
    first = sync_mlflow(folder, uri, tags={"d2l.commit": "abc"}, description="what it is about")
    assert (first.created, first.updated, first.unchanged, first.not_run) == (3, 0, 0, 1)
    parents, children = runs_of(uri)
    assert len(parents) == 1 and Counter(len(r) for r in children.values()) == {1: 3}
    assert {r.info.status for runs in children.values() for r in runs} == {"FINISHED", "FAILED"}
    for entry in folder.plan():
        rows = [r for r in folder.iter_rows() if r["config_id"] == entry["config_id"] and r["status"] == "done"]
        if rows:
            (run,) = children[entry["config_id"]]
            assert run.data.metrics["bag_auc"] == pytest.approx(np.mean([r["bag_auc"] for r in rows]), abs=0)
            names = {a.path for a in client(uri).list_artifacts(run.info.run_id)}
            assert names == {"config.yaml", "roc.png", "bag_predictions.csv"}
    assert not any("d2l.teacher_run" in r.data.tags for runs in children.values() for r in runs)  # teachers have none
    before = everything(uri)
    second = sync_mlflow(folder, uri, tags={"d2l.commit": "abc"})
    assert (second.created, second.updated, second.unchanged, second.not_run) == (0, 0, 3, 1)
    assert everything(uri) == before


def test_sync_brings_new_replicates_and_curves_to_the_runs_that_are_there(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("vat",), replicates=3, missing=((0, 2),))
    (entry,) = folder.plan()
    sync_mlflow(folder, uri)
    (before,) = runs_of(uri)[1][entry["config_id"]]
    assert before.info.status == "KILLED" and before.data.tags["d2l.replicates"] == "2 of 3"
    curve = b'[{"step": 10, "train_loss": 0.7, "val_bag_auc": null}, {"step": 20, "train_loss": 0.5}]'
    row = {"status": "done", "bag_auc": 0.5, "seed": 0}
    folder.ledger.commit(entry["config_id"], 2, row, {"curve.json": curve})
    assert sync_mlflow(folder, uri).updated == 1
    (after,) = runs_of(uri)[1][entry["config_id"]]
    assert after.info.run_id == before.info.run_id and after.info.status == "FINISHED"
    assert after.data.tags["d2l.replicates"] == "3 of 3" and after.data.metrics["bag_auc/r002"] == 0.5
    assert steps_of(uri, after, "curve/train_loss/r002") == [10, 20]


def test_a_finished_live_study_needs_no_sync(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    tracker = Tracker(uri, folder.name, flush_seconds=0.05)
    tracker.start({}, {}, {})
    for entry in folder.plan():
        config = entry["config_id"]
        tracker.begin(config, method=entry["method"], stage="teacher", params=entry["values"], tags={})
        rows = [r for r in folder.iter_rows() if r["config_id"] == config]
        tracker.finish(config, rows, artifacts_of(folder, config, rows))
    tracker.end("FINISHED", {})
    assert tracker.close()
    result = sync_mlflow(folder, uri)
    assert (result.created, result.updated, result.unchanged) == (0, 0, 2)


def test_sync_leaves_the_runs_of_a_driver_at_work_alone(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2)
    at_work, other = (entry["config_id"] for entry in folder.plan())
    tracker = Tracker(uri, folder.name, flush_seconds=0.05)
    tracker.start({}, {}, {})
    begin(tracker, at_work)
    _until(lambda: at_work in tracker._written)
    sync_mlflow(folder, uri, live=True)
    parents, children = runs_of(uri)
    assert [parents[0].info.status, children[at_work][0].info.status] == ["RUNNING", "RUNNING"]
    assert children[other][0].info.status == "FINISHED"
    tracker.close()


# ---- a tracking server
def test_a_server_that_dies_and_comes_back_gets_everything_once(uri, tmp_path, monkeypatch):
    port = mlflow_ui.free_port(0)
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with (tmp_path / "log").open("w+b") as log:
        with mlflow_ui._server(uri, port, log) as server:
            mlflow_ui._wait_until_up(server, address, log)
            check_uri(address)
            tracker = Tracker(address, "made", flush_seconds=0.1)
            tracker.start({}, {}, {})
            begin(tracker)
            tracker.report("c1", 0, {0: {"train_loss": math.nan}, 1: {"train_loss": 3.0}})
            _until(lambda: "c1" in tracker._written)
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        for step in (10, 20):
            tracker.report("c1", step, {0: {"train_loss": 1.0}, 1: {"train_loss": 2.0}})
        _until(lambda: tracker.problems is not None)
        with mlflow_ui._server(uri, port, log) as server:
            mlflow_ui._wait_until_up(server, address, log)
            tracker.report("c1", 30, {0: {"train_loss": 0.5}, 1: {"train_loss": 0.5}})
            tracker.finish("c1", rows_of([0.8, 0.9]), {"roc.png": b"a picture"})
            tracker.end("FINISHED", {})
            assert tracker.close() and tracker.problems is None
            parents, children = runs_of(address)
            (run,) = children["c1"]
            assert [p.info.status for p in parents] == ["FINISHED"] and run.info.status == "FINISHED"
            assert steps_of(address, run, "curve/train_loss/r001") == [0, 10, 20, 30]
            assert run.data.metrics["bag_auc"] == pytest.approx(0.85)
            got = client(address).download_artifacts(run.info.run_id, "roc.png", str(tmp_path))
            assert Path(got).read_bytes() == b"a picture"
            assert run.info.artifact_uri.startswith("mlflow-artifacts:")


# ---- what a page shows
def test_names_tell_runs_apart_and_leave_out_what_is_off():
    values = {"num_bags": 100, "mean_bag_size": 10, "lambda_adv": 0.1, "lambda_ent": 0.0, "epsilon": 4.0}
    varied = ["num_bags", "lambda_adv", "lambda_ent", "epsilon"]
    assert run_page.run_name("vat", "teacher", values, varied) == "vat n=100 K=10 λ_adv=0.1 ε=4"
    assert run_page.run_name("vat", "student", values) == "student vat n=100 K=10"


def test_the_roc_curve_equals_scikit_learns_with_ties():
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    logits = np.round(rng.normal(labels, 1.0), 1)
    false, true, _ = roc_curve(labels, logits, drop_intermediate=False)
    ours = run_page.roc_curve(labels, logits)
    np.testing.assert_allclose(ours[0], false)
    np.testing.assert_allclose(ours[1], true)


def test_the_roc_picture_stands_a_replicate_without_a_curve():
    good = (np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.3]))
    one_class = (np.array([1, 1]), np.array([0.1, 0.2]))
    broken = (np.array([0, 1]), np.array([np.nan, 0.2]))
    only_good = run_page.roc_picture({0: good}, "a title")
    assert only_good.startswith(b"\x89PNG")
    assert run_page.roc_picture({0: good, 1: one_class, 2: broken}, "a title") == only_good
    assert run_page.roc_picture({1: one_class}, "a title") != only_good


def _until(true, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_a_copied_root_leaves_the_pages_of_the_first_alone(tmp_path, tmp_path_factory):
    first = make_study(tmp_path / "a", num_bags=(50,), bag_sizes=(10,), replicates=2, with_predictions=True)
    uri = copied_store(tmp_path / "a", tmp_path_factory)
    sync_mlflow(first, uri)
    before = {p: p.read_bytes() for p in (tmp_path / "a" / "mlartifacts").rglob("*") if p.is_file()}
    assert before
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    second = StudyFolder(LocalStorage(tmp_path / "b"), first.name)
    entry = second.plan()[0]
    row = {"status": "done", "bag_auc": 0.5, "val_bag_auc": 0.5, "made_by": "made"}
    second.write_plan([entry | {"replicates": [0, 1, 2]}, *second.plan()[1:]])
    second.ledger.commit(entry["config_id"], 2, row, {})
    there = f"sqlite:///{tmp_path / 'b' / 'mlflow.db'}"
    sync_mlflow(second, there)
    assert {p: p.read_bytes() for p in (tmp_path / "a" / "mlartifacts").rglob("*") if p.is_file()} == before
    parents, children = runs_of(there)
    for run in [*parents, *(run for runs in children.values() for run in runs)]:
        assert run.info.artifact_uri.startswith((tmp_path / "b" / "mlartifacts").as_uri())
        assert client(there).list_artifacts(run.info.run_id)
    sync_mlflow(first, uri)  # nor has the first become another's
    assert runs_of(uri)[0][0].info.artifact_uri.startswith((tmp_path / "a" / "mlartifacts").as_uri())
