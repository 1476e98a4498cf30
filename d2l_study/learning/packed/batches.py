"""The steps ahead of a pack as blocks of arrays: which instances, in which bags, and every random draw, padded alike.

The draws are those of `learning.batches.draw_batch`, stream by stream and step by step; only their layout differs.
Bags are unequal, so each replicate has places for I instances a step; what is left over is padding, in a bag of its
own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from d2l_study.data.pool import Replicate
from d2l_study.data.streams import Streams
from d2l_study.learning.augmentation import augmented, is_moved, motion_draws
from d2l_study.learning.batches import batch_instances, epoch_order, float_labels, order_label
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.noise_instances import noise_counts, noise_instances
from d2l_study.learning.objective import PARTS, regularizer_weights, weight_ramp
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.regularizers import random_subset
from d2l_study.learning.training import average_share, learning_rate
from d2l_study.learning.training_noise import draw_masks, draw_mix, input_noise
from d2l_study.learning.unlabelled_bags import unlabelled_task
from d2l_study.models import hidden_width
from d2l_study.models.resnet import CHANNELS

Block = dict[str, np.ndarray]
"""Arrays of T steps and R replicates, (T, R, …), by name."""

BLOCK_BYTES = 64 * 2**20
"""Most bytes of one block; it holds an interval's steps, or as many of them as fit."""

DEVICE_BYTES = 256 * 2**20
"""Most bytes of the patches of a block that are moved on the device, where they lie until the next block."""

UNLABELLED = "unlabelled_"
"""What the names of the arrays of unlabelled bags begin with."""

_OF_STEPS = ("weights", "rate", "share")
"""Arrays of a block that are of the step, whatever bags it has."""

_PER_VALUE = ("patches", "start", "noise", "instance_noise")
"""Arrays of a block that hold every value of an instance, whose drawing takes most of its time."""

_THREADED_FROM = 1000
"""Such values of one replicate's step from which on threads draw faster than one: below, they wait for the interpreter
longer than they draw, which takes some 10 µs a step with the interpreter and 6 ns a value without."""

_EXACT_STEPS = 200_000
"""Steps up to which the largest batch is looked for in the order itself."""


@dataclass(frozen=True)
class ReplicateTask:
    """A replicate, with the streams of its ensemble member (`member_replicate`), and the configuration it is trained
    by."""

    config: TeacherConfig
    replicate: Replicate

    @cached_property
    def unlabelled(self) -> ReplicateTask | None:
        """Its unlabelled bags, as `unlabelled_task` has them."""
        found = unlabelled_task(self.config, self.replicate)
        return None if found is None else ReplicateTask(*found)


@dataclass(frozen=True)
class Capacity:
    """How much a step holds of each replicate, padding included: bags (beside the one of padding), instances, noise
    instances. moves: patches are shifted and rotated on the device (`device_motion`), not on the host; unlabelled: of
    the unlabelled bags, which lie in arrays of their own."""

    bags: int
    instances: int
    noise: int
    moves: bool = False
    unlabelled: Capacity | None = None

    @classmethod
    def of(cls, problems: Sequence[ReplicateTask], multiple: int = 1, on_device: bool = False) -> Capacity:
        """The capacity that every step of every problem needs, with one instance of padding at least. All of the
        problems learn from unlabelled bags, or none does. multiple: of which instances and noise instances are: for
        compiled steps, which are compiled anew for every shape. on_device: what the host need not compute is left to
        the device."""
        config = problems[0].config
        batch = config.batch_bags
        instances = noise = 0
        for problem in problems:
            sizes = sizes_seen(problem)
            extra = noise_counts(problem.config.noise_rate, sizes)
            if problem.config.steps <= _EXACT_STEPS:
                label = order_label(problem.config, problem.replicate.train)
                chosen = bag_orders(problem.replicate.streams, len(sizes), batch, 0, problem.config.steps, label)
                instances = max(instances, int(sizes[chosen].sum(1).max()))
                noise = max(noise, int(extra[chosen].sum(1).max()))
            else:
                instances = max(instances, batch * int(sizes.max()))
                noise = max(noise, batch * int(extra.max()))
        others = unlabelled_tasks(problems)
        instances, noise = (multiple * math.ceil(count / multiple) for count in (instances + 1, noise))
        return cls(
            batch, instances, noise if config.lambda_noise > 0 else 0,
            on_device and is_moved(config) and not _host_reads_patches(config),
            cls.of(others, multiple, on_device) if others else None,
        )  # fmt: skip


