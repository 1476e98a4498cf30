"""ONNX files, run by onnxruntime, give the model's logits for bags of any size."""

import numpy as np
import onnxruntime
import pytest

from d2l_study.errors import UserError
from d2l_study.inference import onnx_export
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.onnx_export import FILE, export_onnx, random_bag
from d2l_study.models import MilModel


def stored_model(extractor, pooling, shape, normalise="standard"):
    network = MilModel(shape, pooling, 16, 8, extractor)
    width = shape[0]
    card = ModelCard("teacher", {"data": {"normalise": normalise}}, np.linspace(0.2, 0.5, width),
                     np.linspace(0.1, 0.3, width), "s", "ab" * 10, 0, 0.0)  # fmt: skip
    return StoredModel(network, network.init(np.random.default_rng(4)), card)


@pytest.mark.parametrize(
    ("extractor", "pooling", "shape", "normalise"),
    [
        ("lenet", "attention", (1, 28, 28), "standard"),
        ("resnet", "noisy_or", (3, 32, 32), "standard"),
        ("lenet_histology", "embedding_max", (3, 27, 27), "standard"),
        ("mlp", "gated_attention", (24,), "standard"),
        ("mlp", "instance_mean", (24,), "length"),
        ("none", "attention", (24,), "none"),
    ],
)
def test_the_runtime_gives_our_logits(tmp_path, extractor, pooling, shape, normalise):
    stored = stored_model(extractor, pooling, shape, normalise)
    export_onnx(stored, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / FILE, providers=["CPUExecutionProvider"])
    model = LoadedModel(stored)
    for size in (1, 3, 650):
        bag = random_bag(stored, size, 99)
        instances, of_bag = session.run(["instance_logits", "bag_logit"], {"instances": bag})
        expected = model.score_bag([bag])
        np.testing.assert_allclose(instances, expected.instance_logits, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(of_bag, [expected.bag_logit], rtol=1e-5, atol=1e-5)


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="not kept"):
        export_onnx(stored_model("none", "attention", (4,)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript: pip install 'd2l-study\[export\]'"):
        export_onnx(stored_model("none", "attention", (4,)), tmp_path)
