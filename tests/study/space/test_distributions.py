"""Distributions: what is drawn, that draws are addressed, and what is refused."""

import numpy as np
import pytest
from make_space import load_text

from d2l_study.errors import UserError
from d2l_study.study.plan.configurations import configurations
from d2l_study.study.space.distributions import Distribution, read_distribution
from d2l_study.study.space.space import study_name

SPACE = """
description: a search
data: {num_bags: [50, 100]}
teacher:
  learning_rate: {low: 1e-4, high: 1e-2, log: true}
  batch_bags: {low: 1, high: 4}
methods:
  none: {}
  vat: {teacher: {lambda_adv: {low: 0.1, high: 3}}}
search: {trials: 5}
"""


@pytest.fixture
def load(tmp_path):
    return lambda text=SPACE, overrides=(): load_text(tmp_path, text, *overrides, name="search.yaml")


def test_each_arm_draws_its_trials_at_every_point_of_its_axes(load):
    found = configurations(load(), "sum")
    assert len(found) == 2 * 2 * 5
    assert len({c.config_id for c in found}) == 20
    for c in found:
        v = c.values
        assert 1e-4 <= v["learning_rate"] <= 1e-2 and v["batch_bags"] in (1, 2, 3, 4)
        assert (v["lambda_adv"] == 0) == (c.method == "none")
    assert set(found[0].varied) == {"num_bags", "learning_rate", "batch_bags", "lambda_adv"}


def test_draws_are_the_same_in_every_arm_and_at_every_n_and_others_shift_nothing(load):
    def rates(space, method, n):
        return [p["teacher"].learning_rate for m, p in space.points() if m == method and p["data"].num_bags == n]

    space = load()
    first = rates(space, "none", 50)
    assert first == rates(space, "none", 100) == rates(space, "vat", 50)
    without = load(SPACE.replace("  batch_bags: {low: 1, high: 4}\n", ""))
    assert first == rates(without, "none", 50)
    assert first == rates(load(overrides=["search.trials=9"]), "none", 50)[:5]
    assert first != rates(load(overrides=["base_seed=7"]), "none", 50)


def test_draws_follow_the_distribution():
    draws = np.array([Distribution(1e-4, 1e-2, log=True).draw("k", 1, i) for i in range(2000)])
    assert np.mean(draws < 1e-3) == pytest.approx(0.5, abs=0.04)  # half of the decades
    whole = np.array([Distribution(1, 4, whole=True).draw("k", 1, i) for i in range(2000)])
    assert np.bincount(whole, minlength=6)[1:5] == pytest.approx(500, rel=0.15) and set(whole) == {1, 2, 3, 4}
    assert all(isinstance(v, int) for v in (Distribution(1, 4, whole=True).draw("k", 1, i) for i in range(9)))
    assert {v for v in draws if float(f"{v:.4g}") != v} == set()


def test_an_override_may_be_a_distribution_and_names_the_study(load):
    changed = load(overrides=["teacher.epsilon={low: 1, high: 8}"])
    assert len({p["teacher"].epsilon for m, p in changed.points() if m == "vat"}) == 5
    assert study_name(changed) != study_name(load())
    assert {"method": "random", "trials": 5}.items() <= changed.to_dict()["search"].items()
    assert changed.to_dict()["teacher"]["epsilon"] == {"low": 1.0, "high": 8.0, "log": False}


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("low: 1e-4, high: 1e-2, log", "low: 1e-4, hihg: 1e-2, log", ["learning_rate.hihg", "did you mean 'high'"]),
        ("{low: 1e-4, high: 1e-2, log: true}", "{low: 1e-4}", ["learning_rate", "needs low and high"]),
        ("low: 1e-4, high: 1e-2", "low: 1e-1, high: 1e-2", ["learning_rate", "low < high"]),
        ("low: 1e-4, high: 1e-2", "low: 0, high: 1e-2", ["learning_rate.low", "> 0"]),
        ("low: 0.1, high: 3", "low: 0, high: 3, log: true", ["lambda_adv.low", "> 0"]),
        ("low: 0.1, high: 3", "low: -1, high: 3", ["lambda_adv.low", "≥ 0"]),
        ("log: true", "log: 3", ["learning_rate.log", "true or false"]),
        ("batch_bags: {low: 1, high: 4}", "batch_bags: {low: 1, high: 4.5}", ["batch_bags.high", "whole number"]),
        ("batch_bags: {low: 1, high: 4}", "pooling: {low: 1, high: 4}", ["teacher.pooling", "only numbers"]),
        ("search: {trials: 5}", "", ["learning_rate", "needs a search"]),
        ("trials: 5", "trials: 0", ["search.trials", "≥ 1"]),
        ("trials: 5", "method: tpa", ["search.method", "'tpa'", "random"]),
        ("trials: 5", "trials: 9000", ["configurations", "10,000"]),
    ],
)
def test_mistakes_are_named(load, old, new, words):
    assert old in SPACE
    with pytest.raises(UserError) as error:
        load(SPACE.replace(old, new))
    assert all(word in str(error.value) for word in ["search.yaml", *words]), error.value


def test_a_search_without_a_distribution_is_refused(load):
    with pytest.raises(UserError, match="search: no key has a distribution"):
        load("description: x\nmethods: {none: {}}\nsearch: {trials: 3}\n")


def test_a_long_value_is_shown_short():
    """A file of nonsense is answered in a line that can be read."""
    long = list(range(4000))
    with pytest.raises(UserError) as caught:
        read_distribution({"low": 1.0, "high": 2.0, "log": long}, "teacher.epsilon", float, lambda where, value: value)
    assert str(caught.value).startswith("teacher.epsilon.log: [0, 1, 2") and len(str(caught.value)) < 150
