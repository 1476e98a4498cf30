"""Registered models: by a trial or a folder, once each; found again by alias, version and id; mistakes get a line."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from empty_store import empty_store
from few_digits import digits
from make_trial_request import train_kept_model

import d2l_study
from d2l_study import cli
from d2l_study.data import FeatureBags, MnistBags
from d2l_study.learning import TeacherConfig
from d2l_study.study.mlflow.address import client
from d2l_study.study.mlflow.store import StudyRuns
from d2l_study.study.trial.model_reference import find_models

MUSK = FeatureBags(path="musk1", folds=5)
DIGITS = MnistBags(num_bags=8, mean_bag_size=4, test_bags=10, root=str(digits()), verify=False)
TEACHER = {"steps": 20, "eval_every": 5, "feature_width": 16}
VECTORS, PATCHES = "ab" * 10, "cd" * 10


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two replicates of a teacher on MUSK1, and one on digits."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("runs")
    for replicate in (0, 1):
        train_kept_model(place, VECTORS, MUSK.resolved(), teacher=TeacherConfig(extractor="mlp", **TEACHER),
                         replicate=replicate)  # fmt: skip
    train_kept_model(place, PATCHES, DIGITS.resolved(), teacher=TeacherConfig(**TEACHER))
    return place


@pytest.fixture
def root(trained, tmp_path, tmp_path_factory):
    """They under a root of the test's own, with an empty store."""
    shutil.copytree(trained, tmp_path / "runs")
    shutil.copy(empty_store(tmp_path_factory), tmp_path / "runs" / "mlflow.db")
    return tmp_path / "runs"


def uri(root):
    return f"sqlite:///{root / 'mlflow.db'}"


def register(root, run, name, *words):
    return cli.main(["register", "--run", str(run), "--name", name, "--root", str(root), *words])


@pytest.mark.slow
def test_it_is_found_again_and_scores_as_its_trial(root, tmp_path, monkeypatch, capsys):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert register(root, "abab", "musk", "--alias", "champion", "--replicate", "1") == 0
    said = capsys.readouterr().out
    assert "version:  musk 1, new" in said and "alias:    champion\n" in said
    assert "uri:      models:/musk@champion" in said
    trial = d2l_study.load("abab", root=root)
    x = MUSK.load_pool().instances[np.arange(9)]
    expected = find_models("abab", root, 1)[0].loaded
    for reference in ("models:/musk@champion", "models:/musk/1"):
        (found,) = find_models(reference, root)
        np.testing.assert_array_equal(found.loaded.instance_logits(x), expected.instance_logits(x))
        assert (found.config_id, found.replicate, found.loaded.name) == (VECTORS, 1, reference)
        assert found.loaded.record.trained_on is not None and found.loaded.bag_threshold == expected.bag_threshold
    assert d2l_study.load("models:/musk@champion", root=root).shape == trial.shape

    code = "\n".join(line[10:] for line in said.splitlines() if line.startswith(("load:", "          model")))
    table = pd.DataFrame({"bag": list("aaabbbccc"), "instance": list(x)})
    table.to_pickle(root / "table.pkl")
    script = f"{code}\nimport pandas\nprint(model.predict(pandas.read_pickle({str(root / 'table.pkl')!r})).to_json())"
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = pd.read_json(io.StringIO(done.stdout.splitlines()[-1]))
    bags = rows[rows["level"] == "bag"]["logit"]
    np.testing.assert_allclose(bags, expected.bag_logits([x[:3], x[3:6], x[6:]]), rtol=0, atol=1e-5)
    assert not (root / "mlruns").exists() and not list(Path().iterdir())  # no store of MLflow's own choice


