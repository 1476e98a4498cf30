"""The MLflow runs of a study while it runs, seen through MLflow's own client: nothing twice, nothing left running,
nothing waited for."""

import math
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow_runs import PARAMS, begin, rows_of, runs_of, steps_of, until

from d2l_study.study.commands import mlflow_ui
from d2l_study.study.mlflow.address import check_uri, client
from d2l_study.study.mlflow.store import StudyRuns
from d2l_study.study.mlflow.tracker import Tracker


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
    rows = [
        row | ({"made_by": "older"} if row["status"] == "done" else {}) for row in rows_of([0.7, 0.8, 0.9], failed=(1,))
    ]
    tracker.finish("c2", rows, {})
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
        until(lambda: not tracker.changed)
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


@pytest.mark.slow
def test_a_killed_driver_leaves_nothing_running_once_the_study_runs_again(uri):
    script = (
        "import sys, time\n"
        "from d2l_study.study.mlflow.tracker import Tracker\n"
        f"t = Tracker({uri!r}, 'made', flush_seconds=0.02)\n"
        "t.start({}, {}, {})\n"
        f"for c in ('c1', 'c2'): t.begin(c, method='vat', stage='teacher', params={PARAMS!r}, tags={{}})\n"
        "t.report('c1', 10, {0: {'train_loss': 2.0}})\n"
        "while t.changed or not t.writer.opened: time.sleep(0.01)\n"
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
    assert [r.info.run_id for r in runs_of(uri)[1]["c1"]] == [run.info.run_id] == [store.stored["c1"].run_id]


def test_a_run_deleted_by_a_person_during_the_study_holds_up_nothing(uri):
    tracker = Tracker(uri, "made", flush_seconds=0.05)
    tracker.start({}, {}, {})
    begin(tracker, "c1")
    until(lambda: "c1" in tracker.writer.written)
    client(uri).delete_run(tracker.writer.stored["c1"].run_id)
    begin(tracker, "c2")
    for config in ("c1", "c2"):
        tracker.finish(config, rows_of([0.9, 0.8]), {})
    until(lambda: not tracker.changed and tracker.problems is None)
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
    until(lambda: tracker.problems is not None and "connection refused" in tracker.problems)
    assert not tracker.close(timeout=10)


@pytest.mark.slow
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


@pytest.mark.soak
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
            until(lambda: "c1" in tracker.writer.written)
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        for step in (10, 20):
            tracker.report("c1", step, {0: {"train_loss": 1.0}, 1: {"train_loss": 2.0}})
        until(lambda: tracker.problems is not None)
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
