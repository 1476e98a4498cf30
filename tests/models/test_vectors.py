"""Extractors of instances that are vectors: `none`, and `mlp`."""

import numpy as np
import pytest
import torch

from d2l_study.models import POOLINGS, VECTOR_EXTRACTORS, MilModel
from d2l_study.models.extractors import feature_layer


def vectors(count=7, width=11):
    return torch.from_numpy(np.random.default_rng(3).normal(size=(count, width)).astype(np.float32))


def test_none_pools_the_vectors_themselves():
    model = MilModel((11,), "embedding_mean", 500, extractor="none")
    params = model.init(np.random.default_rng(0))
    assert set(params) == {"classifier.weight", "classifier.bias"}
    assert model.feature_width == 11
    x = vectors()
    expected = x.mean(0) @ params["classifier.weight"][0] + params["classifier.bias"][0]
    found = model.logits(params, x, torch.zeros(7, dtype=torch.int64), 1)
    torch.testing.assert_close(found, expected[None])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_is_linear_layers_with_relu(layers):
    model = MilModel((11,), "instance_max", 6, extractor="mlp", layers=layers)
    params = model.init(np.random.default_rng(0))
    names = [*(f"hidden{i}" for i in range(1, layers)), "fc"]
    assert {name.split(".")[0] for name in params} == {*names, "classifier"}
    network = torch.nn.Sequential(*(
        part for i, name in enumerate(names)
        for part in (torch.nn.Linear(11 if i == 0 else 6, 6), torch.nn.ReLU())
    ))  # fmt: skip
    for name, layer in zip(names, network[::2], strict=True):
        layer.weight.data, layer.bias.data = params[f"{name}.weight"], params[f"{name}.bias"]
    x = vectors()
    torch.testing.assert_close(feature_layer(params, model.maps(params, x)), network(x))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("extractor", VECTOR_EXTRACTORS)
def test_the_order_of_instances_makes_no_difference_to_a_bag(extractor, pooling):
    model = MilModel((11,), pooling, 6, 4, extractor)
    params = model.init(np.random.default_rng(0))
    x, bag = vectors(), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    mixed = torch.tensor([2, 0, 1, 6, 5, 3, 4])
    torch.testing.assert_close(model.logits(params, x[mixed], bag, 2), model.logits(params, x, bag, 2))


def test_patches_are_no_vectors():
    with pytest.raises(ValueError):
        _ = MilModel((11,), extractor="mlp").patch_shape
