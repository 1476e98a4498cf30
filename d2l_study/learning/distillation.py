"""The student's loss, and what teachers hand to it (slides 15–16; Hinton, Vinyals, Dean 2015).

    L_s = λ T² CE( q_j, σ(s_j/T) ) + α CE( 0, s_j ) on instances of negative bags + β BCE( Y, pooled scores )

The first two are means over all instances of a step (an instance of a positive bag adds 0 to the second), the third
a mean over its bags. With λ = 0 no soft label q is read. No instance label is read here.
"""

from __future__ import annotations

import functools
import hashlib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from d2l_study.data.neighbours import neighbour_means
from d2l_study.data.pool import Replicate
from d2l_study.data.streams import Streams
from d2l_study.errors import UserError
from d2l_study.learning import metrics
from d2l_study.learning.augmentation import augmented
from d2l_study.learning.batches import batch_bags, batch_instances, float_labels
from d2l_study.learning.prediction import Compute, Normalise, instance_terms
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training_noise import draw_masks, draw_mix, input_noise, mix, shift_and_rotate
from d2l_study.models import Masks, MilModel, Params, Terms, hidden_width

STUDENT_PARTS = ("distill", "known_negative", "bag_consistency")


@dataclass(frozen=True)
class TeacherTargets:
    """What one teacher of one replicate says about the instances, and whose bags it learned from.

    train_logits, val_logits: the logits of the bags {x_j}, in the order of the replicate's `train.instance` and
    `val.instance`; bags: `bags_digest` of the replicate; params, extractor, feature_width: for students that start
    from the teacher's weights; cross_fit: of how many part teachers train_logits are (`cross_fitting`), 0: its own;
    unlabelled_logits: those of the instances of `unlabelled`, None where they were not asked for.
    """

    dataset: str
    base_seed: int
    replicate: int
    fold: int | None
    bags: str
    train_logits: np.ndarray
    val_logits: np.ndarray
    params: Params | None = None
    extractor: str = ""
    feature_width: int = 0
    hidden_layers: int = 1
    cross_fit: int = 0
    unlabelled_logits: np.ndarray | None = None


def bags_digest(replicate: Replicate) -> str:
    """A hash of the training and validation bags: which instances, in which bags, with which labels."""
    digest = hashlib.blake2b(digest_size=16)
    for bags in (replicate.train, replicate.val):
        for values in (bags.offsets, bags.instance, bags.label):
            digest.update(np.ascontiguousarray(values, np.int64).tobytes())
    return digest.hexdigest()


def teacher_targets(
    model: MilModel, params: Params, replicate: Replicate, compute: Compute | None = None, unlabelled: bool = False
) -> TeacherTargets:
    """What a trained teacher (or student) says about the instances of its replicate's training and validation bags, and
    with `unlabelled` of its unlabelled ones.

    `UserError` if there are no parameters, as of a teacher that failed.
    """
    if not params:
        raise UserError(f"replicate {replicate.number}: its teacher has no parameters (it failed), so it cannot teach")
    compute = compute or Compute()
    sets = [replicate.train.instance, replicate.val.instance]
    sets += [replicate.unlabelled.instance] if unlabelled else []
    distinct, inverse = np.unique(np.concatenate(sets), return_inverse=True)
    normalise = Normalise.of(replicate, compute)
    logit = instance_terms(model, params, replicate.pool, distinct, normalise, compute).logit.cpu().numpy()[inverse]
    train, val, *further = np.split(logit, np.cumsum([len(own) for own in sets])[:-1])
    return TeacherTargets(
        replicate.streams.dataset, replicate.streams.base_seed, replicate.number, replicate.fold,
        bags_digest(replicate), train, val, params, model.extractor, model.feature_width, model.layers,
        unlabelled_logits=further[0] if further else None,
    )  # fmt: skip


def check_teachers(config: StudentConfig, replicate: Replicate, members: Sequence[TeacherTargets]) -> None:
    """A student learns from teachers of its own data set, base seed, replicate, fold and bags only, and starts from the
    weights of one only that holds them: `UserError`."""
    if len(members) != config.teachers:
        raise UserError(
            f"teachers: replicate {replicate.number} has {len(members)} teachers; expected {config.teachers}"
        )
    for member in members:
        check_origin(member, replicate)
        if member.cross_fit != (config.cross_fit if config.lambda_distill > 0 else 0):
            raise UserError(
                f"cross_fit: {config.cross_fit}; replicate {replicate.number} was given soft labels of "
                f"{member.cross_fit} part teachers"
            )
        if member.bags != bags_digest(replicate):
            raise UserError(
                f"replicate {replicate.number}: a teacher trained on other bags was given to the student (other values "
                "of data.num_bags or another data key); a student learns from teachers of its own bags only"
            )
        sizes = (len(member.train_logits), len(member.val_logits))
        if sizes != (len(replicate.train.instance), len(replicate.val.instance)):
            raise UserError(
                f"replicate {replicate.number}: its teacher has logits of {sizes} instances, not of its own"
            )
        if not (np.isfinite(member.train_logits).all() and np.isfinite(member.val_logits).all()):
            raise UserError(f"replicate {replicate.number}: a teacher's logits are not finite")
        config.check_teacher(member.extractor, member.feature_width, member.hidden_layers)
    if config.start == "teacher" and not members[0].params:
        raise UserError(
            f"start: teacher needs the weights of the first teacher; what replicate {replicate.number} was given holds "
            "no params (teacher_targets keeps them)"
        )


