"""The probe of the faster number format, by a clock that the test turns."""

import pytest
import torch

from d2l_study.learning import precision
from d2l_study.learning.packed.model import StackedModel

torch.set_num_threads(1)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a pass takes in each format; nothing else takes time."""
    cost = {"float32": 1.0, "bfloat16": 1.0}
    state = {"now": 0.0}

    def now(device):
        return state["now"]

    class Compute(precision.Compute):
        def autocast(self):
            state["now"] += cost[self.precision]
            return super().autocast()

    monkeypatch.setattr(precision, "_now", now)
    monkeypatch.setattr(precision, "Compute", Compute)
    return cost


@pytest.mark.parametrize(
    ("float32", "bfloat16", "expected"),
    [(3.0, 1.0, "bfloat16"), (1.0, 3.0, "float32"), (1.0, 1.0, "float32"), (1.05, 1.0, "float32")],
)
def test_bfloat16_is_taken_where_it_is_clearly_faster(clock, float32, bfloat16, expected):
    clock |= {"float32": float32, "bfloat16": bfloat16}
    assert precision.faster_precision((1, 28, 28), "cpu") == expected


@pytest.mark.parametrize("shape", [(3, 27, 27), (1, 8, 9)])
def test_the_probe_takes_patches_of_every_size(shape):
    assert precision.faster_precision(shape, "cpu") in ("float32", "bfloat16")


@pytest.mark.parametrize(("shape", "runs"), [((3, 20, 20), 3), ((1, 28, 28), 5), ((64,), 20), ((3, 90, 90), 1)])
def test_the_probe_of_a_gpu_is_a_stack_of_runs(shape, runs, monkeypatch):
    monkeypatch.setattr(precision, "STACK_VALUES", 5 * precision.INSTANCES * 28 * 28)
    monkeypatch.setattr(precision, "ROUNDS", {"cpu": 1})
    asked = []

    class Stacked(StackedModel):
        def terms(self, params, x, masks=None):
            found = super().terms(params, x, masks)
            asked.append((self.replicates, len(x) % self.replicates, self.compute.precision))
            assert len(found.logit) == len(x)
            return found

    monkeypatch.setattr("d2l_study.learning.packed.model.StackedModel", Stacked)
    assert precision.faster_precision(shape, "cpu", stacked=True) in ("float32", "bfloat16")
    assert set(asked) == {(runs, 0, "float32"), (runs, 0, "bfloat16")}
