"""What a packed step needs to be worth a CUDA graph, seen on a CPU: it asks the host nothing, and what is captured is
the step that would have been taken."""

import dataclasses
from contextlib import contextmanager
from typing import ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from d2l_study.learning import fit_teacher
from d2l_study.learning.packed import group
from d2l_study.learning.packed import stack as packed_stack
from d2l_study.learning.packed.batches import Capacity, ReplicateTask, draw_block
from d2l_study.learning.packed.group import Group
from d2l_study.learning.packed.host_blocks import staged
from d2l_study.learning.packed.instances import means_and_stds
from d2l_study.learning.packed.model import FORMULATIONS, StackedModel
from d2l_study.learning.packed.prediction import StackedSets
from d2l_study.learning.packed.stack import Stack, cuda_graph_state
from d2l_study.learning.packed.training import Pack, fit_teachers
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
    pack = Pack([ReplicateTask(config, r) for r in replicates], compute)
    stack = Stack(StackedModel(pack.model, len(replicates), compute), pack.pool_instances)
    stack.load(pack.problems, pack.trainings)
    return stack, pack


@pytest.mark.parametrize("formulation", FORMULATIONS)
@pytest.mark.parametrize("arm", ARMS)
def test_steps_and_validation_ask_the_host_nothing(make_replicate, tiny, monkeypatch, arm, formulation):
    config = dataclasses.replace(tiny, **arm)
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    compute = Compute(packed=True, formulation=formulation, precision="bfloat16")
    pack = Pack([ReplicateTask(config, r) for r in replicates], compute)
    block = staged(draw_block(pack.problems, Capacity.of(pack.problems, on_device=True), 0, 3))
    sets = StackedSets([[r.val] for r in replicates], pack.pool_instances.device)
    norm = means_and_stds(pack.problems)
    before = {name: torch.stack([t.params[name].detach() for t in pack.trainings]) for name in pack.trainings[0].params}
    with as_on_a_device(monkeypatch):
        stack = Stack(StackedModel(pack.model, 3, compute), pack.pool_instances)
        stack.load(pack.problems, pack.trainings)
        stack.put_block(block)
        stack.run(3)
        sums = stack.take_sums()
        logits = sets.logits(stack.model, stack.snapshot, stack.pool_instances, norm)
    assert sums.shape == (3, 5) and bool((sums[:, 0] > 0).all())
    assert [len(own[0]) for own in logits] == [len(r.val) for r in replicates]
    assert all(not torch.equal(before[name], value) for name, value in stack.params.items())


class Recorded:
    """Stands for a CUDA graph on a CPU: what is captured is not run, and a replay takes the step, as long as the
    tensors of the stack lie where they were captured."""

    made: ClassVar[list["Recorded"]] = []
    capturing: ClassVar["Recorded | None"] = None

    def __init__(self):
        self.stack, self.places, self.before, self.replays = World.stack, {}, [], 0
        Recorded.made.append(self)

    def capture_begin(self):
        assert World.streams, "a capture needs a stream of its own"
        assert World.steps > 0, "libraries choose their algorithms in a step before the capture"
        assert World.synchronised == 2, "what is cached is given back once nothing uses it"
        self.before = [value.clone() for value in tensors(self.stack)]
        Recorded.capturing = self

    def capture_end(self):
        Recorded.capturing = None
        for value, old in zip(tensors(self.stack), self.before, strict=True):
            value.copy_(old)
        if World.refused == "capture":
            raise RuntimeError("operation failed due to a previous error during capture")
        self.places = places(self.stack)

    def replay(self):
        assert places(self.stack) == self.places
        self.replays += 1
        self.stack._step()


class World:
    """What CUDA knows beside the graphs: the streams that one is on, and what the stack at work has done."""

    streams: ClassVar[list[object]] = []
    stack: ClassVar[Stack | None] = None
    steps: ClassVar[int] = 0
    refused: ClassVar[str] = ""
    waits: ClassVar[list[tuple[object, object]]] = []
    synchronised: ClassVar[int] = 0


def tensors(stack):
    """All that a step changes."""
    moments = [v for kept in stack.optimizer.state.values() for v in kept.values()]
    return [stack._at, stack._sums, *(v.detach() for v in stack.params.values()), *stack.average.values(), *moments]


def places(stack):
    """Where the tensors lie that a captured step reads and writes."""
    return [value.data_ptr() for value in (*tensors(stack), *stack._buffers.values())]