def test_the_same_model_is_one_version_and_the_alias_moves(root, capsys):
    assert register(root, "abab", "musk", "--alias", "champion", "--replicate", "0") == 0
    assert register(root, "abab", "musk", "--replicate", "1") == 0
    capsys.readouterr()
    assert register(root, "abab", "musk", "--alias", "champion", "--replicate", "1") == 0
    said = capsys.readouterr().out
    assert "version:  musk 2, which was this model already" in said and "champion, was on version 1" in said
    assert register(root, "abab", "musk", "--alias", "champion", "--replicate", "1") == 0
    assert "champion, as before" in capsys.readouterr().out
    store = client(uri(root))
    versions = {int(v.version): v.tags for v in store.search_model_versions("name = 'musk'")}
    assert sorted(versions) == [1, 2] and versions[2]["d2l.replicate"] == "1" and versions[2]["d2l.study"] == "s"
    assert 0 <= float(versions[2]["d2l.bag_auc"]) <= 1
    assert dict(store.get_registered_model("musk").aliases) == {"champion": 2}
    experiment = store.get_experiment_by_name("d2l models")
    assert len(store.search_logged_models([experiment.experiment_id])) == 2


def test_a_folder_is_the_model_that_it_was_exported_from(root, tmp_path, capsys):
    assert cli.main(["export", "--run", "cdcd", "--to", str(tmp_path / "ours"), "--root", str(root)]) == 0
    assert register(root, tmp_path / "ours", "digits") == 0
    assert register(root, "cdcd", "digits", "--alias", "best") == 0
    assert "digits 1, which was this model already" in capsys.readouterr().out
    assert register(root, "models:/digits@best", "other name") == 0
    assert "models:/other name/1" in capsys.readouterr().out
    assert find_models("models:/other name/1", root)[0].config_id == PATCHES


def test_it_is_an_output_of_the_run_of_its_configuration(root, capsys):
    runs = StudyRuns(uri(root), "s")
    runs.open()
    experiment = client(uri(root)).get_experiment_by_name("s").experiment_id
    run = client(uri(root)).create_run(experiment, tags={"d2l.study": "s", "d2l.config_id": VECTORS}, run_name="vat")
    assert register(root, "abab", "musk") == 0
    assert "as an output of the run 'vat'" in capsys.readouterr().out
    (model,) = client(uri(root)).search_logged_models([experiment])
    assert model.source_run_id == run.info.run_id and str(model.status) == "READY"
    outputs = client(uri(root)).get_run(run.info.run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == [model.model_id]
    assert find_models(f"models:/{model.model_id}", root)[0].config_id == VECTORS


def test_label_and_predict_take_references_and_folders(root, tmp_path, capsys):
    assert register(root, "abab", "musk", "--alias", "champion", "--replicate", "1") == 0
    assert cli.main(["export", "--run", "abab", "--to", str(tmp_path / "ours"), "--replicate", "1",
                     "--root", str(root)]) == 0  # fmt: skip
    ways = {"trial": ("abab", "--replicate", "1"), "alias": ("models:/musk@champion",), "folder": (tmp_path / "ours",)}
    scores = {}
    for name, (run, *words) in ways.items():
        out = tmp_path / name
        common = ["--run", str(run), "--root", str(root), *words]
        assert cli.main(["label", *common, "musk1", "--out", str(out)]) == 0
        assert cli.main(["predict", *common, "musk1", "--out", str(out / "predicted.parquet")]) == 0
        scores[name] = (pd.read_parquet(out / "scores.parquet"), pd.read_parquet(out / "predicted.parquet"))
    capsys.readouterr()
    for name in ("alias", "folder"):
        for own, expected in zip(scores[name], scores["trial"], strict=True):
            np.testing.assert_array_equal(own["logit"], expected["logit"])
        # what is known of the data set, the trial being under this root
        pd.testing.assert_series_equal(scores[name][0]["truth"], scores["trial"][0]["truth"])


def test_a_model_of_elsewhere_labels_without_its_study(root, tmp_path, capsys):
    assert cli.main(["export", "--run", "abab", "--to", str(tmp_path / "ours"), "--root", str(root)]) == 0
    words = ["--run", str(tmp_path / "ours"), "--root", str(tmp_path / "none"), "musk1", "--out", str(tmp_path / "out")]
    assert cli.main(["label", *words]) == 0
    assert len(pd.read_parquet(tmp_path / "out" / "scores.parquet")) == len(MUSK.load_pool().instances)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("models:/mask@champion", "no registered model 'mask'; did you mean 'musk'?; registered are foreign, musk"),
        ("models:/musk@champ", "'musk' has no alias 'champ'; did you mean 'champion'?; its aliases are champion"),
        ("models:/musk/7", "'musk' has no version 7; its versions are 1"),
        ("models:/musk", "expected models:/NAME@ALIAS, models:/NAME/VERSION"),
        ("models:/musk/one", "expected models:/NAME@ALIAS, models:/NAME/VERSION"),
        ("models:/@x", "expected models:/NAME@ALIAS, models:/NAME/VERSION"),
        ("models:/m-" + "0" * 32, "there is no such model in the MLflow store"),
        ("models:/foreign/1", "no model of this program"),
    ],
)
def test_a_reference_to_nothing_gets_a_line(root, reference, said, capsys):
    assert register(root, "abab", "musk", "--alias", "champion") == 0
    foreign(root)
    capsys.readouterr()
    for words in (["label", "musk1", "--out", str(root / "out")], ["export", "--to", str(root / "out")],
                  ["register", "--name", "new"]):  # fmt: skip
        assert cli.main([words[0], "--run", reference, "--root", str(root), *words[1:]]) == 2
        found = capsys.readouterr()
        assert said in found.err and found.err.count("\n") == 1 and reference in found.err


