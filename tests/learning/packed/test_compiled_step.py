"""Compiled steps: equal to those that are taken as they are written, and given up where they cannot be compiled.

`test_compiled_arms.py` has the other arms for `make soak`: on a CPU a compilation takes most of a minute.
"""

import dataclasses
import functools
import math

import pytest
import torch
from packed_losses import assert_packed_losses, without_ties

from d2l_study.learning import fit_teacher
from d2l_study.learning.packed import stack as packed_stack
from d2l_study.learning.packed.batches import ReplicateTask
from d2l_study.learning.packed.compiled import why_not_compiled
from d2l_study.learning.packed.group import Group
from d2l_study.learning.packed.structure import COMPILED_FROM
from d2l_study.learning.packed.training import Pack, compiled_where_worth_it, fit_pack, fit_teachers
from d2l_study.learning.prediction import Compute

COMPILED = Compute(packed=True, compiled=True)


@pytest.fixture(autouse=True)
def nothing_compiled_before():
    """What a process has compiled, and that it could not, is known to all its stacks."""
    packed_stack.cuda_graph_state.cache_clear()
    yield
    packed_stack.cuda_graph_state.cache_clear()


@pytest.mark.slow
def test_losses_of_compiled_steps_agree_to_1e8_in_float64(make_replicate, tiny, monkeypatch):
    stacks = []
    real = packed_stack.Stack._compile
    monkeypatch.setattr(packed_stack.Stack, "_compile", lambda self: (stacks.append(self), real(self)))
    config = dataclasses.replace(tiny, eval_every=1, steps=4)
    assert_packed_losses(config, [without_ties(make_replicate(r, train=8 + r)) for r in range(3)], COMPILED)
    (stack,) = stacks  # compiled once
    assert stack.plain_reason is None and stack.compile_seconds > 0


@pytest.fixture
def refused(monkeypatch):
    """A compiler that takes nothing."""

    def compiled(function, arguments):
        raise RuntimeError("no compiler here\nmore")

    monkeypatch.setattr(packed_stack, "compiled", compiled)


def test_a_step_that_cannot_be_compiled_is_taken_as_it_is(make_replicate, tiny, refused):
    """The cause is said once, also for later stacks of the process, and results are those of plain steps."""
    replicates = [make_replicate(r) for r in range(4)]
    with pytest.warns(UserWarning, match="not compiled: .*no compiler here$") as said:
        found = fit_teacher(tiny, replicates, compute=dataclasses.replace(COMPILED, pack=2))
    assert sum("not compiled" in str(one.message) for one in said) == 1
    plain = fit_teacher(tiny, replicates, compute=Compute(packed=True, pack=2))
    for a, b in zip(found, plain, strict=True):
        assert a.curve == b.curve and all(torch.equal(v, b.params[n]) for n, v in a.params.items())


def test_a_compiled_stack_keeps_its_places(make_replicate, tiny, monkeypatch):
    """A shorter group is filled up, and who ends leaves a place: a stack of another size would be compiled anew. Here
    the function itself stands for what is compiled of it."""
    shapes = []

    def compiled(function, arguments):
        shapes.append([tuple(leaf.shape) for leaf in arguments[0]])
        return function

    monkeypatch.setattr(packed_stack, "compiled", compiled)
    config = dataclasses.replace(tiny, learning_rate=0.01, patience=1, select="loss", eval_every=2, steps=20)
    replicates = [make_replicate(r, train=20, val=20) for r in range(5)]
    found = fit_teacher(config, replicates, compute=dataclasses.replace(COMPILED, pack=3))
    assert len({result.steps_run for result in found}) > 1, "the replicates of this test should end one by one"
    assert len(shapes) == 1 and shapes[0][0][0] == 3
    for a, b in zip(fit_teacher(config, replicates), found, strict=True):
        assert (a.steps_run, a.best_step, a.status) == (b.steps_run, b.best_step, b.status)
        assert a.metrics["bag_auc"] == pytest.approx(b.metrics["bag_auc"], abs=1e-9)