@pytest.fixture
def graphs(monkeypatch):
    """CUDA's graphs by `Recorded`, and stacks that use them."""

    class Stream:
        made = 0

        def __init__(self, device=None):
            assert device == torch.device("cpu"), "the stream of another device"
            Stream.made += 1

        def wait_stream(self, other):
            assert isinstance(other, Stream)
            World.waits.append((self, other))

    @contextmanager
    def on(stream):
        World.streams.append(stream)
        try:
            yield
        finally:
            World.streams.pop()

    default, capture, step = Stream(torch.device("cpu")), Stack._capture, Stack._step

    def current(device=None):
        return World.streams[-1] if World.streams else default

    def captured(self):
        World.stack, World.steps, World.waits, World.synchronised = self, 0, [], 0
        capture(self)
        assert World.streams == []
        side = self.captures.stream()
        assert World.waits == [(side, default), (default, side)], "each stream waits for the other's work"
        assert Stream.made == 2, "one stream for all captures"

    def stepped(self):
        step(self)
        World.steps += 1
        if World.refused == "warm-up" or (World.refused == "capture" and Recorded.capturing is not None):
            refused, World.refused = World.refused, "later" if World.refused == "warm-up" else World.refused
            raise RuntimeError(f"operation not permitted in {refused}\nmore")

    monkeypatch.setattr(Stack, "_capture", captured)
    monkeypatch.setattr(Stack, "_step", stepped)
    monkeypatch.setattr(packed_stack, "why_no_graphs", lambda device, compute: None if compute.graphs else "off")
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", current)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: setattr(World, "synchronised", 1))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: setattr(World, "synchronised", 2 * World.synchronised))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(Recorded, "made", [])
    packed_stack.cuda_graph_state.cache_clear()
    yield Recorded.made
    packed_stack.cuda_graph_state.cache_clear()


def with_and_without(config, replicates, **how):
    """Fitted as captured steps, and as steps that are taken."""
    return (
        fit_teacher(config, replicates, compute=Compute(packed=True, graphs=captured, **how))
        for captured in (True, False)
    )


def assert_equal(some, others):
    for a, b in zip(some, others, strict=True):
        assert a.status == b.status == "done" and a.metrics == b.metrics and a.curve == b.curve
        assert all(torch.equal(value, b.params[name]) for name, value in a.params.items())


def test_replayed_steps_are_the_steps_themselves(make_replicate, tiny, graphs):
    """Warm-up steps are undone, the captured one is not run, and every step of training is a replay."""
    config = dataclasses.replace(tiny, **ALL, eval_every=5, steps=14, weight_average=0.7)
    replicates = [make_replicate(r, train=8 + r) for r in range(3)]
    assert_equal(*with_and_without(config, replicates))
    assert [graph.replays for graph in graphs] == [14]  # one capture: the last, shorter interval fits the block


def test_groups_of_a_pack_are_captured_once_each(make_replicate, tiny, graphs):
    config = dataclasses.replace(tiny, **ALL)
    replicates = [make_replicate(r, train=8 + r) for r in range(5)]
    assert_equal(*with_and_without(config, replicates, pack=2))
    assert [(graph.stack.replicates, graph.replays) for graph in graphs] == [(2, 12), (2, 12), (1, 12)]


def test_groups_of_a_compiled_pack_share_one_capture(make_replicate, tiny, graphs, monkeypatch):
    """The function itself stands for what is compiled of it; the shorter group is filled up."""
    monkeypatch.setattr(packed_stack, "compiled", lambda function, arguments: function)
    config = dataclasses.replace(tiny, **ALL, weight_average=0.7)
    replicates = [make_replicate(r, train=8 + r) for r in range(5)]
    assert_equal(*with_and_without(config, replicates, pack=2, compiled=True))
    assert [(graph.stack.replicates, graph.replays) for graph in graphs] == [(2, 36)]


def test_a_stack_is_captured_anew_once_enough_replicates_have_ended(make_replicate, tiny, graphs):
    """Of four replicates three stop early; the last goes on in a stack of its own, as it does without graphs."""
    config = dataclasses.replace(tiny, learning_rate=0.01, patience=1, select="loss", eval_every=2, steps=40)
    replicates = [make_replicate(r, train=20, val=20) for r in range(4)]
    replayed, plain = with_and_without(config, replicates)
    ends = sorted(result.steps_run for result in plain)
    assert ends[0] < ends[-1], "the replicates of this test should end one after the other"
    assert len(graphs) > 1 and sum(graph.replays for graph in graphs) == ends[-1]
    for a, b in zip(plain, replayed, strict=True):
        assert (a.steps_run, a.best_step) == (b.steps_run, b.best_step)
        assert a.metrics["bag_auc"] == pytest.approx(b.metrics["bag_auc"], abs=1e-9)