def foreign(root):
    """A registered model that is none of ours."""
    store = client(uri(root))
    experiment = store.create_experiment("foreign", artifact_location=(root / "foreign").as_uri())
    run = store.create_run(experiment).info
    model = store.create_logged_model(experiment, name="theirs", source_run_id=run.run_id)
    (root / "theirs.txt").write_text("theirs")
    store.log_model_artifact(model.model_id, str(root / "theirs.txt"))
    store.finalize_logged_model(model.model_id, "READY")
    store.create_registered_model("foreign")
    store.create_model_version("foreign", source=model.artifact_location, run_id=run.run_id, model_id=model.model_id)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--name", "a/b"], "--name 'a/b': not allowed"),
        (["--name", " "], "--name ' ': not allowed"),
        (["--name", "a", "--alias", "v3"], "--alias 'v3': not allowed"),
        (["--name", "a", "--alias", "Latest"], "--alias 'Latest': not allowed"),
        (["--name", "a", "--alias", "the best"], "--alias 'the best': not allowed"),
        (["--name", "a", "--replicate", "7"], "--replicate 7"),
    ],
)
def test_a_wrong_option_gets_a_line_and_nothing_is_made(root, words, said, capsys):
    assert cli.main(["register", "--run", "abab", "--root", str(root), *words]) == 2
    found = capsys.readouterr()
    assert said in found.err and found.err.count("\n") == 1
    assert not client(uri(root)).search_registered_models()


def test_no_store_is_made_to_look_for_a_model(trained, tmp_path, capsys):
    assert cli.main(["export", "--run", "models:/musk/1", "--root", str(tmp_path), "--to", str(tmp_path / "o")]) == 2
    assert "there is no MLflow store" in capsys.readouterr().err and not (tmp_path / "mlflow.db").exists()


def test_altered_files_of_a_registered_model_are_refused(root, capsys):
    assert register(root, "abab", "musk", "--alias", "champion") == 0
    (card,) = root.rglob("artifacts/model/card.json")
    card.write_bytes(card.read_bytes().replace(b"teacher", b"student", 1))
    capsys.readouterr()
    assert cli.main(["export", "--run", "models:/musk/1", "--root", str(root), "--to", str(root / "out")]) == 2
    assert "was altered after saving" in capsys.readouterr().err
