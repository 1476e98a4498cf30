"""A stored model: what comes back, and what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from d2l_study.errors import UserError
from d2l_study.inference.model_file import METADATA, ModelCard, from_bytes, to_bytes
from d2l_study.models import MilModel

SECTIONS = {"data": {"dataset": "mnist", "num_bags": 50}, "student": {"temperature": 2.0}}


def card(**values):
    given = {
        "stage": "student", "sections": SECTIONS, "mean": (0.13,), "std": (0.31,), "study": "distill",
        "config_id": "ab" * 10, "replicate": 3, "instance_threshold": 1.5,
    }  # fmt: skip
    return ModelCard(**{**given, **values})


def network(extractor="lenet", pooling="instance_max", shape=(1, 20, 18), layers=1):
    model = MilModel(shape, pooling, feature_width=12, attention_width=7, extractor=extractor, layers=layers)
    params = model.init(np.random.default_rng(5))
    # as in training: convolutions in channels-last memory, leaves that require gradients
    return model, {
        name: value.contiguous(memory_format=torch.channels_last if value.dim() == 4 else torch.contiguous_format)
        .clone().requires_grad_(True)
        for name, value in params.items()
    }  # fmt: skip


def logits(model, params, shape):
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(9, *shape)).astype(np.float32))
    x = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    with torch.no_grad():
        return model.logits(params, x, torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2]), 3)


@pytest.mark.parametrize(
    ("extractor", "pooling", "shape"),
    [
        ("lenet", "instance_max", (1, 20, 18)),
        ("lenet_wide", "noisy_or", (1, 28, 28)),
        ("resnet", "gated_attention", (3, 17, 17)),
        ("lenet", "attention", (3, 27, 27)),
        ("lenet", "embedding_max", (1, 16, 16)),
        ("lenet_histology", "attention", (3, 27, 27)),
        ("none", "attention", (1300,)),
        ("mlp", "gated_attention", (30,)),
    ],
)
def test_a_model_comes_back_bit_for_bit(extractor, pooling, shape):
    model, params = network(extractor, pooling, shape)
    mean, std = np.full(shape[0], 0.2), np.full(shape[0], 0.4)
    stored = from_bytes(to_bytes(model, params, card(mean=mean, std=std)))
    assert stored.model == model
    assert torch.equal(logits(model, params, shape), logits(stored.model, stored.params, shape))
    assert stored.card == card(mean=(0.2,) * shape[0], std=(0.4,) * shape[0])
    assert not any(value.requires_grad for value in stored.params.values())


def test_a_network_of_several_layers_comes_back():
    model, params = network("mlp", "attention", (30,), layers=3)
    stored = from_bytes(to_bytes(model, params, card(mean=np.zeros(30), std=np.ones(30))))
    assert stored.model == model
    assert torch.equal(logits(stored.model, stored.params, (30,)), logits(model, params, (30,)))


def test_a_model_of_vectors_says_what_made_them_and_may_have_dimensions_that_hardly_vary():
    model, params = network("mlp", "attention", (3,))
    given = card(mean=(0.0, 1e9, 1.0), std=(1e-9, 1.0, 1e9), encoder="uni_v1", tiles="256 px at 20×")
    assert from_bytes(to_bytes(model, params, given)).card == given
    patches, of_patches = network()
    assert not {b"encoder", b"tiles"} & set(to_bytes(patches, of_patches, card()).split(b'\\"'))


def test_the_same_model_gives_the_same_bytes():
    assert to_bytes(*network(), card()) == to_bytes(*network(), card())


def test_a_threshold_that_was_not_set_is_none():
    assert from_bytes(to_bytes(*network(), card(instance_threshold=float("nan")))).card.instance_threshold is None
    assert from_bytes(to_bytes(*network(), card(instance_threshold=None))).card.instance_threshold is None


def test_a_stage_without_weights_of_its_own_has_no_model_file():
    with pytest.raises(UserError, match="attention"):
        card(stage="attention")


class Payload:
    """Leaves a mark if it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_pickle_under_the_name_of_a_model_is_refused_and_not_executed(tmp_path):
    mark = tmp_path / "executed"
    for name, data in {"plain": pickle.dumps(Payload(mark)), "torch": torch_file(tmp_path, Payload(mark))}.items():
        with pytest.raises(UserError, match=rf"{name}\.safetensors: not a readable safetensors file"):
            from_bytes(data, f"{name}.safetensors")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()  # it would have