def test_a_replicate_that_ends_keeps_its_place_while_most_go_on(make_replicate, tiny, graphs):
    """One of four stops early; the graph goes on for all, and the three as without graphs. With different rates another
    place would also change the groups of the optimizer."""
    patient = dataclasses.replace(tiny, select="loss", eval_every=2)
    replicate = make_replicate(0, train=20, val=20)
    arms = [dataclasses.replace(patient, patience=1, learning_rate=0.3)]
    arms += [dataclasses.replace(patient, learning_rate=rate) for rate in (1e-3, 1e-3, 5e-4)]
    problems = [(config, replicate) for config in arms]
    found, plain = (fit_teachers(problems, compute=Compute(packed=True, graphs=on)) for on in (True, False))
    assert found[0].steps_run < found[1].steps_run == 12
    assert [graph.replays for graph in graphs] == [12]
    for a, b in zip(found, plain, strict=True):
        assert (a.steps_run, a.best_step, a.status) == (b.steps_run, b.best_step, b.status)
        assert a.metrics["bag_auc"] == pytest.approx(b.metrics["bag_auc"], abs=1e-9)


@pytest.mark.parametrize("captured", [True, False])
def test_what_has_ended_holds_nothing_of_the_stack(make_replicate, tiny, graphs, monkeypatch, captured):
    """Also a replicate that diverged; the group leaves the device with its last one, and blocks are drawn ahead."""
    started, real, log = Pack._start, Group.close, []

    def start(self, i, weights):
        training = started(self, i, weights)
        if i == 1:
            with torch.no_grad():
                training.params["conv1.weight"].fill_(torch.nan)
        return training

    monkeypatch.setattr(Pack, "_start", start)
    monkeypatch.setattr(Group, "close", lambda self: (log.append("close"), real(self)))
    drawn, read = group.draw_block, group.on_host
    monkeypatch.setattr(group, "draw_block", lambda *a: (log.append(f"draw {a[2]}"), drawn(*a))[1])
    monkeypatch.setattr(group, "on_host", lambda *a: (log.append("read"), read(*a))[1])
    pack = Pack([ReplicateTask(dataclasses.replace(tiny, weight_average=0.5), make_replicate(r)) for r in range(3)],
                Compute(packed=True, graphs=captured))  # fmt: skip
    while any(training.status == "running" for training in pack.trainings):
        for i, training in enumerate(pack.trainings):
            if training.status == "running":
                pack.advance(i)
    assert [training.status for training in pack.trainings] == ["done", "failed", "done"]
    for training in pack.trainings:
        assert training.params is training.best_params
        kept = [*training.params.values(), *training.average.values()]
        assert all(value.untyped_storage().nbytes() == value.nbytes for value in kept)
    # Without a graph the stack is made anew without the one that failed, and its block drawn again.
    again = [] if captured else ["draw 4"]
    assert log == ["draw 0", "draw 4", "read", *again, "draw 8", "read", "read", "close"]


@pytest.mark.parametrize("refused", ["warm-up", "capture"])
def test_a_step_that_cannot_be_captured_is_taken_as_it_is(make_replicate, tiny, graphs, monkeypatch, refused):
    """The cause is said once, and not that the capture could not be ended; no later stack tries again."""
    monkeypatch.setattr(World, "refused", refused)
    config = dataclasses.replace(tiny, weight_average=0.7)
    replicates = [make_replicate(r) for r in range(4)]
    with pytest.warns(UserWarning, match=f"could not be captured: operation not permitted in {refused}$") as said:
        found, plain = with_and_without(config, replicates, pack=2)
        again, _ = with_and_without(config, replicates)  # nor does a later pack of the process
    assert len([one for one in said if "captured" in str(one.message)]) == 1
    assert len(graphs) == (refused == "capture")
    assert_equal(found, plain)
    assert_equal(again, plain)


