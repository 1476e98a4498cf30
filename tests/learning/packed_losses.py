"""The losses of packed training held against training one by one, in float64."""

import dataclasses

import numpy as np
import torch

from d2l_study.learning.batches import Batch
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.packed.batches import ReplicateTask
from d2l_study.learning.packed.training import Pack
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.unlabelled_bags import draw_teacher_batch


def assert_packed_losses(config, replicates, compute):
    """Loss and parts of the first four steps agree to 1e-8. config: validated at every step."""
    pack = Pack([ReplicateTask(config, r) for r in replicates], compute, torch.float64)
    for _ in range(4):
        for i in range(len(replicates)):
            pack.advance(i)
    for training, replicate in zip(pack.trainings, replicates, strict=True):
        packed = [[c[n] for n in ("train_loss", "bce", "r_adv", "r_noise", "r_ent")] for c in training.curve]
        np.testing.assert_allclose(packed, losses_one_by_one(config, replicate, 4), rtol=0, atol=1e-8)


def without_ties(replicate):
    """The replicate with noise on its patches: on a digit's even background the outputs of neighbouring places are
    equal, and rounding, which differs from one machine's matrix products to another's, then decides whose gradient the
    direction of R_adv follows."""
    instances = replicate.pool.instances
    noise = np.random.default_rng(0).integers(0, 64, instances.shape, dtype=np.uint8)
    pool = dataclasses.replace(replicate.pool, instances=instances ^ noise)
    return dataclasses.replace(replicate, pool=pool)


def in_float64(batch):
    values = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    if batch.unlabelled is not None:
        values["unlabelled"] = in_float64(batch.unlabelled)
    return Batch(**values | {n: v.double() for n, v in values.items() if torch.is_tensor(v) and v.is_floating_point()})


def losses_one_by_one(config, replicate, steps):
    """Loss and parts of each step in float64, by the plain loss and PyTorch's plain Adam."""
    model = teacher_model(config, replicate)
    params = {n: v.double().requires_grad_(True) for n, v in model.init(replicate.streams.rng("init")).items()}
    optimizer = torch.optim.Adam(params.values(), lr=config.learning_rate, weight_decay=config.weight_decay)
    normalise, found = Normalise.of(replicate, Compute()), []
    for step in range(steps):
        batch = draw_teacher_batch(config, replicate, step, normalise)
        ramp = min(1.0, (step + 1) / config.ramp_steps) if config.ramp_steps else 1.0
        loss, parts = teacher_loss(model, params, in_float64(batch), config, ramp, Compute())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append([loss.item(), *parts.tolist()])
    return np.array(found)