def torch_file(folder, value):
    torch.save(value, folder / "model.pt")
    return (folder / "model.pt").read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 200, 2000, -1])
def test_a_truncated_file_is_named(keep):
    data = to_bytes(*network(), card())
    with pytest.raises(UserError, match=r"w\.safetensors: not a readable safetensors file"):
        from_bytes(data[:keep], "w.safetensors")


def test_the_safetensors_of_another_program_are_refused():
    with pytest.raises(UserError, match=r"other\.safetensors: .*without the metadata"):
        from_bytes(save({"fc.weight": torch.zeros(2, 2)}), "other.safetensors")


def changed(tensors=None, drop=(), **content):
    """A stored model's bytes after somebody's hand."""
    data = to_bytes(*network(), card())
    size = int.from_bytes(data[:8], "little")
    meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][METADATA])
    network_changes = content.pop("network", {})
    meta |= content
    meta["network"] |= network_changes
    kept = {name: value for name, value in load(data).items() if name not in drop} | (tensors or {})
    return save(kept, metadata={METADATA: json.dumps(meta)})


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '"', "[]", "null"])
def test_metadata_that_are_no_card_are_refused(text):
    data = save(load(to_bytes(*network(), card())), metadata={METADATA: text})
    with pytest.raises(UserError, match=r"w\.safetensors: .*d2l_study\.model"):
        from_bytes(data, "w.safetensors")


@pytest.mark.parametrize("size", [2**63, 2**64 - 1, 10**8 + 1])
def test_a_header_that_claims_to_be_huge_is_refused(size):
    data = to_bytes(*network(), card())
    with pytest.raises(UserError, match="not a readable safetensors file"):
        from_bytes(size.to_bytes(8, "little") + data[8:], "w.safetensors")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"drop": ("conv2.bias", "classifier.bias")}, ["lacks classifier.bias, conv2.bias", "expected"]),
        ({"tensors": {"extra": torch.zeros(2)}}, ["has extra too"]),
        ({"tensors": {"conv1.weight": torch.zeros(20, 3, 5, 5)}}, ["conv1.weight", "20×3×5×5", "20×1×5×5"]),
        ({"tensors": {"fc.weight": torch.zeros(12, 99)}}, ["fc.weight", "12×99", "expected 12×100"]),
        ({"tensors": {"fc.bias": torch.zeros(12, dtype=torch.float16)}}, ["fc.bias", "float16", "float32"]),
        ({"tensors": {"fc.bias": torch.full((12,), torch.nan)}}, ["fc.bias", "not finite"]),
        ({"network": {"pooling": "attention"}}, ["lacks attention.V.bias", "attention pooling"]),
        ({"network": {"pooling": "median"}}, ["network.pooling", "'median'", "attention"]),
        ({"network": {"shape": [1, 9, 9]}}, ["16×16", "9×9"]),
        ({"network": {"shape": [1, 28]}}, ["network.shape", "3 numbers"]),
        ({"network": {"shape": [1, 28, 100_000]}}, ["network.shape", "1024"]),
        ({"network": {"feature_width": 8192}}, ["fc.weight", "found 12×100", "expected 8192×100"]),
        ({"network": {"feature_width": "12"}}, ["network.feature_width", "'12'", "whole number"]),
        ({"mean": [0.1, 0.1]}, ["mean", "1 numbers"]),
        ({"std": [0.0]}, ["std", "> 0"]),
        ({"std": [1e-30]}, ["std", "from 1e-06"]),  # a float32 of what it divides would not be finite
        ({"mean": [1e12]}, ["mean", "up to 1e+06"]),
        ({"mean": [10**400]}, ["mean", "a number"]),
        ({"instance_threshold": -(10**400)}, ["instance_threshold", "a number"]),
        ({"network": {"shape": [1, 28, 10**400]}}, ["network.shape", "a number"]),
        ({"network": {"attention_width": 10**400}}, ["network.attention_width", "whole number"]),
        ({"stage": "critic"}, ["stage", "'critic'", "student"]),
        ({"sections": [1]}, ["sections"]),
        ({"instance_threshold": "high"}, ["instance_threshold", "a number"]),
        ({"format": 2}, ["format 2", "newer"]),
    ],
)
def test_a_file_that_does_not_fit_together_says_where(change, words):
    with pytest.raises(UserError) as caught:
        from_bytes(changed(**change), "runs/w.safetensors")
    message = str(caught.value)
    assert message.startswith("runs/w.safetensors: ")
    for word in words:
        assert word in message
