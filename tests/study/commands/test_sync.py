"""`sync` brings any MLflow store to what the ledger holds, and leaves alone what is right or not its own."""

import math
import shutil
from collections import Counter

import numpy as np
import pytest
from empty_store import copied_store
from make_study import make_study
from mlflow_runs import begin, everything, runs_of, steps_of, until

from d2l_study import cli
from d2l_study.errors import DamagedWarning
from d2l_study.study.commands.configuration_artifacts import artifacts_of
from d2l_study.study.commands.sync import sync_mlflow
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.configuration_page import origin_tags
from d2l_study.study.mlflow.tracker import Tracker


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
        tracker.begin(config, method=entry["method"], stage="teacher", params=entry["values"],
                      tags=origin_tags(entry), varied=entry["varied"])  # fmt: skip
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
    until(lambda: at_work in tracker.writer.written)
    sync_mlflow(folder, uri, live=True)
    parents, children = runs_of(uri)
    assert [parents[0].info.status, children[at_work][0].info.status] == ["RUNNING", "RUNNING"]
    assert children[other][0].info.status == "FINISHED"
    tracker.close()


def remade(folder, entry, made_by, replicates):
    """The entry's runs as made by another study, or again by this one."""
    for replicate in replicates:
        shutil.rmtree(folder.storage.root / folder.ledger.run_key(entry["config_id"], replicate), ignore_errors=True)
        row = {"status": "done", "bag_auc": 0.5, "val_bag_auc": 0.5, "made_by": made_by}
        folder.ledger.commit(entry["config_id"], replicate, row, {})


def test_the_studies_that_made_the_runs_are_those_that_the_rows_name(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("vat",), replicates=2)
    (entry,) = folder.plan()

    def named():
        return runs_of(uri)[1][entry["config_id"]][0].data.tags.get("d2l.reused_from", "")

    said = []
    for makers in (("one", "one"), ("one", "two"), (folder.name, "two"), (folder.name, folder.name)):
        for replicate, made_by in enumerate(makers):
            remade(folder, entry, made_by, [replicate])
        result = sync_mlflow(folder, uri)
        said.append((named(), result.created + result.updated, sync_mlflow(folder, uri).unchanged))
    assert said == [("one", 1, 1), ("one, two", 1, 1), ("two", 1, 1), ("", 1, 1)]


def test_a_driver_takes_back_that_other_studies_made_its_runs(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("vat",), replicates=1)
    (entry,) = folder.plan()
    remade(folder, entry, "one", [0])
    sync_mlflow(folder, uri)
    remade(folder, entry, folder.name, [0])
    tracker = Tracker(uri, folder.name, flush_seconds=0.05)
    tracker.start({}, {}, {})
    begin(tracker, entry["config_id"])
    tracker.finish(entry["config_id"], folder.rows_of(entry), {})
    assert tracker.close()
    assert runs_of(uri)[1][entry["config_id"]][0].data.tags["d2l.reused_from"] == ""


def test_figures_that_the_ledger_lost_leave_the_page(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("vat",), replicates=2)
    (entry,) = folder.plan()
    sync_mlflow(folder, uri)
    parents, children = runs_of(uri)
    (before,) = children[entry["config_id"]]
    for run in (before, parents[0]):
        client(uri).log_metric(run.info.run_id, "mine", 3.0)
        client(uri).log_metric(run.info.run_id, "mine/best", 4.0)
    lost = [folder.storage.root / folder.ledger.run_key(entry["config_id"], r) / "commit.json" for r in range(2)]
    lost[1].write_bytes(lost[1].read_bytes()[:-50])
    with pytest.warns(DamagedWarning):
        assert sync_mlflow(folder, uri).updated == 1
    (one,) = runs_of(uri)[1][entry["config_id"]]
    there = {name for name, value in one.data.metrics.items() if not math.isnan(value)}
    assert {"bag_auc", "bag_auc/r000", "mine", "mine/best"} <= there
    assert one.data.metrics["bag_auc"] == before.data.metrics["bag_auc/r000"]
    assert not any(name.endswith(("_std", "/r001")) for name in there)
    assert {"bag_auc_std", "bag_auc/r001"} <= one.data.metrics.keys()  # they were there, and MLflow deletes none

    lost[0].write_bytes(b"{}")
    with pytest.warns(DamagedWarning):
        result = sync_mlflow(folder, uri)
        assert (result.updated, sync_mlflow(folder, uri).not_run) == (1, 1)
    parents, children = runs_of(uri)
    (none,) = children[entry["config_id"]]
    assert none.info.status == "KILLED" and none.data.tags["d2l.replicates"] == "0 of 2"
    for run in (none, parents[0]):
        assert {name for name, value in run.data.metrics.items() if not math.isnan(value)} == {"mine", "mine/best"}
    for replicate in range(2):
        remade(folder, entry, folder.name, [replicate])
    sync_mlflow(folder, uri)
    assert runs_of(uri)[1][entry["config_id"]][0].data.metrics["bag_auc_std"] == 0.0


def test_sync_writes_what_a_pruned_plan_changes_on_the_pages_that_stay(uri, tmp_path):
    folder = make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=1)
    sync_mlflow(folder, uri, tags={"d2l.arms": "both"})
    kept = folder.plan()[0]
    assert runs_of(uri)[1][kept["config_id"]][0].data.tags["d2l.varied"]
    folder.write_plan([kept | {"varied": []}])
    assert sync_mlflow(folder, uri, tags={"d2l.arms": "one"}).updated == 1
    (run,) = runs_of(uri)[1][kept["config_id"]]
    assert run.data.tags["d2l.varied"] == "" and run.data.tags["d2l.arms"] == "one"


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


def test_the_command_says_what_it_changed(tmp_path, capsys):
    make_study(tmp_path, replicates=2, num_bags=(50,), bag_sizes=(10,))
    uri = f"sqlite:///{tmp_path}/other.db"
    for words in ("2 configurations new in MLflow", "0 configurations new in MLflow, 0 brought up to date, 2 right"):
        assert cli.main(["sync", "made", "--root", str(tmp_path), "--tracking-uri", uri]) == 0
        assert words in capsys.readouterr().out
