"""Prediction: what a model says of a bag does not depend on what else is predicted with it."""

import dataclasses

import numpy as np
import pytest
import torch

from d2l_study.data.pool import Bags
from d2l_study.learning import prediction
from d2l_study.learning.config import POOLINGS
from d2l_study.learning.prediction import Compute, Normalise, chunk_size, predict_bags
from d2l_study.learning.teacher_model import teacher_model


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("chunk", [3, 500])
def test_predictions_equal_classifying_every_bag_on_its_own(make_replicate, tiny, monkeypatch, pooling, chunk):
    monkeypatch.setattr(prediction, "CHUNK", chunk)
    replicate = make_replicate(0, test=9)
    model = teacher_model(dataclasses.replace(tiny, pooling=pooling), replicate)
    params = model.init(np.random.default_rng(0))
    normalise = Normalise.of(replicate, Compute())
    sets = [replicate.val, replicate.test, replicate.test_instances]
    found = predict_bags(model, params, replicate.pool, sets, normalise, Compute())
    for bags, logits in zip(sets, found, strict=True):
        assert logits.shape == (len(bags),) and logits.dtype == np.float32
        for b in range(len(bags)):
            x = normalise(replicate.pool.instances[bags.instance[bags.offsets[b] : bags.offsets[b + 1]]])
            expected = model.logits(params, x, torch.zeros(len(x), dtype=torch.int64), 1).item()
            assert logits[b] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_of_large_patches_fewer_go_through_at_a_time():
    shapes = {(1, 28, 28): 500, (3, 64, 64): 500, (1024,): 500, (3, 224, 224): 40, (3, 9000, 9000): 1}
    assert {shape: chunk_size(shape) for shape in shapes} == shapes
    assert chunk_size((3, 224, 224), 16_384) == 1337


def test_every_instance_goes_through_the_extractor_once(make_replicate, tiny, monkeypatch):
    """Bags share instances, within a set and between sets."""
    replicate = make_replicate(0)
    model = teacher_model(tiny, replicate)
    seen = []
    terms = type(model).terms

    def counted(self, params, x, *more):
        seen.append(len(x))
        return terms(self, params, x, *more)

    monkeypatch.setattr(type(model), "terms", counted)
    repeated = Bags(np.array([0, 3, 6]), np.array([5, 5, 6, 6, 7, 5]), np.zeros(2, np.int8), np.zeros(6, np.int8))
    alone = Bags.of_one(np.array([7, 8]), np.zeros(2, np.int8))
    params = model.init(np.random.default_rng(0))
    normalise = Normalise.of(replicate, Compute())
    bags, ones = predict_bags(model, params, replicate.pool, [repeated, alone], normalise, Compute())
    assert sum(seen) == 4 and bags.shape == ones.shape == (2,)


def test_normalisation_is_per_channel():
    normalise = Normalise(torch.tensor([0.5, 0.25]).view(-1, 1, 1), torch.tensor([0.5, 0.125]).view(-1, 1, 1))
    patches = np.array([0, 255], np.uint8).reshape(1, 2, 1, 1)
    assert normalise(patches).flatten().tolist() == [-1.0, 6.0]