def _host_reads_patches(config: TeacherConfig) -> bool:
    """Whether noise instances are made of the patches that the step sees."""
    return config.lambda_noise > 0 and config.noise_kind == "shuffled"


def unlabelled_tasks(problems: Sequence[ReplicateTask]) -> list[ReplicateTask]:
    """The unlabelled bags of all problems, or none."""
    found = [problem.unlabelled for problem in problems]
    tasks = [task for task in found if task is not None]
    assert len(tasks) in (0, len(found))
    return tasks


def bag_orders(
    streams: Streams, bags: int, batch: int, first: int, last: int, label: np.ndarray | None = None
) -> np.ndarray:
    """(last − first, batch): `batch_bags` of the steps first … last − 1, with each epoch shuffled once."""
    position = np.arange(first * batch, last * batch)
    epoch = position // bags
    shuffled = np.stack([epoch_order(streams, e, bags, label=label) for e in range(epoch[0], epoch[-1] + 1)])
    return shuffled[epoch - epoch[0], position % bags].reshape(last - first, batch)


def sizes_seen(problem: ReplicateTask) -> np.ndarray:
    """(bags,) instances that a step sees of each training bag."""
    sizes, limit = problem.replicate.train.sizes, problem.config.instances_per_bag
    return sizes if limit is None else np.minimum(sizes, limit)


def empty_block(problems: Sequence[ReplicateTask], capacity: Capacity, steps: int) -> Block:
    """Arrays for so many steps of these problems, all padding.

    `instance` (T, R, I) into the pool; or where they are augmented `patches`, or with `instance` the draws `motion`
    (T, R, I, 3), where the device does that; `bag` (T, R, I) and `noise_bag` (T, R, J) of 0 … R·(B + 1) − 1; `label`
    (T, R, B), `weights` (T, R, 3), `rate` (T, R) the learning rate; and where asked for `share` (T, R) of the running
    mean of parameters, `start`, `noise`, `instance_noise`, `keep`, `dropout` and `depth` of instances and then noise
    instances, `mix_weight` and `mix_partner`.
    """
    config, replicates = problems[0].config, len(problems)
    shape = problems[0].replicate.pool.shape
    width = hidden_width(config.extractor, config.feature_width, shape)
    lead = (steps, replicates)
    padding = (np.arange(replicates) * (capacity.bags + 1) + capacity.bags)[None, :, None]  # each replicate's last bag
    block: Block = {
        "bag": np.tile(padding, (steps, 1, capacity.instances)),
        "label": np.zeros((*lead, capacity.bags), np.float32),
        "weights": np.zeros((*lead, len(PARTS) - 1)),
        "rate": np.zeros(lead),
    }
    if config.weight_average > 0:
        block["share"] = np.zeros(lead)
    if config.augment == "none" or capacity.moves:
        block["instance"] = np.zeros((*lead, capacity.instances), np.int64)
    if capacity.moves:
        block["motion"] = np.zeros((*lead, capacity.instances, 3), np.float32)
    elif config.augment != "none":
        block["patches"] = np.zeros((*lead, capacity.instances, *shape), np.uint8)
    if config.lambda_adv > 0 and config.direction == "power":
        block["start"] = np.zeros((*lead, capacity.instances, *shape), np.float32)
    if config.lambda_noise > 0:
        block["noise"] = np.zeros((*lead, capacity.noise, *shape), np.float32)
        block["noise_bag"] = np.tile(padding, (steps, 1, capacity.noise))
    if config.instance_noise > 0:
        block["instance_noise"] = np.zeros((*lead, capacity.instances, *shape), np.float32)
    if config.lambda_ent > 0:
        block["keep"] = np.ones((*lead, capacity.instances), np.bool_)
    if config.dropout > 0:
        block["dropout"] = np.ones((*lead, capacity.instances + capacity.noise, width), np.float32)
    if config.stochastic_depth > 0:
        block["depth"] = np.ones((*lead, capacity.instances + capacity.noise, len(CHANNELS)), np.float32)
    if config.mixup > 0:
        block["mix_weight"] = np.ones((*lead, capacity.bags), np.float32)
        block["mix_partner"] = np.zeros((*lead, capacity.bags), np.int64)
    return block


