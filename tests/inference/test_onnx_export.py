"""ONNX files, run by onnxruntime, give the model's logits for bags of any size."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnxscript import opset18 as op

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


@pytest.mark.slow
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


@pytest.mark.parametrize("pooling", ["instance_mean", "noisy_or"])
def test_instances_far_from_those_of_training_have_finite_logits(pooling, tmp_path):
    stored = stored_model("none", pooling, (6,))
    stored.params["classifier.weight"].copy_(torch.tensor([[-1.0, 0, 0, 0, 0, 0]]))
    bag = np.tile(np.float32([60, 0, 0, 0, 0, 0]), (4, 1)) * np.arange(1, 5, dtype=np.float32)[:, None]
    export_onnx(stored, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / FILE, providers=["CPUExecutionProvider"])
    (of_bag,) = session.run(["bag_logit"], {"instances": bag})
    assert LoadedModel(stored).score_bag([bag]).bag_logit < -200
    np.testing.assert_allclose(of_bag, [LoadedModel(stored).score_bag([bag]).bag_logit], rtol=1e-5)


def test_a_file_without_finite_logits_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "_log_sigmoid", lambda x: op.Log(op.Sigmoid(x)))
    with pytest.raises(UserError, match="no finite logits of instances far from those of training"):
        export_onnx(stored_model("mlp", "instance_mean", (24,)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="not kept"):
        export_onnx(stored_model("none", "attention", (4,)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnxscript: pip install 'd2l-study\[export\]'"):
        export_onnx(stored_model("none", "attention", (4,)), tmp_path)