def test_a_capture_in_the_middle_of_a_training_leaves_no_trace(make_replicate, tiny, graphs):
    config = dataclasses.replace(tiny, **ALL, weight_average=0.7)
    replicates, saved = [make_replicate(r) for r in range(2)], []
    undisturbed = fit_teacher(config, replicates, compute=Compute(packed=True, graphs=False), checkpoint_every=4,
                              checkpoint=lambda *state: saved.append(state))  # fmt: skip
    assert [number for number, _ in saved] == [0, 1, 0, 1]  # at steps 4 and 8
    for chosen, replays in ((saved[:2], [8]), ([saved[2], saved[1]], [4, 4])):  # in the second, 1 catches up alone
        graphs.clear()
        resumed = fit_teacher(config, replicates, compute=Compute(packed=True), resume=dict(chosen))
        assert [graph.replays for graph in graphs] == replays
        for a, b in zip(undisturbed, resumed, strict=True):
            assert a.metrics["bag_auc"] == pytest.approx(b.metrics["bag_auc"], abs=1e-9)
            assert [c["train_loss"] for c in a.curve] == pytest.approx([c["train_loss"] for c in b.curve], rel=1e-4)
    assert_equal(undisturbed, fit_teacher(config, replicates, compute=Compute(packed=True), resume=dict(saved[:2])))


def test_running_out_of_memory_in_a_capture_is_no_reason_to_go_on(make_replicate, tiny, graphs, monkeypatch):
    def full(self):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stack, "_captured", full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fit_teacher(tiny, [make_replicate(0)], compute=Compute(packed=True))


@pytest.mark.parametrize("text", ["CUDA out of memory", "cuBLAS: CUBLAS_STATUS_ALLOC_FAILED"])
def test_running_out_of_memory_in_the_compiler_is_no_reason_to_go_on(make_replicate, tiny, monkeypatch, text):
    """In words of the compiler's own: taken for a step that cannot be compiled, no later stack would be."""

    def full(function, arguments):
        raise RuntimeError(f"backend failed: {text}")

    cuda_graph_state.cache_clear()
    monkeypatch.setattr("d2l_study.learning.packed.stack.compiled", full)
    with pytest.raises(RuntimeError, match=text):
        fit_teacher(tiny, [make_replicate(0)], compute=Compute(packed=True, compiled=True))
    assert cuda_graph_state(torch.device("cpu")).uncompiled is None


def test_stacks_are_halved_where_there_was_no_memory_for_them(make_replicate, tiny):
    replicates = [make_replicate(r) for r in range(6)]
    problems = [ReplicateTask(tiny, replicate) for replicate in replicates]

    def groups(**compute):
        return [len(group.problems) for group in Pack(problems, Compute(packed=True, **compute)).groups]

    assert groups() == [6] and groups(halvings=1) == [3, 3] and groups(halvings=9) == [1] * 6
    assert groups(pack=4, halvings=1) == [2, 2, 2]


def test_a_graph_goes_with_the_tensors_that_it_was_captured_with(make_replicate, tiny, graphs):
    """A longer block, and other groups of the optimizer, lie elsewhere: `Recorded` refuses to replay them."""
    replicates = [make_replicate(r) for r in range(2)]
    stack, pack = stack_of(tiny, replicates, Compute(packed=True))
    for first, last in ((0, 2), (2, 6)):
        stack.put_block(staged(draw_block(pack.problems, pack.capacity, first, last)))
        stack.run(last - first)
    assert len(graphs) == 2
    for rates in ((1e-3, 1e-3), (1e-3, 1e-4)):  # one group as before, then two
        arms = [dataclasses.replace(tiny, learning_rate=rate) for rate in rates]
        other = Pack(
            [ReplicateTask(config, r) for config, r in zip(arms, replicates, strict=True)], Compute(packed=True)
        )
        stack.load(other.problems, other.trainings)
        stack.put_block(staged(draw_block(other.problems, other.capacity, 0, 2)))
        stack.run(2)
    assert [graph.replays for graph in graphs] == [2, 4, 2, 2]


def test_a_stack_keeps_nothing_of_what_it_held_before(make_replicate, tiny):
    """Fresh trainings find no moments and no means in a stack where others have diverged."""
    config = dataclasses.replace(tiny, weight_average=0.7)
    stack, pack = stack_of(config, [make_replicate(r) for r in range(2)], Compute(packed=True))
    with torch.no_grad():
        stack.params["conv1.weight"].fill_(torch.nan)
    stack.put_block(staged(draw_block(pack.problems, pack.capacity, 0, 2)))
    stack.run(2)
    assert all(bool(v.isnan().any()) for v in (stack.average["fc.weight"], *stack_moments(stack)))
    stack.load(pack.problems, pack.trainings)
    assert all(bool((value == 0).all()) for value in (*stack.average.values(), *stack_moments(stack)))
    assert all(torch.equal(stack.params[n][1], v) for n, v in pack.trainings[1].params.items())


def stack_moments(stack):
    kept = stack.optimizer.state.values()
    return [state[moment] for state in kept for moment in ("exp_avg", "exp_avg_sq")]