def block_steps(problems: Sequence[ReplicateTask], capacity: Capacity) -> int:
    """How many steps a block holds: a validation interval, or what fits into `BLOCK_BYTES` and `DEVICE_BYTES`."""
    one = sum(values.nbytes for values in empty_blocks(problems, capacity, 1).values())
    moved = sum(part.instances for part in (capacity, capacity.unlabelled) if part is not None and part.moves)
    moved *= len(problems) * math.prod(problems[0].replicate.pool.shape)
    most = min(BLOCK_BYTES // one, DEVICE_BYTES // max(1, moved))
    return max(1, min(problems[0].config.eval_every, most))


def empty_blocks(problems: Sequence[ReplicateTask], capacity: Capacity, steps: int) -> Block:
    """`empty_block`, and the arrays of unlabelled bags with `UNLABELLED` before their names."""
    block = empty_block(problems, capacity, steps)
    if capacity.unlabelled is not None:
        others = empty_block(unlabelled_tasks(problems), capacity.unlabelled, steps)
        block |= {UNLABELLED + name: values for name, values in others.items() if name not in _OF_STEPS}
    return block


def _emptied(block: Block, places: Sequence[int], capacity: Capacity, steps: int) -> Block:
    """The first steps of a block that was drawn into before, where these replicates are all padding again. What stands
    in places of padding matters to nothing, as long as it is finite."""
    block = {name: values[:steps] for name, values in block.items()}
    for name in ("bag", "noise_bag"):
        if name in block:
            for r in places:
                block[name][:, r] = r * (capacity.bags + 1) + capacity.bags
    return block


def draw_block(
    problems: Sequence[ReplicateTask], capacity: Capacity, first: int, last: int, into: Block | None = None,
    places: Sequence[int] | None = None,
) -> Block:  # fmt: skip
    """The steps first … last − 1 of every problem; see `empty_blocks`. into: arrays to draw them into, for as many
    steps at least, from `empty_blocks` and perhaps drawn into before. places: the replicates that are drawn, where
    `into` has the others already.

    Where there is much to draw, the replicates are drawn side by side on as many threads as torch has: numpy draws
    without holding the interpreter, and each draw has its own stream.
    """
    steps = last - first
    places = range(len(problems)) if places is None else places
    block = empty_blocks(problems, capacity, steps) if into is None else _emptied(into, places, capacity, steps)

    def draw(r: int) -> None:
        mine = {name: values[:, r] for name, values in block.items()}
        _draw(problems[r], mine, capacity, first, r * (capacity.bags + 1))

    drawn = sum(block[name][0, 0].size for name in _PER_VALUE if name in block)
    threads = min(torch.get_num_threads(), len(places))
    if threads <= 1 or drawn < _THREADED_FROM:
        for r in places:
            draw(r)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw, places))  # raises what a draw raised
    if capacity.unlabelled is not None:
        theirs = {name.removeprefix(UNLABELLED): v for name, v in block.items() if name.startswith(UNLABELLED)}
        # Weights and rate of a step are those of its labelled bags: `drawing_config` has no weights but that of R_adv.
        theirs |= {name: np.empty_like(block[name]) for name in _OF_STEPS if name in block}
        draw_block(unlabelled_tasks(problems), capacity.unlabelled, first, last, theirs, places)
    return block


def _draw(problem: ReplicateTask, block: Block, capacity: Capacity, first: int, first_bag: int) -> None:
    """One replicate's part of a block, (T, …)."""
    config, replicate = problem.config, problem.replicate
    train, streams = replicate.train, replicate.streams
    steps = len(block["rate"])
    label = order_label(config, train)
    chosen = bag_orders(streams, len(train), config.batch_bags, first, first + steps, label)
    sizes = sizes_seen(problem)[chosen]  # (T, B)
    block["label"][:] = float_labels(train.label[chosen])
    numbers = range(first, first + steps)
    ramp = np.array([weight_ramp(config, step) for step in numbers])
    block["weights"][:] = ramp[:, None] * regularizer_weights(config)
    block["rate"][:] = [learning_rate(config, step) for step in numbers]
    if "share" in block:
        block["share"][:] = [average_share(config, step) for step in numbers]
    # All steps' instances at once: step t's bags are t·B … t·B + B − 1 of the row.
    if config.instances_per_bag is None:
        positions, row = train.select(chosen.ravel())
    else:
        limit, batch = config.instances_per_bag, config.batch_bags
        drawn = [batch_instances(limit, train, chosen[t], streams, first + t) for t in range(steps)]
        positions = np.concatenate([at for at, _ in drawn])
        row = np.concatenate([bag_of + t * batch for t, (_, bag_of) in enumerate(drawn)])
    total = sizes.sum(1)
    t_of, slot = _places(total)
    block["bag"][t_of, slot] = first_bag + row % config.batch_bags
    if "instance" in block:
        block["instance"][t_of, slot] = train.instance[positions]
    if "motion" in block:
        rngs = streams.rngs("augment", numbers)
        for rng, motion, count in zip(rngs, block["motion"], total.tolist(), strict=True):
            motion[:count] = motion_draws(rng, count)
    if "keep" in block:
        rngs = streams.rngs("subset", numbers)
        draws = np.concatenate([rng.random(count) for rng, count in zip(rngs, total.tolist(), strict=True)])
        kept = random_subset(
            torch.from_numpy(draws), torch.from_numpy(row), steps * config.batch_bags, config.drop_rate
        )
        block["keep"][t_of, slot] = kept.numpy()
    noisy = noise_counts(config.noise_rate, sizes)  # (T, B)
    if "noise" in block:
        owner = np.repeat(np.tile(np.arange(config.batch_bags), steps), noisy.ravel())
        block["noise_bag"][_places(noisy.sum(1))] = first_bag + owner
        if config.noise_kind == "gaussian":
            rngs = streams.rngs("noise", numbers)
            for rng, noise, count in zip(rngs, block["noise"], noisy.sum(1).tolist(), strict=True):
                rng.standard_normal(out=noise[:count], dtype=np.float32)
    by_step = {"patches", "start", "dropout", "depth", "mix_weight", "instance_noise"} & block.keys()
    if by_step or ("noise" in block and config.noise_kind != "gaussian"):
        instance, bag_of = train.instance[positions], row % config.batch_bags
        _draw_steps(problem, block, capacity, first, instance, bag_of, chosen, sizes, noisy)