def check_origin(teacher: TeacherTargets, replicate: Replicate) -> None:
    """`UserError` for a teacher of another data set, base seed, replicate or fold than its student's."""
    streams = replicate.streams
    own = (streams.dataset, streams.base_seed, replicate.number, replicate.fold)
    found = (teacher.dataset, teacher.base_seed, teacher.replicate, teacher.fold)
    for key, a, b in zip(("data set", "base seed", "replicate", "fold"), found, own, strict=True):
        if a != b:
            raise UserError(
                f"replicate {replicate.number}: a teacher of {key} {a} was given to a student of {key} {b}; "
                "a student learns from teachers of its own replicate and fold only"
            )


def soft_targets(logits: Sequence[np.ndarray], temperature: float) -> np.ndarray:
    """q_j = mean over the teachers of σ(logit_j / T), (instances,) float32 in [0, 1].

    The mean is over probabilities: the ensemble is a mixture, so members that disagree give a q near 1/2, where the
    mean of their logits would let one overconfident member outvote the others.
    """
    found = np.mean([metrics.probability(np.asarray(logit, np.float64) / temperature) for logit in logits], axis=0)
    return found.astype(np.float32)


def unlabelled_soft_labels(
    config: StudentConfig, replicate: Replicate, teachers: Sequence[TeacherTargets]
) -> np.ndarray | None:
    """As `training_soft_labels`, of the instances of unlabelled bags; None if the student reads none of them. Teachers
    know no labels of these bags, so that with `cross_fit`, too, those of all training bags label them.

    `UserError` if a teacher was not asked about them.
    """
    if not config.distils_unlabelled or not len(replicate.unlabelled):
        return None
    logits = [own.unlabelled_logits for own in teachers if own.unlabelled_logits is not None]
    count = len(replicate.unlabelled.instance)
    if len(logits) != len(teachers) or any(len(own) != count or not np.isfinite(own).all() for own in logits):
        raise UserError(f"unlabelled: replicate {replicate.number}: a teacher has no finite logits of the {count} "
                        "instances of its unlabelled bags (teacher_targets(…, unlabelled=True))")  # fmt: skip
    found = soft_targets(logits, config.temperature)
    return neighbour_means(found, replicate.pool, replicate.unlabelled, config.neighbours)


def training_soft_labels(
    config: StudentConfig, replicate: Replicate, teachers: Sequence[TeacherTargets]
) -> tuple[np.ndarray, np.ndarray]:
    """The soft labels that a student of these teachers learns from, of the training and the validation instances,
    (instances,) each, averaged over `config.neighbours` neighbours in the image.

    A teacher errs on a patch by how it looks, and a student of the same looks repeats the error; the neighbours' labels
    err otherwise, so that their mean tells the student what its teacher did not know of that patch.
    """
    parts = ((replicate.train, [t.train_logits for t in teachers]), (replicate.val, [t.val_logits for t in teachers]))
    train, val = (
        neighbour_means(soft_targets(logits, config.temperature), replicate.pool, bags, config.neighbours)
        for bags, logits in parts
    )
    return train, val


@dataclass(frozen=True)
class StudentBatch:
    """One step's bags and draws: x (instances, C, H, W), already noised; bag_index (instances,); label (bags,) and
    target q (instances,) float, None where none is read; masks; mix: weight and partner of each instance, (instances,)
    each; unlabelled: the unlabelled bags of the step, for the distillation term alone."""

    x: Tensor
    bag_index: Tensor
    label: Tensor
    target: Tensor | None
    masks: Masks | None = None
    mix: tuple[Tensor, Tensor] | None = None
    unlabelled: StudentBatch | None = None


