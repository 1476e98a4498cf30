"""Adam is PyTorch's, and the compiler stays out of a process that trains without it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from d2l_study.learning.adam import Adam

TRAINS = """
import sys
from vector_bags import vector_replicates
from d2l_study.learning import TeacherConfig, fit_teacher
from d2l_study.learning.prediction import Compute
config = TeacherConfig(extractor="mlp", steps=4, eval_every=2, lambda_adv=1.0)
for pack in (1, 2):
    found = fit_teacher(config, vector_replicates([4, 4]), compute=Compute(pack=pack))
    assert [one.status for one in found] == ["done", "done"], found
print(*(name for name in sys.modules if name == "torch._dynamo"))
"""


def optimizers(fused):
    """PyTorch's and ours, on equal parameters in two groups."""
    made = []
    for kind in (torch.optim.Adam, Adam):
        torch.manual_seed(0)
        values = [torch.randn(3, 4, requires_grad=True), torch.randn(5, requires_grad=True)]
        groups = [{"params": values[:1], "lr": 0.1}, {"params": values[1:], "weight_decay": 0.3}]
        made.append((values, kind(groups, lr=0.01, betas=(0.8, 0.99), fused=fused)))
    return made


def take_steps(values, optimizer, count):
    torch.manual_seed(1)
    for _ in range(count):
        for value in values:
            value.grad = torch.randn_like(value)
        optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
def test_steps_and_state_are_those_of_pytorch(fused):
    (theirs, their_adam), (ours, our_adam) = optimizers(fused)
    take_steps(theirs, their_adam, 3)
    take_steps(ours, our_adam, 3)
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    # Each goes on from the state of the other: checkpoints of earlier versions hold that of PyTorch's.
    their_state, our_state = their_adam.state_dict(), our_adam.state_dict()
    assert their_state["param_groups"] == our_state["param_groups"]
    their_adam.load_state_dict(our_state)
    our_adam.load_state_dict(their_state)
    take_steps(theirs, their_adam, 2)
    take_steps(ours, our_adam, 2)
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    assert all(value.requires_grad and value.is_leaf for value in ours)


def test_training_imports_no_compiler():
    done = subprocess.run(
        [sys.executable, "-c", TRAINS], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
