"""A loaded model gives the scores that its training committed, whatever the pieces, and from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from d2l_study.data import MnistBags
from d2l_study.errors import UserError
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import Compute, Normalise, predict_bags
from d2l_study.models import POOLINGS, MilModel


@pytest.fixture(scope="module")
def replicate():
    data = MnistBags(num_bags=6, mean_bag_size=12, test_bags=8)
    return data.replicate(data.load_pool(), 0, 3)


def stored_model(replicate, pooling="attention"):
    model = MilModel((1, 28, 28), pooling, 16)
    params = model.init(np.random.default_rng(5))
    card = ModelCard("teacher", {"data": {}}, replicate.mean, replicate.std, "s", "ab" * 10, 0, 0.25)
    return StoredModel(model, params, card)


def bags_of(replicate):
    bags = replicate.test
    return [replicate.pool.instances[bags.instance[a:b]] for a, b in zip(bags.offsets, bags.offsets[1:], strict=False)]


@pytest.mark.parametrize("pooling", [*POOLINGS, "noisy_or"])
def test_scores_are_those_of_evaluation(replicate, pooling):
    stored = stored_model(replicate, pooling)
    model = LoadedModel(stored)
    compute = Compute()
    sets = [replicate.test, replicate.test.singles()]
    normalise = Normalise.of(replicate, compute)
    bag, single = predict_bags(stored.model, stored.params, replicate.pool, sets, normalise, compute)
    bags = bags_of(replicate)
    np.testing.assert_allclose(model.bag_logits(bags), bag, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.instance_logits(np.concatenate(bags)), single, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(model.predict_bags(bags), probability(model.bag_logits(bags)))
    np.testing.assert_array_equal(model.predict_instances(bags[0]), probability(model.instance_logits(bags[0])))


@pytest.mark.parametrize("pooling", ["attention", "embedding_max"])
def test_a_bag_in_parts_is_the_bag_whole(replicate, pooling):
    model = LoadedModel(stored_model(replicate, pooling))
    whole = np.concatenate(bags_of(replicate))
    seen = []
    found = model.score_bag([whole[:3], whole[3:3], whole[3:]], done=seen.append)
    expected = model.score_bag([whole])
    np.testing.assert_allclose(found.instance_logits, expected.instance_logits, atol=1e-5)
    assert found.bag_logit == pytest.approx(expected.bag_logit, abs=1e-5)
    assert seen == [3, len(whole)]


@pytest.mark.parametrize("pooling", ["attention", "embedding_max", "instance_mean"])
def test_bags_that_come_mixed_are_the_bags_alone(replicate, pooling):
    model = LoadedModel(stored_model(replicate, pooling))
    bags = bags_of(replicate)[:4]
    order = np.random.default_rng(0).permutation(sum(map(len, bags)))
    bag_of = np.repeat([0, 1, 3, 4], [len(bag) for bag in bags])[order]  # number 2 has no instance
    mixed = np.concatenate(bags)[order]
    logits, found = model.score_bags([mixed[:7], mixed[7:]], bag_of, 5)
    np.testing.assert_allclose(found[[0, 1, 3, 4]], model.bag_logits(bags), atol=1e-5)
    assert np.isnan(found[2])
    np.testing.assert_allclose(logits, model.instance_logits(mixed), atol=1e-5)


def test_threads_share_a_model(replicate):
    model = LoadedModel(stored_model(replicate))
    bags = bags_of(replicate) * 4
    alone = [model.bag_logits([bag])[0] for bag in bags]
    before = {name: value.clone() for name, value in model.stored.params.items()}
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda bag: model.bag_logits([bag])[0], bags))
    assert together == alone
    assert all(torch.equal(value, before[name]) for name, value in model.stored.params.items())


def test_an_empty_bag_has_no_score(replicate):
    model = LoadedModel(stored_model(replicate))
    bag = bags_of(replicate)[0]
    found = model.predict_bags([bag[:0], bag])
    assert np.isnan(found[0]) and np.isfinite(found[1])
    assert model.instance_logits(bag[:0]).shape == (0,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.astype(np.float32), "levels are 0 to 255"),
        (lambda x: x[0], r"a single instance is array\[None\]"),
        (lambda x: x[:, :, :14], "takes uint8 with"),
        (lambda x: np.repeat(x, 3, axis=1), r"takes uint8 with \(n, 1, 28, 28\)"),
    ],
)
def test_wrong_instances_are_answered(replicate, change, said):
    with pytest.raises(UserError, match=said):
        LoadedModel(stored_model(replicate)).instance_logits(change(bags_of(replicate)[0]))


def test_one_bag_for_several_is_answered(replicate):
    with pytest.raises(UserError, match="which is one bag"):
        LoadedModel(stored_model(replicate)).predict_bags(bags_of(replicate)[0])


def test_vectors_are_checked():
    model = MilModel((4,), "attention", 4, extractor="none")
    card = ModelCard("teacher", {"data": {"normalise": "standard"}}, np.zeros(4), np.ones(4), "s", "ab" * 10, 0)
    loaded = LoadedModel(StoredModel(model, model.init(np.random.default_rng(1)), card))
    vectors = np.random.default_rng(2).normal(size=(5, 4))
    for kind in (np.float16, np.float32, np.float64, ">f4"):
        assert np.isfinite(loaded.predict_bags([vectors.astype(kind)])).all()
    with pytest.raises(UserError, match="NaN"):
        loaded.predict_instances(np.where(np.eye(5, 4), np.nan, vectors))
    with pytest.raises(UserError, match="floating point"):
        loaded.predict_instances(np.ones((5, 4), np.int64))
    with pytest.raises(UserError, match="up to 64 bits"):
        loaded.predict_instances(np.ones((5, 4), np.longdouble))
    with pytest.raises(UserError, match=r"\(n, 4\)"):
        loaded.predict_instances(np.ones((5, 3)))
