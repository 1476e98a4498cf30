"""The models of a study in MLflow: one for each arm, the best by validation, made once, replaced, and taken away."""

import os
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from empty_store import empty_store
from make_study import make_study
from make_trial_request import train_kept_model
from mlflow_runs import everything, runs_of
from served_store import served

from d2l_study import cli
from d2l_study.data import FeatureBags
from d2l_study.learning import TeacherConfig
from d2l_study.study.commands import arm_models as arm_models_module
from d2l_study.study.commands.arm_models import arm_models
from d2l_study.study.commands.sync import sync_mlflow
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.tracker import Tracker
from d2l_study.study.trial.model_reference import find_models

MUSK = FeatureBags(path="musk1", folds=5)
CONFIGS = [f"{digit}{digit}" * 10 for digit in "abc"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Three configurations of two replicates each, with their weights; the ids by ascending validation AUC."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("runs")
    for config, steps in zip(CONFIGS, (2, 20, 60), strict=True):
        for replicate in (0, 1):
            teacher = TeacherConfig(extractor="mlp", feature_width=16, steps=steps, eval_every=steps)
            train_kept_model(place, config, MUSK.resolved(), replicate=replicate, teacher=teacher)
    ledger = StudyFolder(LocalStorage(place), "s").ledger
    means = {c: np.mean([ledger.row(c, r)["val_bag_auc"] for r in (0, 1)]) for c in CONFIGS}
    assert len(set(means.values())) == 3
    return place, sorted(CONFIGS, key=lambda c: means[c])


@pytest.fixture
def root(trained, tmp_path, tmp_path_factory):
    """They under a root of the test's own, with an empty store."""
    shutil.copytree(trained[0], tmp_path / "runs")
    shutil.copy(empty_store(tmp_path_factory), tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs"


def study(root, **arms):
    """The study `s` with these arms: name -> config_ids."""
    folder = StudyFolder(LocalStorage(root), "s")
    plan = [
        {"config_id": config, "stage": "teacher", "method": arm, "values": {"num_bags": 50, "steps": number},
         "varied": ["steps"], "replicates": [0, 1]}
        for arm, configs in arms.items() for number, config in enumerate(configs)
    ]  # fmt: skip
    folder.write("description: made for a test\n", {"space": {"description": "made for a test"}}, plan)
    return StudyFolder(LocalStorage(root), "s")


def uri(root):
    return f"sqlite:///{root / 'mlflow.db'}"


def models_of(address):
    store = client(address)
    found = store.search_logged_models([store.get_experiment_by_name("s").experiment_id])
    return {model.tags["d2l.config_id"]: model for model in found}


def folders(root):
    return sorted((root / "mlartifacts" / "s" / "models").glob("m-*"))


def test_each_arm_has_one_and_nothing_is_made_twice(root, trained):
    worst, middle, best = trained[1]
    folder = study(root, vat=[worst, best], none=[middle])
    sync_mlflow(folder, uri(root))
    models = models_of(uri(root))
    assert set(models) == {best, middle} and len(folders(root)) == 2
    for arm, config in (("vat", best), ("none", middle)):
        model, (run,) = models[config], runs_of(uri(root), "s")[1][config]
        assert model.source_run_id == run.info.run_id and model.tags["d2l.arms"] == f'["{arm}"]'
        (output,) = client(uri(root)).get_run(run.info.run_id).outputs.model_outputs
        assert output.model_id == model.model_id and model.params["method"] == arm
        (found,) = find_models(f"models:/{model.model_id}", root)
        (chosen,) = find_models(config, root)
        assert (found.config_id, found.replicate) == (config, chosen.replicate)
        x = MUSK.load_pool().instances[np.arange(5)]
        np.testing.assert_array_equal(found.loaded.instance_logits(x), chosen.loaded.instance_logits(x))
        assert found.loaded.bag_threshold == chosen.loaded.bag_threshold
    before = everything(uri(root), "s"), [(m.model_id, m.last_updated_timestamp) for m in models.values()]
    sync_mlflow(folder, uri(root))
    after = models_of(uri(root)).values()
    assert (everything(uri(root), "s"), [(m.model_id, m.last_updated_timestamp) for m in after]) == before


def test_a_better_configuration_takes_over_but_registered_models_stay(root, trained):
    worst, middle, best = trained[1]
    sync_mlflow(study(root, vat=[worst]), uri(root))
    sync_mlflow(study(root, vat=[worst, middle]), uri(root))
    assert set(models_of(uri(root))) == {middle} and len(folders(root)) == 1
    (old,) = models_of(uri(root)).values()
    store = client(uri(root))
    store.create_registered_model("kept")
    run = old.source_run_id
    store.create_model_version("kept", source=old.artifact_location, run_id=run, model_id=old.model_id)
    store.create_model_version("kept", source=f"{old.artifact_location}/", run_id=run, model_id=old.model_id)
    sync_mlflow(study(root, vat=[worst, middle, best]), uri(root))
    assert set(models_of(uri(root))) == {middle, best}
    assert find_models("models:/kept/1", root)[0].config_id == middle
    for version in ("1", "2"):
        store.delete_model_version("kept", version)
    sync_mlflow(study(root, vat=[worst, middle, best]), uri(root))
    assert set(models_of(uri(root))) == {best} and len(folders(root)) == 1


def test_more_replicates_make_the_model_anew(root, trained):
    config = trained[1][2]
    folder = study(root, vat=[config])
    plan = folder.plan()
    folder.write_plan([{**plan[0], "replicates": [0]}])
    sync_mlflow(folder, uri(root))
    (one,) = models_of(uri(root)).values()
    folder.write_plan(plan)
    sync_mlflow(folder, uri(root))
    (two,) = models_of(uri(root)).values()
    assert one.model_id != two.model_id and len(folders(root)) == 1


def test_an_arm_that_is_not_judged_yet_keeps_its_model(root, trained):
    config = trained[1][0]
    folder = study(root, vat=[config])
    sync_mlflow(folder, uri(root))
    (before,) = models_of(uri(root)).values()
    (entry,) = folder.plan()
    folder.write_plan([{**entry, "replicates": [0, 1, 2]}])  # the third is not trained
    sync_mlflow(folder, uri(root))
    assert [m.model_id for m in models_of(uri(root)).values()] == [before.model_id]


def test_weights_that_are_gone_keep_the_model_and_make_none(root, trained):
    worst, _, best = trained[1]
    folder = study(root, vat=[best], none=[worst])
    for replicate in (0, 1):
        folder.ledger.drop_file(worst, replicate, WEIGHTS)
    sync_mlflow(folder, uri(root))
    assert set(models_of(uri(root))) == {best}
    for replicate in (0, 1):
        folder.ledger.drop_file(best, replicate, WEIGHTS)
    sync_mlflow(folder, uri(root))
    assert set(models_of(uri(root))) == {best} and len(folders(root)) == 1


def test_a_model_left_unfinished_is_deleted_when_it_is_old(root, trained, monkeypatch):
    folder = study(root, vat=[trained[1][0]])
    sync_mlflow(folder, uri(root))
    store = client(uri(root))
    experiment = store.get_experiment_by_name("s").experiment_id
    left = store.create_logged_model(experiment, name="left", tags={"d2l.study": "s", "d2l.config_id": "left"})
    sync_mlflow(folder, uri(root))
    assert "left" in models_of(uri(root))  # somebody may be making it
    monkeypatch.setattr("d2l_study.study.mlflow.study_models.BEGUN_MS", -1)
    sync_mlflow(folder, uri(root))
    assert left.model_id not in [m.model_id for m in models_of(uri(root)).values()]


def track(root, address):
    """The end of a study as its driver writes it; the tracker, closed."""
    folder = StudyFolder(LocalStorage(root), "s")
    rows = folder.rows().to_dict("records")
    tracker = Tracker(address, "s", flush_seconds=0.02)
    tracker.start({}, {}, {})
    for entry in folder.plan():
        tracker.publish(folder, entry, [r for r in rows if r["config_id"] == entry["config_id"]], {}, {})
    tracker.keep_models(partial(arm_models, folder, rows))
    tracker.end("FINISHED", {})
    tracker.whole = tracker.close()
    return tracker


def test_a_study_ends_with_its_models_and_one_that_fails_is_said(root, trained, monkeypatch):
    worst, _, best = trained[1]
    folder = study(root, vat=[best], none=[worst])
    written = arm_models_module._write

    def fails_for_one(folder, config, target):
        if config == worst:
            raise OSError(28, "No space left on device")
        written(folder, config, target)

    monkeypatch.setattr(arm_models_module, "_write", fails_for_one)
    tracker = track(root, uri(root))
    assert not tracker.whole and "the model of none n=50 steps=0 could not be made" in tracker.problems
    assert "No space left on device" in tracker.problems
    parents, children = runs_of(uri(root), "s")
    assert [p.info.status for p in parents] == ["FINISHED"] and len(children) == 2
    assert set(models_of(uri(root))) == {best}
    monkeypatch.undo()
    sync_mlflow(folder, uri(root))
    assert set(models_of(uri(root))) == {best, worst}


@pytest.mark.slow
def test_removing_a_study_takes_its_models_but_registered_ones(root, trained, capsys):
    worst, _, best = trained[1]
    folder = study(root, vat=[best], none=[worst])
    sync_mlflow(folder, uri(root))
    words = ["--root", str(root)]
    assert cli.main(["register", "--run", best, "--name", "kept", "--alias", "champion", *words]) == 0
    assert len(folders(root)) == 2  # the one that did not say what it had seen was replaced
    capsys.readouterr()
    assert cli.main(["remove", "s", "--yes", *words]) == 0
    said = capsys.readouterr().out
    assert "3 runs of s deleted, with 1 model (" in said and "registered models stay, with their files: kept 1" in said
    assert len(folders(root)) == 1
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", uri(root)], capture_output=True, text=True,
        cwd=root, env={**os.environ, "MLFLOW_TRACKING_URI": uri(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert find_models("models:/kept@champion", root)[0].config_id == best
    client(uri(root)).delete_registered_model("kept")


def test_removing_a_study_without_registered_models_leaves_nothing(root, trained):
    sync_mlflow(study(root, vat=[trained[1][2]]), uri(root))
    assert cli.main(["remove", "s", "--yes", "--root", str(root)]) == 0
    assert client(uri(root)).get_experiment_by_name("s").lifecycle_stage == "deleted" and not folders(root)


def test_registering_the_best_trial_replaces_its_model_and_sync_agrees(root, trained):
    best = trained[1][2]
    folder = study(root, vat=[best])
    sync_mlflow(folder, uri(root))
    assert find_models(f"models:/{models_of(uri(root))[best].model_id}", root)[0].loaded.record.trained_on is None
    assert cli.main(["register", "--run", best[:8], "--name", "ours", "--root", str(root)]) == 0
    assert len(folders(root)) == 1
    assert find_models("models:/ours/1", root)[0].loaded.record.trained_on is not None
    (model,) = models_of(uri(root)).values()
    sync_mlflow(folder, uri(root))
    assert [m.model_id for m in models_of(uri(root)).values()] == [model.model_id]


def test_a_moved_root_takes_its_models_along(root, trained, tmp_path):
    best = trained[1][2]
    sync_mlflow(study(root, vat=[best]), uri(root))
    assert cli.main(["register", "--run", best, "--name", "ours", "--root", str(root)]) == 0
    moved = tmp_path / "else where"
    root.rename(moved)
    sync_mlflow(StudyFolder(LocalStorage(moved), "s"), uri(moved))
    assert find_models("models:/ours/1", moved)[0].config_id == best
    assert client(uri(moved)).get_model_version_download_uri("ours", "1").startswith(moved.as_uri())
    assert set(models_of(uri(moved))) == {best} and len(folders(moved)) == 1


@pytest.mark.slow
def test_the_server_of_ui_takes_gives_and_deletes_models(root, trained, tmp_path, monkeypatch, capsys):
    worst, middle, best = trained[1]
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    sync_mlflow(make_study(root, "kept", num_bags=(50,), bag_sizes=(10,), replicates=2), uri(root))
    files = root / "mlartifacts"
    with served(root, uri(root), "kept") as address:
        study(root, vat=[worst, middle])
        assert track(root, address).whole
        (old,) = models_of(address).values()
        assert old.artifact_location.startswith("mlflow-artifacts:") and old.tags["d2l.config_id"] == middle
        folder = study(root, vat=[worst, middle, best])
        sync_mlflow(folder, address)
        (model,) = models_of(address).values()
        assert model.tags["d2l.config_id"] == best and len(list(files.rglob("model.safetensors"))) == 1
        words = ["--root", str(tmp_path / "none"), "--tracking-uri", address]
        assert cli.main(["register", "--run", f"models:/{model.model_id}", "--name", "ours", "--alias", "champion",
                         *words]) == 0  # fmt: skip
        (found,) = find_models("models:/ours@champion", tmp_path / "none", tracking_uri=address)
        x = MUSK.load_pool().instances[np.arange(5)]
        expected = find_models(best, root)[0].loaded.instance_logits(x)
        np.testing.assert_array_equal(found.loaded.instance_logits(x), expected)
        capsys.readouterr()
        assert cli.main(["label", "--run", "models:/our/1", "musk1", "--out", str(tmp_path / "out"), *words]) == 2
        assert "no registered model 'our'; did you mean 'ours'?" in capsys.readouterr().err
        study(root, vat=[worst])
        assert cli.main(["remove", "s", "--yes", "--root", str(root), "--tracking-uri", address]) == 0
        assert "registered models stay" in capsys.readouterr().out
        assert find_models("models:/ours@champion", tmp_path / "none", tracking_uri=address)