def _places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Step and place in it of what all steps hold, `counts` (T,) of each, one step behind the other."""
    return np.repeat(np.arange(len(counts)), counts), np.arange(counts.sum()) - np.repeat(
        np.cumsum(counts) - counts, counts
    )


def _draw_steps(
    problem: ReplicateTask, block: Block, capacity: Capacity, first: int, instance: np.ndarray, bag_of: np.ndarray,
    chosen: np.ndarray, sizes: np.ndarray, noisy: np.ndarray,
) -> None:  # fmt: skip
    """The draws that are made step by step. instance, bag_of: of all steps' instances; chosen: (T, B) their training
    bags; sizes: (T, B) of these; noisy: (T, B) the noise instances that are put into them."""
    config, pool, streams = problem.config, problem.replicate.pool, problem.replicate.streams
    width = hidden_width(config.extractor, config.feature_width, pool.shape)
    normalise = Normalise.of(problem.replicate, Compute())
    begin = 0
    for t, count in enumerate(sizes.sum(1).tolist()):
        step, mine = first + t, slice(begin, begin + count)
        begin += count
        patches = None
        if "patches" in block or _host_reads_patches(config):
            patches = augmented(config, pool.instances[instance[mine]], bag_of[mine], streams, step)
        if "patches" in block:
            block["patches"][t, :count] = patches
        if "start" in block:
            streams.rng("vat", step).standard_normal(out=block["start"][t, :count], dtype=np.float32)
        extra = int(noisy[t].sum()) if "noise" in block else 0
        if "noise" in block and config.noise_kind != "gaussian":
            owner = np.repeat(np.arange(sizes.shape[1]), noisy[t])
            seen = np.empty((count, *pool.shape), pool.instances.dtype) if patches is None else patches
            block["noise"][t, :extra] = noise_instances(
                config.noise_kind, streams.rng("noise", step), owner, seen, bag_of[mine], chosen[t], pool,
                problem.replicate.train, normalise,
            )  # fmt: skip
        if "instance_noise" in block:
            noise = input_noise(streams, step, (count, *pool.shape), config.instance_noise)
            block["instance_noise"][t, :count] = noise
        if "dropout" in block or "depth" in block:
            shape = (count + extra, width)
            masks = draw_masks(streams, step, shape, config.dropout, config.stochastic_depth, torch.device("cpu"))
        for name in ("dropout", "depth"):
            if name in block:
                values = getattr(masks, name).numpy()
                block[name][t, :count] = values[:count]
                block[name][t, capacity.instances : capacity.instances + extra] = values[count:]
        if "mix_weight" in block:
            weight, partner = draw_mix(streams, step, block["label"][t], config.mixup, torch.device("cpu"))
            block["mix_weight"][t], block["mix_partner"][t] = weight, partner


def padding_share(problems: Sequence[ReplicateTask], capacity: Capacity) -> float:
    """The share of instance places that hold padding, in the mean over training."""
    mean = [p.config.batch_bags * float(sizes_seen(p).mean()) for p in problems]
    return 1.0 - float(np.mean(mean)) / capacity.instances
