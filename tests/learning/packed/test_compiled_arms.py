"""Compiled steps of every kind against training one by one, in float64."""

import dataclasses

import pytest
from packed_losses import assert_packed_losses, without_ties

from d2l_study.learning.prediction import Compute

ALL = {"lambda_adv": 0.7, "lambda_noise": 1.3, "lambda_ent": 0.4, "drop_rate": 0.4}
ARMS = [
    ALL,
    {**ALL, "pooling": "gated_attention", "direction": "power", "dropout": 0.3, "mixup": 0.5, "augment": "affine",
     "weight_average": 0.7},
    {"lambda_adv": 0.5, "pooling": "instance_mean"},
    {"lambda_adv": 0.5, "extractor": "resnet", "stochastic_depth": 0.3},
]  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("arm", ARMS)
def test_losses_of_compiled_steps_agree_to_1e8_in_float64(make_replicate, tiny, arm):
    config = dataclasses.replace(tiny, **arm, eval_every=1, steps=4, ramp_steps=3)
    replicates = [without_ties(make_replicate(r, train=8 + r)) for r in range(3)]
    assert_packed_losses(config, replicates, Compute(packed=True, compiled=True))
