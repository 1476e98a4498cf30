"""Patches that the device shifts and rotates, seen on a CPU: steps are those with the host's patches."""

import dataclasses

import pytest
import torch

from d2l_study.learning.packed import batches, device_motion
from d2l_study.learning.packed.batches import Capacity, ReplicateTask, block_steps, draw_block
from d2l_study.learning.packed.host_blocks import staged
from d2l_study.learning.packed.model import StackedModel
from d2l_study.learning.packed.stack import Stack
from d2l_study.learning.packed.training import Pack
from d2l_study.learning.prediction import Compute

VAT = {"lambda_adv": 0.5}
NOISE = {"lambda_noise": 0.5, "lambda_ent": 0.2}


def tasks(config, make_replicate, **more):
    return [ReplicateTask(config, make_replicate(r, train=7 + r, **more)) for r in range(3)]


def patches_and_params(problems, capacity, blocks):
    """The patches of every block as the steps saw them, and the parameters afterwards."""
    pack, seen = Pack(problems, Compute(packed=True), torch.float64), []
    stack = Stack(StackedModel(pack.model, len(problems), pack.compute), pack.pool_instances, torch.float64)
    stack.load(pack.problems, pack.trainings)
    for first, last in blocks:
        block = draw_block(problems, capacity, first, last)
        stack.put_block(staged(block))
        seen.append({n: v[: last - first].clone() for n, v in stack._buffers.items() if n.endswith("patches")})
        held = {n: block[n] for n in block if n.endswith("bag") and "noise" not in n}
        for name, bag in held.items():  # what stands in places of padding matters to nothing
            start = name.removesuffix("bag")
            bags = (capacity.unlabelled if start else capacity).bags
            seen[-1][f"{start}patches"][torch.from_numpy(bag % (bags + 1) == bags)] = 0
        stack.run(last - first)
    return seen, stack.params


@pytest.mark.parametrize("augment", ["shift", "affine"])
@pytest.mark.parametrize(("arm", "unlabelled"), [({}, 0), (VAT, 9), (NOISE, 0)])
def test_steps_see_the_patches_of_the_host(make_replicate, tiny, monkeypatch, augment, arm, unlabelled):
    """Exactly on one device, in blocks of unlike length, in parts, and with unlabelled bags."""
    config = dataclasses.replace(tiny, augment=augment, batch_bags=2, **arm)
    problems = tasks(config, make_replicate, unlabelled=unlabelled)
    monkeypatch.setattr(device_motion, "AT_ONCE", 7)
    host, device = (Capacity.of(problems, 1, on_device) for on_device in (False, True))
    assert device.moves and not host.moves
    assert not unlabelled or device.unlabelled.moves
    drawn = draw_block(problems, device, 0, 2)
    assert {"instance", "motion"} <= drawn.keys() and not any("patches" in name for name in drawn)
    blocks = [(0, 3), (3, 4), (4, 9)]
    found, params = patches_and_params(problems, device, blocks)
    expected, expected_params = patches_and_params(problems, host, blocks)
    assert [found_block.keys() for found_block in found] == [block.keys() for block in expected]
    for mine, theirs in zip(found, expected, strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert float(found[0]["patches"].float().std()) > 0
    assert all(torch.equal(params[name], expected_params[name]) for name in params)


def test_the_host_moves_patches_that_it_makes_noise_of(make_replicate, tiny):
    config = dataclasses.replace(tiny, augment="affine", noise_kind="shuffled", **NOISE)
    problems = tasks(config, make_replicate)
    assert not Capacity.of(problems, on_device=True).moves
    assert "patches" in draw_block(problems, Capacity.of(problems, on_device=True), 0, 1)
    assert Capacity.of(tasks(dataclasses.replace(config, lambda_noise=0.0), make_replicate), on_device=True).moves


@pytest.mark.parametrize("augment", ["none", "dihedral"])
def test_what_is_not_moved_stays_as_it_is(make_replicate, tiny, augment):
    problems = tasks(dataclasses.replace(tiny, augment=augment), make_replicate)
    assert Capacity.of(problems, on_device=True) == Capacity.of(problems)


def test_a_block_is_as_long_as_its_patches_fit_on_the_device(make_replicate, tiny, monkeypatch):
    config = dataclasses.replace(tiny, augment="affine", eval_every=30, steps=60)
    problems = tasks(config, make_replicate)
    capacity = Capacity.of(problems, on_device=True)
    assert block_steps(problems, capacity) == 30
    one = 3 * capacity.instances * problems[0].replicate.pool.instances[0].nbytes
    monkeypatch.setattr(batches, "DEVICE_BYTES", 5 * one + 1)
    assert block_steps(problems, capacity) == 5
    assert block_steps(problems, Capacity.of(problems)) == 30
    with_others = tasks(dataclasses.replace(config, lambda_adv=0.5), make_replicate, unlabelled=9)
    assert block_steps(with_others, Capacity.of(with_others, on_device=True)) in (2, 3)  # theirs lie there, too