def draw_student_batch(
    config: StudentConfig, replicate: Replicate, streams: Streams, target: np.ndarray | None, step: int,
    normalise: Normalise,
) -> StudentBatch:  # fmt: skip
    """Bags with their targets and the noise of one step, each draw from its own stream.

    target: (instances of the training bags,) soft labels; None where none is read. The teacher saw clean instances; the
    student sees noised ones ("noisy student", Xie et al. 2020).
    """
    train = replicate.train
    chosen = batch_bags(streams, len(train), config.batch_bags, step, "student_order")
    positions, bag_of = batch_instances(config.instances_per_bag, train, chosen, streams, step)
    device, count = normalise.mean.device, len(positions)
    width = hidden_width(config.network, config.feature_width, replicate.pool.shape)
    mixes = config.mixup > 0 and target is not None
    x = normalise(augmented(config, replicate.pool.instances[train.instance[positions]], bag_of, streams, step))
    if config.augment in ("shift", "affine"):
        draws = streams.rng("augment", step).uniform(-1, 1, (count, 3)).astype(np.float32)
        degrees = config.rotation_degrees if config.augment == "affine" else 0.0
        x = shift_and_rotate(x, torch.from_numpy(draws).to(device), config.shift_pixels, degrees)
    if config.input_noise > 0:
        noise = input_noise(streams, step, tuple(x.shape), config.input_noise, "student_noise")
        x = x + torch.from_numpy(noise).to(device)
    return StudentBatch(
        x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
        torch.from_numpy(bag_of).to(device),
        torch.from_numpy(float_labels(train.label[chosen])).to(device),
        None if target is None else torch.from_numpy(target[positions]).to(device),
        draw_masks(streams, step, (count, width), config.dropout, config.stochastic_depth, device),
        draw_mix(streams, step, train.label[chosen][bag_of], config.mixup, device) if mixes else None,
    )


def student_loss(
    model: MilModel, params: Params, batch: StudentBatch, config: StudentConfig, compute: Compute
) -> tuple[Tensor, Tensor]:
    """The loss (a scalar with its graph) and its unweighted parts, (3,) detached, in the order of `STUDENT_PARTS`.

    With mixup (Verma et al. 2019) the distillation term compares mixed hidden features with mixed targets. They are
    mixed before the network's last hidden layer and its ReLU: mixing h itself would only mix logits, the classifier
    being linear. The other two terms see the instances unmixed. The distillation term is the mean over the instances of
    labelled and unlabelled bags alike, the others over those of labelled ones.
    """
    bags = len(batch.label)
    terms, own = _terms_and_distillation(model, params, batch, config, compute)
    negative = known_negative_loss(terms.logit, batch.label[batch.bag_index])
    pooled = model.pool(params, terms, batch.bag_index, bags)
    bag = binary_cross_entropy_with_logits(pooled, batch.label)
    distill = torch.zeros_like(bag)
    weighted = []
    if own is not None:
        distill = own
        if batch.unlabelled is not None:
            _, other = _terms_and_distillation(model, params, batch.unlabelled, config, compute)
            assert other is not None
            distill = torch.lerp(own, other, len(batch.unlabelled.x) / (len(batch.x) + len(batch.unlabelled.x)))
        weighted.append(config.lambda_distill * distill)
    if config.alpha > 0:
        weighted.append(config.alpha * negative)
    if config.beta > 0:
        weighted.append(config.beta * bag)
    loss = functools.reduce(operator.add, weighted)
    return loss, torch.stack([distill.detach(), negative.detach(), bag.detach()])


def _terms_and_distillation(
    model: MilModel, params: Params, batch: StudentBatch, config: StudentConfig, compute: Compute
) -> tuple[Terms, Tensor | None]:
    """The terms of the instances, unmixed, and the mean distillation loss over them; None where none is read."""
    with compute.autocast():
        maps = model.maps(params, batch.x, batch.masks)
        terms = model.terms_of_maps(params, maps, batch.masks)
    if batch.target is None or config.lambda_distill == 0:
        return terms, None
    mixed_logit, target = terms.logit, batch.target
    if batch.mix is not None:
        with compute.autocast():
            mixed_logit = model.terms_of_maps(params, mix(maps, *batch.mix), batch.masks).logit
        target = mix(target, *batch.mix)
    return terms, distillation_loss(target, mixed_logit, config.temperature)


def distillation_loss(target: Tensor, logit: Tensor, temperature: float) -> Tensor:
    """T² · mean CE( q, σ(s/T) ), in nats. T² keeps the gradient's size as T grows (Hinton et al. 2015): for T → ∞
    with q = σ(t/T), its gradient becomes that of the squared difference of logits, (s − t)²/8."""
    return temperature**2 * binary_cross_entropy_with_logits(logit / temperature, target)


def known_negative_loss(logit: Tensor, bag_label: Tensor) -> Tensor:
    """CE( 0, s_j ) = log(1 + e^{s_j}) of the instances in negative bags, as a mean over all instances.

    bag_label: (instances,) the label of each instance's bag.
    """
    return torch.where(bag_label == 0, softplus(logit), torch.zeros_like(logit)).mean()


def distillation_divergence(target: np.ndarray, logit: np.ndarray, temperature: float) -> float:
    """T² · mean KL( q ‖ σ(s/T) ): the distillation loss less the teacher's own entropy, 0 for its perfect copy.
    NaN of nothing."""
    if not len(target):
        return math.nan
    q, scaled = np.asarray(target, np.float64), np.asarray(logit, np.float64) / temperature
    entropy = -(_xlogx(q) + _xlogx(1 - q))
    cross = q * np.logaddexp(0, -scaled) + (1 - q) * np.logaddexp(0, scaled)
    return float(temperature**2 * np.mean(cross - entropy))


def _xlogx(p: np.ndarray) -> np.ndarray:
    return p * np.log(np.where(p > 0, p, 1.0))
