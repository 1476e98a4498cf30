"""A trained model, exported: its folder scores as its run did and says what it was trained on; mistakes get a line."""

import io
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from few_digits import digits
from make_trial_request import train_kept_model

import d2l_study
from d2l_study import cli
from d2l_study.data import FeatureBags, MnistBags
from d2l_study.data.fingerprint import find_shared, training_marks
from d2l_study.errors import UserError
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import CARD, MODEL, README, ModelRecord, read_model_folder, write_model_folder
from d2l_study.learning import TeacherConfig
from d2l_study.learning.thresholds import separating_threshold
from d2l_study.models import MilModel
from d2l_study.study.commands.export import _resolution
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import PREDICTIONS
from d2l_study.study.trial.model_reference import find_models

MUSK = FeatureBags(path="musk1", folds=5)
DIGITS = MnistBags(num_bags=8, mean_bag_size=4, test_bags=10, root=str(digits()), verify=False)
HIDDEN = ("ray", "mlflow", "optuna", "cmaes", "pandas", "pyarrow", "yaml", "rich", "scipy", "matplotlib", "PIL", "h5py",
          "openpyxl", "openslide", "tifffile", "imagecodecs", "skimage", "shapely", "analysis")  # fmt: skip
"""What a full installation has beside torch, numpy and safetensors."""
TEACHER = {"steps": 20, "eval_every": 5, "feature_width": 16}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two replicates of a teacher on MUSK1, and one on digits."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("runs")
    for replicate in (0, 1):
        train_kept_model(place, "ab" * 10, MUSK.resolved(), teacher=TeacherConfig(extractor="mlp", **TEACHER),
                         replicate=replicate)  # fmt: skip
    train_kept_model(place, "cd" * 10, DIGITS.resolved(), teacher=TeacherConfig(**TEACHER))
    return place


def export(root, run, *words):
    return cli.main(["export", "--run", run, "--root", str(root), *map(str, words)])


def test_the_folder_scores_as_the_run_did(root, tmp_path, capsys):
    assert export(root, "abab", "--to", tmp_path / "model", "--replicate", "1") == 0
    assert "d2l_study.load" in capsys.readouterr().out
    model = d2l_study.load(tmp_path / "model")
    pool = MUSK.load_pool()
    test = MUSK.replicate(pool, 1, 5).test
    bags = [pool.instances[test.instance[a:b]] for a, b in zip(test.offsets, test.offsets[1:], strict=False)]
    ledger = Ledger(LocalStorage(root))
    rows = pq.read_table(io.BytesIO(ledger.read_file("ab" * 10, 1, PREDICTIONS))).to_pandas()
    expected = rows[(rows.split == "test") & (rows.level == "bag")].logit
    np.testing.assert_allclose(model.bag_logits(bags), expected, atol=1e-5)
    chosen = rows[(rows.split == "val") & (rows.level == "bag")]
    assert model.bag_threshold == separating_threshold(chosen.logit.to_numpy(float), chosen.seen_label.to_numpy() == 1)
    np.testing.assert_array_equal(d2l_study.load("abab", root=root).shape, model.shape)


def test_the_card_says_what_it_was_trained_on(root, tmp_path):
    export(root, "abab", "--to", tmp_path, "--replicate", "0")
    _, record = read_model_folder(tmp_path)
    pool = MUSK.load_pool()
    replicate = MUSK.replicate(pool, 0, 5)
    assert record.trained_on == training_marks(replicate)
    shared = find_shared(record.trained_on, pool)
    seen = {pool.names[b] for bags in (replicate.train, replicate.val) for b in bags.number}
    assert set(shared.content) == seen
    assert record.metrics["bag_auc"].count == 2
    assert (record.counts["train_bags"], record.counts["val_bags"]) == (len(replicate.train), len(replicate.val))
    rows = [Ledger(LocalStorage(root)).read("ab" * 10, r)["row"]["bag_auc"] for r in (0, 1)]
    assert record.metrics["bag_auc"].value == rows[0]
    assert record.metrics["bag_auc"].mean == pytest.approx(np.mean(rows))
    # Two values so far apart bear no interval that would say anything.
    assert np.isnan([record.metrics["bag_auc"].lower, record.metrics["bag_auc"].upper]).all()
    text = (tmp_path / README).read_text()
    assert f"{rows[0]:.3f}" in text and "(n = 2)" in text and "166 dimensions" in text
    names = {*pool.names, *pool.group_names}
    assert not any(name in (tmp_path / CARD).read_text() for name in names if len(name) > 4)