@pytest.mark.parametrize("pack", [None, 2, 1])
def test_a_run_goes_on_in_a_compiled_stack_from_any_steps(make_replicate, tiny, monkeypatch, pack):
    """One that several groups train in by turns, or one for all; its checkpoints are those of any other training."""
    monkeypatch.setattr(packed_stack, "compiled", lambda function, arguments: function)
    config = dataclasses.replace(tiny, weight_average=0.7)
    compute = dataclasses.replace(COMPILED, pack=pack)
    replicates, saved = [make_replicate(r) for r in range(3)], []
    undisturbed = fit_teacher(config, replicates)
    fit_teacher(config, replicates, compute=compute, checkpoint_every=4, checkpoint=lambda *state: saved.append(state))
    by_step = {(number, i // 3): state for i, (number, state) in enumerate(saved)}
    resumed = fit_teacher(config, replicates, compute=compute, resume={0: by_step[0, 1], 2: by_step[2, 0]})
    for a, b in zip(undisturbed, resumed, strict=True):
        assert (a.steps_run, a.best_step) == (b.steps_run, b.best_step)
        assert [c["train_loss"] for c in a.curve] == pytest.approx([c["train_loss"] for c in b.curve], rel=1e-4)


@pytest.mark.parametrize(
    ("rates", "stacks"), [((1e-3,) * 3, 1), ((1e-3, 1e-3, 1e-4), 2), ((1e-3,) * 4 + (1e-4,) * 4, 2)]
)
def test_groups_train_in_one_compiled_stack_by_turns(make_replicate, tiny, monkeypatch, rates, stacks):
    """Those of one learning rate, that is: the optimizer of a stack has it."""
    monkeypatch.setattr(packed_stack, "compiled", lambda function, arguments: function)
    made, real = [], packed_stack.Stack.__init__
    monkeypatch.setattr(packed_stack.Stack, "__init__", lambda self, *how: (made.append(self), real(self, *how))[1])
    config = dataclasses.replace(tiny, lambda_adv=0.5, weight_average=0.5)
    problems = [(dataclasses.replace(config, learning_rate=rate), make_replicate(r)) for r, rate in enumerate(rates)]
    found = fit_teachers(problems, compute=dataclasses.replace(COMPILED, pack=2))
    assert len(made) == stacks
    for (own, replicate), result in zip(problems, found, strict=True):
        (alone,) = fit_teacher(own, [replicate])
        assert [c["train_loss"] for c in alone.curve] == pytest.approx(
            [c["train_loss"] for c in result.curve], rel=1e-4
        )


@pytest.mark.parametrize(
    "arm",
    [
        {"weight_average": 0.7},
        {"lambda_adv": 0.5, "lambda_noise": 0.3, "lambda_ent": 0.02, "augment": "shift"},
        {"lambda_adv": 0.5, "unlabelled": True},
    ],
    ids=["average", "all", "unlabelled"],
)
def test_groups_merge_once_the_places_of_ended_replicates_have_room(make_replicate, tiny, monkeypatch, arm):
    """Every result is as it would be alone, nothing is compiled anew, and fewer steps are computed than by groups that
    keep what they began with."""
    shapes, stacks, moved = [], [], []

    def compiled(function, arguments):
        shapes.append([tuple(leaf.shape) for leaf in arguments[0]])
        return function

    real_run, real_admit = packed_stack.Stack.run, Group.admit
    monkeypatch.setattr(packed_stack, "compiled", compiled)
    monkeypatch.setattr(
        packed_stack.Stack, "run", lambda self, steps: (stacks.extend([self.replicates] * steps), real_run(self, steps))
    )
    monkeypatch.setattr(Group, "admit", lambda self, others: (moved.extend(others), real_admit(self, others))[1])
    unlabelled = 20 if arm.pop("unlabelled", False) else 0
    config = dataclasses.replace(
        tiny, learning_rate=0.01, patience=1, select="loss", eval_every=2, steps=24, **arm
    )  # fmt: skip
    replicates = [without_ties(make_replicate(r, train=20, val=20, unlabelled=unlabelled)) for r in range(9)]
    problems = [(config, replicate) for replicate in replicates]
    if config.lambda_adv > 0:  # scalars go with the replicate
        problems[4:] = [(dataclasses.replace(own, lambda_adv=1.0, epsilon=2.0), r) for own, r in problems[4:]]
    in_float64 = functools.partial(fit_pack, problems, range(9), dataclasses.replace(COMPILED, pack=3))
    alone = [fit_pack([one], [0], Compute(packed=True), {}, torch.float64)[0] for one in problems]
    ends = [result.steps_run for result in alone]
    assert len(set(ends)) > 2, "the replicates of this test should end one by one"
    stacks.clear()
    saved = []
    callbacks = {"checkpoint_every": 2, "checkpoint": lambda *state: saved.append(state)}
    found = in_float64(callbacks, torch.float64)
    assert moved and len(shapes) == 1
    of_groups = sum(3 * max(ends[i : i + 3]) for i in (0, 3, 6))
    assert sum(ends) <= sum(stacks) < of_groups
    resumed = in_float64({"resume": dict(saved[: len(saved) // 2])}, torch.float64)
    for a, *others in zip(alone, found, resumed, strict=True):
        for other in others:
            assert (a.steps_run, a.best_step, a.status) == (other.steps_run, other.best_step, other.status)
            for x, y in zip(a.curve, other.curve, strict=True):
                assert x == pytest.approx(y, rel=1e-7, abs=1e-8)


def test_a_gpu_without_a_kernel_compiler_is_told(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_not_compiled(torch.device("cuda"), Compute("cuda")) == "Triton is not installed"
    assert why_not_compiled(torch.device("cpu"), COMPILED) is None


def test_short_packs_are_not_compiled_unless_it_is_asked_for(make_replicate, tiny):
    problem = ReplicateTask(tiny, make_replicate(0))
    seen = tiny.steps * tiny.batch_bags * float(problem.replicate.train.sizes.mean())
    enough = math.ceil(COMPILED_FROM / seen)
    gpu = Compute("cuda")
    assert compiled_where_worth_it([problem] * enough, gpu).compiles
    assert not compiled_where_worth_it([problem] * (enough - 1), gpu).compiles
    assert not compiled_where_worth_it([problem] * enough, Compute(packed=True)).compiles
    others = make_replicate(0, unlabelled=30)
    with_vat = [ReplicateTask(dataclasses.replace(tiny, lambda_adv=0.5), r) for r in (make_replicate(0), others)]
    for arm, factor in zip(with_vat, (2.2, 3.2), strict=True):  # R_adv takes longer, and reads unlabelled bags as well
        runs = (1, int(enough / factor * 0.8), int(enough / factor * 1.2))
        assert [compiled_where_worth_it([arm] * count, gpu).compiles for count in runs] == [False, False, True]
    for asked in (True, False):
        assert compiled_where_worth_it([problem], dataclasses.replace(gpu, compiled=asked)).compiles == asked


def test_instances_of_a_compiled_step_come_in_eights(make_replicate, tiny):
    problems = [ReplicateTask(dataclasses.replace(tiny, lambda_noise=0.5), make_replicate(r)) for r in range(2)]
    plain, eights = Pack(problems, Compute(packed=True)).capacity, Pack(problems, COMPILED).capacity
    assert eights.instances % 8 == eights.noise % 8 == 0
    assert 0 <= eights.instances - plain.instances < 8 and 0 <= eights.noise - plain.noise < 8


@pytest.mark.parametrize("arm", [{}, {"extractor": "lenet_histology"}])
def test_zeros_beside_the_products_of_bfloat16_change_nothing(make_replicate, tiny, monkeypatch, arm):
    """36 inputs of the first layer become 40, and 500 features 504, where steps are compiled for a GPU."""
    monkeypatch.setattr(packed_stack, "compiled", lambda function, arguments: function)
    config = dataclasses.replace(tiny, **arm, lambda_adv=0.5, feature_width=50, eval_every=1, steps=3)
    replicates = [make_replicate(r) for r in range(2)]
    padded, plain = (
        fit_teacher(config, replicates, compute=Compute(packed=True, compiled=compiled, precision="bfloat16"))
        for compiled in (True, False)
    )
    for a, b in zip(padded, plain, strict=True):
        assert [c["train_loss"] for c in a.curve] == pytest.approx([c["train_loss"] for c in b.curve], abs=2e-3)
