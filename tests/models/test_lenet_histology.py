"""The colon network against torch's own modules, its smallest patch, and its place among the extractors."""

import numpy as np
import pytest
import torch
from torch import nn

from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig
from d2l_study.models import Masks, MilModel

torch.set_num_threads(1)


@pytest.mark.parametrize("shape", [(3, 27, 27), (3, 32, 32), (3, 11, 16)])
def test_it_equals_torch_modules_with_the_same_weights(shape):
    model = MilModel(shape, feature_width=24, attention_width=4, extractor="lenet_histology")
    params = model.init(np.random.default_rng(0))
    _, height, width = shape
    flat = 48 * (((height - 3) // 2 - 2) // 2) * (((width - 3) // 2 - 2) // 2)
    modules = nn.Sequential(
        nn.Conv2d(3, 36, 4), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(36, 48, 3), nn.ReLU(), nn.MaxPool2d(2, 2),
        nn.Flatten(), nn.Linear(flat, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 1),
    )  # fmt: skip
    for layer, name in ((0, "conv1"), (3, "conv2"), (7, "fc1"), (9, "fc"), (11, "classifier")):
        modules[layer].weight.data, modules[layer].bias.data = params[f"{name}.weight"], params[f"{name}.bias"]
    x = torch.from_numpy(np.random.default_rng(1).normal(size=(5, *shape)).astype(np.float32))
    torch.testing.assert_close(model.terms(params, x).logit, modules(x)[:, 0], rtol=1e-4, atol=1e-5)


def test_dropout_reaches_the_feature_vector():
    model = MilModel((3, 12, 12), feature_width=6, attention_width=4, extractor="lenet_histology")
    params = model.init(np.random.default_rng(0))
    x = torch.ones(2, 3, 12, 12)
    dropped = model.terms(params, x, Masks(dropout=torch.zeros(2, 6)))
    assert torch.allclose(dropped.logit, params["classifier.bias"].expand(2))


@pytest.mark.parametrize("shape", [(3, 10, 27), (3, 27, 10), (3, 1, 1)])
def test_a_patch_that_is_too_small_is_refused(shape):
    with pytest.raises(UserError, match=f"lenet_histology needs .* at least 11×11 pixels; found {shape[1]}×{shape[2]}"):
        MilModel(shape, extractor="lenet_histology").init(np.random.default_rng(0))


def test_teacher_and_student_can_be_of_it():
    assert TeacherConfig(extractor="lenet_histology").extractor == StudentConfig(network="lenet_histology").network
