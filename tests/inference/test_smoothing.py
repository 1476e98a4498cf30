"""Logits averaged over neighbours, against loops; a map that is interrupted is smoothed once."""

import json

import feature_files as files
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from d2l_study.data import neighbours
from d2l_study.errors import UserError
from d2l_study.inference import score_checkpoint, smoothing
from d2l_study.inference.feature_inputs import open_feature_inputs
from d2l_study.inference.feature_label import label_features
from d2l_study.inference.image_labelling import ImageAnnotations, label_images
from d2l_study.inference.model_file import ModelCard, StoredModel, from_bytes, to_bytes
from d2l_study.inference.overlay import Places
from d2l_study.inference.smoothing import smoothed_map
from d2l_study.models import MilModel


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(smoothing, "_BAND", 40)
    monkeypatch.setattr(neighbours, "_QUERIED", 30)
    monkeypatch.setattr(score_checkpoint, "SAVE_SECONDS", -1.0)


def one_by_one(values, xy, count):
    """The mean of each with its nearest; no two distances from a place may be equal where the last is taken."""
    distance = np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1))
    return np.array([values[np.argsort(row)[: count + 1]].mean() for row in distance])


@pytest.mark.parametrize("shape", [(9, 11), (40, 3), (3, 40), (1, 7), (7, 1)])
def test_an_element_of_a_map_has_the_mean_of_its_block(shape):
    """8 neighbours of an inner element are those that touch it."""
    rng = np.random.default_rng(2)
    logits = rng.normal(size=shape).astype(np.float32)
    found = smoothed_map(logits, 8)
    assert found.shape == shape and found.dtype == np.float32
    for i in range(1, shape[0] - 1):
        for j in range(1, shape[1] - 1):
            assert found[i, j] == pytest.approx(logits[i - 1 : i + 2, j - 1 : j + 2].mean(), abs=1e-6)
    xy = np.stack(np.divmod(np.arange(logits.size), shape[1]), 1).astype(float)
    near = np.sort(np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)), axis=1)
    clear = near[:, min(8, logits.size - 1)] < (near[:, 9] if logits.size > 9 else np.inf)  # no tie for the last place
    np.testing.assert_allclose(found.reshape(-1)[clear], one_by_one(logits.reshape(-1), xy, 8)[clear], atol=1e-6)


def image_model():
    network = MilModel((3, 17, 17), "attention", 8, 4)
    card = ModelCard("teacher", {}, (0.5,) * 3, (0.2,) * 3, "s", "ab" * 10, 1, 0.0)
    return StoredModel(network, network.init(np.random.default_rng(3)), card)


def test_maps_and_true_instances_are_smoothed_and_only_once(tmp_path, monkeypatch):
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (61, 74, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    xy = np.random.default_rng(4).uniform(0, 60, (25, 2))
    known = ImageAnnotations(Places(xy, np.arange(25) % 2))

    def maps(out, smooth=0, progress=None):
        (made,) = label_images(
            image_model(), [tmp_path / "a.png"], tmp_path / out, 4, lambda path: known, None, progress, smooth
        )
        return np.load(made.path), pd.read_csv(tmp_path / out / "instances.csv")["logit"].to_numpy(), made

    raw, of_instances, _ = maps("raw")
    found, smoothed, _ = maps("smooth", 4)
    np.testing.assert_array_equal(found, smoothed_map(raw, 4))
    np.testing.assert_allclose(smoothed, one_by_one(of_instances, xy, 4), atol=1e-5)
    assert json.loads((tmp_path / "smooth/a.json").read_text())["logits"]["made_of"]["smooth"] == 4
    meaning = [json.loads((tmp_path / out / "a.json").read_text())["meaning"] for out in ("raw", "smooth")]
    assert meaning[1] == f"{meaning[0]}; {smoothing.smoothed_text(4)}"
    assert maps("smooth", 4)[2].again and not maps("smooth", 5)[2].again

    def fails(*arguments, **more):
        raise UserError("no room")

    with monkeypatch.context() as patch, pytest.raises(UserError, match="no room"):  # after scoring and smoothing
        patch.setattr("d2l_study.inference.image_labelling._picture", fails)
        maps("again", 4)
    assert (tmp_path / "again/a.logits.npy.part").exists()
    np.testing.assert_array_equal(maps("again", 4)[0], found)


WIDTH = 12


def vector_model():
    network = MilModel((WIDTH,), "attention", 8, 4, "mlp", 2)
    card = ModelCard("teacher", {"data": {}}, np.zeros(WIDTH), np.ones(WIDTH), "s", "ab" * 10, 1, 0.1, "uni_v1", "")
    return from_bytes(to_bytes(network, network.init(np.random.default_rng(3)), card))


def test_vectors_are_smoothed_within_their_slide_and_bags_stay(tmp_path):
    for i, count in enumerate((20, 9, 0, 1)):
        files.trident(tmp_path / "in", files.make_slide(f"s{i}", count, positive=True, seed=i))
    stored = vector_model()
    made = {}
    for name, smooth in (("raw", 0), ("smooth", 3)):
        label_features(stored, open_feature_inputs([tmp_path / "in"], stored), tmp_path / name, smooth=smooth)
        made[name] = pd.read_parquet(tmp_path / name / "scores.parquet")
    for slide, raw in made["raw"].groupby("slide"):
        mine = made["smooth"][made["smooth"]["slide"] == slide]["logit"].to_numpy()
        values, xy = raw["logit"].to_numpy(), raw[["x", "y"]].to_numpy(float)
        near = np.sort(np.hypot(*(xy[:, None] - xy[None]).transpose(2, 0, 1)), axis=1)
        clear = near[:, min(3, len(xy) - 1)] < (near[:, 4] if len(xy) > 4 else np.full(len(xy), np.inf))
        np.testing.assert_allclose(mine[clear], one_by_one(values, xy, 3)[clear], atol=1e-5)
        assert len(values) == 1 or not np.allclose(mine, values)
    assert (tmp_path / "raw/bags.csv").read_text() == (tmp_path / "smooth/bags.csv").read_text()
    about = pq.read_schema(tmp_path / "smooth/scores.parquet").metadata
    assert any(b'"smooth": 3' in value for value in about.values())


def test_vectors_without_places_have_no_neighbours(tmp_path):
    (tmp_path / "in").mkdir()
    torch.save(torch.randn(5, WIDTH), tmp_path / "in" / "a.pt")
    stored = vector_model()
    with pytest.raises(UserError, match=r"--smooth: .*a.pt: does not say where its vectors are"):
        label_features(stored, open_feature_inputs([tmp_path / "in"], stored), tmp_path / "out", smooth=3)
    assert not (tmp_path / "out").exists()
