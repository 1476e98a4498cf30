"""WSInfer's own runner, on a slide, gives the scores that our model gives the same patches."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from slides.make_slides import aperio_slide, tissue

from d2l_study.errors import UserError
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.wsinfer_export import CONFIG, MODEL, check_wsinfer, export_wsinfer
from d2l_study.models import EXTRACTORS, PATCH_EXTRACTORS, MilModel
from d2l_study.slides.opening import open_slide
from d2l_study.slides.resolution import PatchReader

SIDE, MPP = 64, 0.5
CLASSES = ("stroma", "tumour")


def patch_model(extractor="lenet_histology", pooling="instance_max", shape=(3, SIDE, SIDE)):
    network = MilModel(shape, pooling, 16, 8, extractor)
    params = {name: 3 * value for name, value in network.init(np.random.default_rng(4)).items()}  # scores that differ
    card = ModelCard("student", {"data": {"mpp": MPP}}, (0.7, 0.5, 0.6), (0.2, 0.25, 0.15), "s", "ab" * 10, 0, 0.0)
    return StoredModel(network, params, card)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("wsinfer") is None, reason="wsinfer is not installed")
def test_the_runner_of_wsinfer_gives_our_scores(tmp_path):
    stored = patch_model()
    (tmp_path / "model").mkdir()
    export_wsinfer(stored, tmp_path / "model", MPP, CLASSES)
    (tmp_path / "slides").mkdir()
    aperio_slide(tmp_path / "slides" / "a.svs", tissue(), mpp=MPP)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("wsinfer_run.py"), tmp_path / "slides", tmp_path / "results",
         tmp_path / "model" / MODEL, tmp_path / "model" / CONFIG],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = pd.read_csv(tmp_path / "results" / "model-outputs-csv" / "a.csv")
    assert len(found) > 20 and set(found.width) == {SIDE}
    with open_slide(tmp_path / "slides" / "a.svs", None) as slide:
        patches = PatchReader(slide, MPP, SIDE).read(found[["minx", "miny"]].to_numpy()).transpose(0, 3, 1, 2)
    ours = LoadedModel(stored).predict_instances(np.ascontiguousarray(patches))
    assert np.ptp(ours) > 0.1
    np.testing.assert_allclose(found["prob_tumour"], ours, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["prob_stroma"], 1 - ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("extractor", PATCH_EXTRACTORS)
def test_every_network_is_written(tmp_path, extractor):
    stored = patch_model(extractor, "attention" if extractor == "lenet" else "noisy_or")
    assert export_wsinfer(stored, tmp_path, MPP, CLASSES) < 1e-5
    script = torch.jit.load(str(tmp_path / MODEL))
    assert script(torch.zeros(3, 3, SIDE, SIDE)).shape == (3, 2)
    assert EXTRACTORS[extractor].dims == 3


def test_the_configuration_is_as_specified(tmp_path):
    export_wsinfer(patch_model(), tmp_path, 0.55, CLASSES)
    found = json.loads((tmp_path / CONFIG).read_text())
    assert found["spec_version"] == "1.0" and found["class_names"] == ["stroma", "tumour"]
    assert (found["num_classes"], found["patch_size_pixels"], found["spacing_um_px"]) == (2, SIDE, 0.55)
    names = [step["name"] for step in found["transform"]]
    assert names == ["Resize", "ToTensor", "Normalize"]
    assert found["transform"][2]["arguments"] == {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.25, 0.15]}


@pytest.mark.parametrize(
    ("stored", "classes", "said"),
    [
        (lambda: patch_model(shape=(1, SIDE, SIDE)), CLASSES, "1×64×64"),
        (lambda: patch_model(shape=(3, SIDE, 32)), CLASSES, "3×64×32"),
        (patch_model, ("a", "a"), "two different names"),
        (patch_model, ("", "a"), "two different names"),
    ],
)
def test_what_wsinfer_cannot_use_is_answered(stored, classes, said):
    with pytest.raises(UserError, match=said):
        check_wsinfer(stored(), classes)


def test_a_model_of_vectors_is_answered():
    network = MilModel((8,), extractor="none")
    card = ModelCard("teacher", {"data": {}}, np.zeros(8), np.ones(8), "s", "ab" * 10, 0)
    with pytest.raises(UserError, match="feature vectors of 8 dimensions"):
        check_wsinfer(StoredModel(network, network.init(np.random.default_rng(0)), card), CLASSES)
