"""What a packed step needs to be worth a CUDA graph, seen on a CPU: it asks the host nothing, and what is captured is
the step that would have been taken."""

import dataclasses
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from d2l_study.learning import fit_teacher
from d2l_study.learning.packed import Pack
from d2l_study.learning.packed_batches import Problem, draw_block
from d2l_study.learning.packed_model import FORMULATIONS, StackedModel
from d2l_study.learning.packed_prediction import StackedSets
from d2l_study.learning.packed_stack import Stack, means_and_stds
from d2l_study.learning.prediction import Compute

aten = torch.ops.aten
ALL = {"lambda_adv": 0.7, "lambda_noise": 1.3, "lambda_ent": 0.4, "drop_rate": 0.4}
ARMS = [
    {}, {"lambda_adv": 0.5}, ALL, {**ALL, "direction": "power"}, {**ALL, "dropout": 0.3, "mixup": 0.5},
    {"augment": "affine", "weight_average": 0.7}, {"pooling": "embedding_max"}, {"pooling": "instance_mean"},
]  # fmt: skip

ASKS_THE_HOST = {
    aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.nonzero_numpy, aten.argwhere,
    aten.masked_select, aten.bincount, aten._unique2, aten.unique_dim, aten.unique_consecutive,
}  # fmt: skip
"""Operations that return a number, or a shape that depends on values: on a GPU the host waits for them."""


class AsksNothing(TorchDispatchMode):
    """Refuses what a host would wait for on a GPU."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        assert packet not in ASKS_THE_HOST, f"{func} asks the host"
        if packet in (aten.index, aten.index_put, aten.index_put_):
            assert all(i is None or i.dtype == torch.int64 for i in args[1]), f"{func} by a mask asks the host"
        if packet is aten.repeat_interleave and isinstance(args[0], torch.Tensor):
            assert (kwargs or {}).get("output_size") is not None, f"{func} without a size asks the host"
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on_a_device(monkeypatch):
    """Whatever is made without saying where lands on another device than the data, where arithmetic with it fails."""

    def refused(self, *args, **kwargs):
        raise AssertionError("values of a tensor are read on the host")

    with monkeypatch.context() as patch, torch.device("meta"), AsksNothing():
        for name in ("numpy", "tolist", "__array__", "cpu"):
            patch.setattr(torch.Tensor, name, refused)
        yield


def stack_of(config, replicates, compute):
    pack = Pack([Problem(config, r) for r in replicates], compute)
    stack = Stack(StackedModel(pack.model, len(replicates), compute), pack.images)
    stack.load(pack.problems, pack.trainings)
    return stack, pack


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("arm", ARMS)
def test_steps_and_validation_ask_the_host_nothing(make_replicate, tiny, monkeypatch, arm, formulation):
    config = dataclasses.replace(tiny, **arm)
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    compute = Compute(packed=True, formulation=formulation, precision="bfloat16")
    stack, pack = stack_of(config, replicates, compute)
    stack.put_block(draw_block(pack.problems, pack.room, 0, 3))
    sets = StackedSets([[r.val] for r in replicates], stack.device)
    norm = means_and_stds(pack.problems)
    before = {name: value.detach().clone() for name, value in stack.params.items()}
    with as_on_a_device(monkeypatch):
        stack.run(3)
        sums = stack.take_sums()
        logits = sets.logits(stack.model, stack.snapshot, stack.images, norm)
    assert sums.shape == (3, 5) and bool((sums[:, 0] > 0).all())
    assert [len(own[0]) for own in logits] == [len(r.val) for r in replicates]
    assert all(not torch.equal(before[name], value) for name, value in stack.params.items())


class Recorded:
    """Stands for a CUDA graph on a CPU: what is captured is not run, and a replay takes the step, as long as the
    tensors of the stack lie where they were captured."""

    made: ClassVar[list["Recorded"]] = []

    def __init__(self):
        self.stack, self.places, self.replays = None, {}, 0
        Recorded.made.append(self)

    def record(self, stack):
        self.stack, self.places = stack, places(stack)

    def replay(self):
        assert places(self.stack) == self.places
        self.replays += 1
        self.stack._step()


def places(stack):
    """Where the tensors lie that a captured step reads and writes."""
    found = {**stack.params, **stack._buffers, "at": stack._at, "sums": stack._sums}
    moments = [v.data_ptr() for kept in stack.optimizer.state.values() for v in kept.values()]
    return {name: value.data_ptr() for name, value in found.items()}, moments


@pytest.fixture
def graphs(monkeypatch):
    """CUDA's graphs by `Recorded`, and stacks that use them."""
    stacks = []

    class Stream:
        def wait_stream(self, other):
            pass

    @contextmanager
    def capture(graph):
        graph.record(stacks[-1])
        state = [graph.stack._at, graph.stack._sums, *(v.detach() for v in graph.stack.params.values())]
        state += [v for kept in graph.stack.optimizer.state.values() for v in kept.values()]
        before = [value.clone() for value in state]
        yield
        for value, old in zip(state, before, strict=True):
            value.copy_(old)

    @contextmanager
    def stream(_):
        yield

    real = Stack._capture
    monkeypatch.setattr(Stack, "_capture", lambda self: (stacks.append(self), real(self))[1])
    monkeypatch.setattr(Stack, "_why_eager", lambda self, compute: None if compute.graphs else "turned off")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(Recorded, "made", [])
    return Recorded.made