@pytest.mark.parametrize("given", [".", "./", "../here"])
def test_the_folder_at_work_has_its_name(root, tmp_path, monkeypatch, given):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export(root, "abab", "--to", given, "--replicate", "0") == 0
    assert 'd2l_study.load("here")' in (tmp_path / "here" / README).read_text()
    assert find_models(given, str(root), None, None)[0].loaded.name == "here"


def test_drawn_bags_are_marked_by_their_instances(root, tmp_path):
    export(root, "cdcd", "--to", tmp_path)
    _, record = read_model_folder(tmp_path)
    replicate = DIGITS.replicate(DIGITS.load_pool(), 0, 5)
    drawn = np.unique(np.concatenate([replicate.train.instance, replicate.val.instance]))
    assert record.trained_on is not None and len(record.trained_on.instances) == len(drawn)


def test_a_folder_is_loaded_with_the_packages_of_its_card_alone(root, tmp_path):
    """Whatever else this environment has is hidden, as it may be missing where the folder travels to."""
    export(root, "abab", "--to", tmp_path / "m", "--replicate", "0")
    program = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"hidden: {{name}}")

sys.meta_path.insert(0, Hidden())
import numpy as np
import d2l_study
model = d2l_study.load({str(tmp_path / "m")!r})
print(model.predict_bags([np.ones((3, 166)), np.zeros((2, 166))]).tolist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = d2l_study.load(tmp_path / "m").predict_bags([np.ones((3, 166)), np.zeros((2, 166))])
    np.testing.assert_allclose(json.loads(done.stdout), ours, atol=1e-6)


def test_writing_again_replaces_the_same_model_and_nothing_else(root, tmp_path, capsys):
    place = tmp_path / "m"
    assert export(root, "abab", "--to", place, "--replicate", "0") == 0
    (place / README).write_text("our notes")
    assert export(root, "abab", "--to", place, "--replicate", "0", "--licence", "MIT") == 0
    assert (place / README).read_text() == "our notes" and "it was edited" in capsys.readouterr().out
    (place / README).unlink()
    assert export(root, "abab", "--to", place, "--replicate", "0") == 0
    assert (place / README).read_text().count("166 dimensions") == 1
    for words in (["abab", "--replicate", "1"], ["cdcd"]):
        assert export(root, words[0], "--to", place, *words[1:]) == 2
        assert "holds another model" in capsys.readouterr().err
    assert d2l_study.load(place).stored.card.replicate == 0
    assert d2l_study.load("abab", root=root, replicate=1).stored.card.replicate == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("")
    assert export(root, "cdcd", "--to", tmp_path / "other") == 2
    assert "thesis.tex" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "words"), [
    ("README.md", ["abab", "--replicate", "0", "--to", "other"]),
    ("model.safetensors", ["abab", "--replicate", "0", "--to", "other"]),
    ("config.json", ["tile", "--to", "wsinfer", "--out", "other", "--mpp", "0.5"]),
    ("config.json", ["abab", "--replicate", "0", "--to", "onnx", "--out", "other"]),
])  # fmt: skip
@pytest.mark.parametrize("more", [[], ["thesis.tex"]])
def test_files_of_others_are_not_replaced(root, tmp_path, monkeypatch, capsys, name, words, more):
    """A page or a configuration is in many folders that are no model's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    for there in (name, *more):
        (tmp_path / "other" / there).write_text("ours")
    run = words[0]
    if run == "tile":
        card = ModelCard("teacher", {}, (0.5,) * 3, (0.2,) * 3, "s", "ab" * 10, 0, 0.0)
        model = MilModel((3, 28, 28), "instance_mean", 8, 4)
        stored = StoredModel(model, model.init(np.random.default_rng(0)), card)
        (tmp_path / "tile").mkdir()
        write_model_folder(tmp_path / "tile", stored, ModelRecord(), "", {})
        run = "./tile"
    assert export(root, run, *words[1:]) == 2
    error = capsys.readouterr().err
    assert "other" in error and "name a new folder" in error
    assert {path.name: path.read_text() for path in (tmp_path / "other").iterdir()} == dict.fromkeys(
        (name, *more), "ours"
    )


def test_the_files_of_an_export_are_replaced_beside_others(root, tmp_path):
    words = ("abab", "--replicate", "0", "--to")
    for _ in range(2):
        assert export(root, *words, tmp_path / "m") == 0
        (tmp_path / "m" / "notes.txt").write_text("ours")
        assert export(root, *words, "onnx", "--out", tmp_path / "o") == 0
        (tmp_path / "o" / "notes.txt").write_text("ours")
    assert (tmp_path / "m" / "notes.txt").read_text() == "ours"


def test_a_model_of_a_folder_is_exported_on(root, tmp_path):
    export(root, "abab", "--to", tmp_path / "a", "--replicate", "0")
    assert cli.main(["export", "--run", str(tmp_path / "a"), "--to", str(tmp_path / "b")]) == 0
    card = [json.loads((tmp_path / name / CARD).read_text()) for name in "ab"]
    own = ("card_sha256", "readme_sha256")  # the page names its folder
    assert [{k: v for k, v in one.items() if k not in own} for one in card[:1]] == [
        {k: v for k, v in one.items() if k not in own} for one in card[1:]
    ]
    assert (tmp_path / "a" / MODEL).read_bytes() == (tmp_path / "b" / MODEL).read_bytes()


def test_onnx_by_the_command(root, tmp_path, capsys):
    assert export(root, "abab", "--to", "onnx", "--out", tmp_path / "o", "--replicate", "0") == 0
    assert "checked" in capsys.readouterr().out and (tmp_path / "o" / "model.onnx").is_file()


def test_the_resolution_of_patches_is_asked_for_where_the_data_do_not_say_it(root):
    stored = find_models("cdcd", str(root), None, None)[0].loaded.stored
    with pytest.raises(UserError, match="--mpp: the model's data do not say the resolution"):
        _resolution(SimpleNamespace(mpp=None), stored)
    assert _resolution(SimpleNamespace(mpp=0.5), stored) == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--run", "ffff", "--to", "x"], "no such trial"),
        (["--run", "./nothing", "--to", "x"], "no such folder"),
        (["--run", "abab", "--to", "wsinfer"], "needs --out"),
        (["--run", "abab", "--to", "wsinfer", "--out", "x", "--mpp", "0.5"], "feature vectors"),
        (["--run", "cdcd", "--to", "wsinfer", "--out", "x", "--mpp", "0.5"], "1×28×28"),
        (["--run", "cdcd", "--to", "wsinfer", "--out", "x"], "1×28×28"),  # whether at all comes before the resolution
        (["--run", "abab", "--to", "wsinfer", "--out", "x"], "feature vectors"),
        (["--run", "cdcd", "--to", "x", "--mpp", "0.5"], "is for --to wsinfer"),
        (["--run", "cdcd", "--to", "x", "--out", "y"], "--out y"),
        (["--run", "cdcd", "--to", "x", "--replicate", "7"], "--replicate 7"),
    ],
)
def test_wrong_words_are_answered_in_a_line(root, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "--root", str(root), *words]) == 2
    out = capsys.readouterr()
    assert said in out.err and "Traceback" not in out.err
    assert not list(tmp_path.iterdir())
