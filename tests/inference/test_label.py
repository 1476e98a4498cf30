"""Labels of instances are the model's, whatever way they were given, and the file holds them whole."""

import io
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from make_trial_request import train_kept_model
from PIL import Image

from d2l_study import cli
from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.inference import inputs as inputs_module
from d2l_study.inference.inputs import open_inputs
from d2l_study.inference.label import label_inputs, label_instances
from d2l_study.inference.model_file import ModelCard, from_bytes, to_bytes
from d2l_study.learning import TeacherConfig
from d2l_study.learning.metrics import probability
from d2l_study.models import MilModel
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder

SHAPE = (1, 16, 16)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def model(threshold=0.01, pooling="attention"):
    network = MilModel(SHAPE, pooling, 8, 4)
    params = network.init(np.random.default_rng(3))
    card = ModelCard("teacher", {"teacher": {}}, (0.2,), (0.5,), "s", "ab" * 10, 1, threshold)
    return from_bytes(to_bytes(network, params, card))


def patches(count=5):
    return np.random.default_rng(1).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def test_a_label_is_the_logit_of_the_bag_that_holds_the_instance_alone():
    stored = model()
    labels = label_instances(stored, patches())
    x = (torch.from_numpy(patches()).float() / 255 - 0.2) / 0.5
    alone = [stored.model.logits(stored.params, x[i : i + 1], torch.tensor([0]), 1).item() for i in range(5)]
    np.testing.assert_allclose(labels.logit, alone, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(labels.score, probability(labels.logit))


def test_the_threshold_is_a_logit_and_separates_what_lies_above_it():
    logit = label_instances(model(), patches(40)).logit
    middle = float(np.sort(logit)[20])
    assert np.array_equal(label_instances(model(middle), patches(40)).predicted, logit > middle)
    assert label_instances(model(None), patches()).predicted is None


def test_patches_of_another_shape_or_type_are_refused():
    for wrong in (patches()[:, :, :12], patches().astype(np.float32), patches()[0]):
        with pytest.raises(UserError, match=r"expected uint8 with \(n, 1, 16, 16\)"):
            label_instances(model(), wrong)


def test_the_file_holds_every_instance_once_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs_module, "PART_PATCHES", 6)
    np.save(tmp_path / "a.npy", patches(20))
    np.save(tmp_path / "b.npy", patches(3)[:, 0])
    names = [tmp_path / "a.npy", tmp_path / "b.npy"]
    summary = label_inputs(model(), open_inputs(names, SHAPE), tmp_path / "new" / "out")
    assert summary.path == tmp_path / "new" / "out" / "scores.parquet"
    frame = pd.read_parquet(summary.path)
    assert list(frame) == ["source", "index", "logit", "score", "predicted"]
    assert frame["source"].tolist() == [str(names[0])] * 20 + [str(names[1])] * 3
    assert frame["index"].tolist() == [*range(20), *range(3)]
    expected = label_instances(model(), np.concatenate([patches(20), patches(3)]))
    np.testing.assert_allclose(frame["logit"], expected.logit, rtol=1e-4, atol=1e-6)
    assert frame["predicted"].tolist() == (frame["logit"] > 0.01).astype(int).tolist()
    assert summary.count == 23 and summary.positive == frame["predicted"].sum()
    assert json.loads(pq.read_schema(summary.path).metadata[b"d2l_study.label"])["config_id"] == "ab" * 10


def test_without_a_threshold_the_column_is_null(tmp_path):
    np.save(tmp_path / "a.npy", patches())
    summary = label_inputs(model(None), open_inputs([tmp_path / "a.npy"], SHAPE), tmp_path)
    frame = pd.read_parquet(summary.path)
    assert frame["predicted"].isna().all() and frame["score"].notna().all() and summary.positive is None


def test_a_damaged_input_leaves_the_older_file_and_no_part(tmp_path):
    np.save(tmp_path / "a.npy", patches())
    Image.fromarray(patches(1)[0, 0]).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:150])
    out = tmp_path / "out"
    before = label_inputs(model(), open_inputs([tmp_path / "a.npy"], SHAPE), out).path.read_bytes()
    inputs = open_inputs([tmp_path / "a.npy", tmp_path / "b.png"], SHAPE)
    with pytest.raises(UserError, match=r"b\.png: cannot be read"):
        label_inputs(model(), inputs, out)
    assert [p.name for p in out.iterdir()] == ["scores.parquet"]
    assert (out / "scores.parquet").read_bytes() == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    np.save(tmp_path / "a.npy", patches())
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"--out .*out: cannot write"):
        label_inputs(model(), open_inputs([tmp_path / "a.npy"], SHAPE), tmp_path / "out")


# ---- the command, on a run that a study committed
CONFIG = "ab" * 10


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    data = MnistBags(num_bags=6, mean_bag_size=3, test_bags=20).resolved()
    config = TeacherConfig(steps=6, eval_every=2, feature_width=16)
    train_kept_model(folder, CONFIG, data, replicate=1, teacher=config)
    return folder


def test_the_command_gives_the_predictions_that_the_study_committed(root, tmp_path, capsys):
    ledger = StudyFolder(LocalStorage(root), "s").ledger
    frame = pd.read_parquet(io.BytesIO(ledger.read_file(CONFIG, 1, "predictions.parquet")))
    committed = frame[(frame["split"] == "test") & (frame["level"] == "instance")]
    pool = MnistBags().load_pool()
    np.save(tmp_path / "test.npy", pool.instances[committed["index"].to_numpy()][:600])
    words = ["label", "--run", "abab", str(tmp_path / "test.npy"), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--root", str(root)]) == 0
    scores = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    np.testing.assert_allclose(scores["logit"], committed["logit"][:600], atol=1e-5)
    threshold = ledger.read(CONFIG, 1)["row"]["instance_threshold"]
    assert scores["predicted"].tolist() == (scores["logit"] > threshold).astype(int).tolist()
    printed = capsys.readouterr().out
    assert "teacher ababababab of study s, replicate 1" in printed and "600 instances of 1×28×28" in printed
    assert str(tmp_path / "out" / "scores.parquet") in printed
    assert f"logit {threshold:.3f}" in printed and f"{scores['predicted'].sum():,} (" in printed


def test_a_mistake_is_one_message_and_exit_code_2(root, tmp_path, capsys):
    np.save(tmp_path / "small.npy", patches())
    words = [str(tmp_path / "small.npy"), "--out", str(tmp_path / "out"), "--root", str(root)]
    assert cli.main(["label", "--run", "cd", *words]) == 2
    assert "no such trial" in capsys.readouterr().err
    assert cli.main(["label", "--run", "ab", *words]) == 2
    error = capsys.readouterr().err
    assert "(5, 1, 16, 16)" in error and "(N, 1, 28, 28)" in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()