def test_replayed_steps_are_the_steps_themselves(make_replicate, tiny, graphs):
    """Two warm-up steps are undone, the captured one is not run, and every step of training is a replay."""
    config = dataclasses.replace(tiny, **ALL, eval_every=5, steps=14)
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    plain, replayed = (fit_teacher(config, replicates, compute=Compute(packed=True, graphs=on)) for on in (False, True))
    assert [graph.replays for graph in graphs] == [14]  # one capture: the last, shorter interval fits the block
    for a, b in zip(plain, replayed, strict=True):
        assert a.metrics == b.metrics and a.curve == b.curve
        assert all(torch.equal(value, b.params[name]) for name, value in a.params.items())


def test_a_stack_is_captured_anew_once_enough_replicates_have_ended(make_replicate, tiny, graphs):
    """Of four replicates three stop early; the last goes on in a stack of its own, as it does without graphs."""
    config = dataclasses.replace(tiny, learning_rate=0.01, patience=1, select="loss", eval_every=2, steps=40)
    replicates = [make_replicate(r, train=20, val=20) for r in range(4)]
    plain, replayed = (fit_teacher(config, replicates, compute=Compute(packed=True, graphs=on)) for on in (False, True))
    ends = sorted(result.steps_run for result in plain)
    assert ends[0] < ends[-1], "the replicates of this test should end one after the other"
    assert len(graphs) > 1 and sum(graph.replays for graph in graphs) == ends[-1]
    for a, b in zip(plain, replayed, strict=True):
        assert (a.steps_run, a.best_step) == (b.steps_run, b.best_step)
        assert a.metrics["bag_auc"] == pytest.approx(b.metrics["bag_auc"], abs=1e-9)


def test_a_step_that_cannot_be_captured_is_taken_as_it_is(make_replicate, tiny, graphs, monkeypatch):
    @contextmanager
    def refused(graph):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refused)
    replicates = [make_replicate(r) for r in range(2)]
    with pytest.warns(UserWarning, match="could not be captured: operation not permitted"):
        found = fit_teacher(tiny, replicates, compute=Compute(packed=True))
    plain = fit_teacher(tiny, replicates, compute=Compute(packed=True, graphs=False))
    assert [graph.replays for graph in graphs] == [0]
    assert [a.curve for a in found] == [b.curve for b in plain]
