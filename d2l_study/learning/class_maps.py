"""Reference rows of networks that are trained on whole images and read at the places of instances (slides 8–9: filters
in trained networks as object detectors): class activation maps and class peak responses (`models.class_map`).

An image is a bag's, its label the bag's; images are halved first, by the mean of 2×2 pixels, which leaves a nucleus
about 13 pixels. What the network says of an instance is its class map at the instance's centre. Folds, normalisation,
steps, optimizer and selection are those of the other reference rows.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.errors import UserError
from d2l_study.learning import metrics
from d2l_study.learning.augmentation import augmented
from d2l_study.learning.instance_metrics import instance_metrics
from d2l_study.learning.lockstep import Checkpoint, Report, train_in_lockstep
from d2l_study.learning.objective import batch_bags
from d2l_study.learning.prediction import Compute, Normalise, bag_metrics
from d2l_study.learning.student import FittedStudent
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.thresholds import label_free_threshold
from d2l_study.learning.training import Training, train_interval, trainable
from d2l_study.learning.undefined import warn_of_undefined
from d2l_study.models import Params
from d2l_study.models.class_map import KINDS, LEAST_SIDE, SCALE, class_map, class_map_init, image_logit, read_map

REDUCTION = 2
"""Pixels of an image's side that become one."""

MOST_PIXELS = 2_000_000
"""Of an image after reduction: the network sees it whole."""

PIXELS = SCALE * REDUCTION
"""Pixels of an image's side that one place of a class map stands for."""

PARTS = ("bce",)


def check_images(pool: Pool) -> None:
    """`UserError` if a bag is not one image, its instances have no places in it, or an image is too small or too
    large for the network; decodes nothing."""
    from d2l_study.data.image_files import image_size

    if not isinstance(pool, BagCollection):
        raise UserError(f"class maps need images; data set {pool.name} has none")
    for bag, name in enumerate(pool.names):
        path = pool.image_of(bag)
        if path is None:
            raise UserError(f"class maps need bags of one image each; bag {name!r} is not")
        if not np.isfinite(pool.xy[pool.bags.offsets[bag] : pool.bags.offsets[bag + 1]]).all():
            raise UserError(f"class maps need the places of instances; bag {name!r} has none (data.cut: whole)")
        width, height = image_size(path)
        columns, rows = width // REDUCTION, height // REDUCTION
        if min(columns, rows) < LEAST_SIDE or columns * rows > MOST_PIXELS:
            raise UserError(
                f"{path}: {width}×{height} pixels; class maps need a side of at least {LEAST_SIDE * REDUCTION} and at "
                f"most {MOST_PIXELS * REDUCTION**2:,} in all"
            )


def fit_class_map(
    kind: str,
    config: StudentConfig,
    replicates: Sequence[Replicate],
    *,
    compute: Compute | None = None,
    report: Report | None = None,
    checkpoint: Checkpoint | None = None,
    checkpoint_every: int = 0,
    resume: Mapping[int, bytes] | None = None,
) -> list[FittedStudent]:
    """Train a class map network (`cam` or `peak`) on the images and labels of each replicate's training bags.

    Of the configuration count steps, batch_bags (images per step), optimizer, eval_every, patience, select (the
    validation loss is the images' log loss), and augment where it is `dihedral` or `histology`; motions of a few pixels
    do nothing to an image. `UserError` if a bag is not one image, or its instances have no places in it.
    """
    if kind not in KINDS:
        raise UserError(f"reference: {kind!r} is no class map; expected {' or '.join(KINDS)}")
    compute, config = compute or Compute(), config.without_teacher()
    images = _Images(replicates)
    normalise = [Normalise.of(replicate, compute) for replicate in replicates]
    trainings = []
    for replicate in replicates:
        values = class_map_init(replicate.streams.on("class_map").rng("student_init"))
        training = Training(*trainable(config, values, compute))
        if resume and replicate.number in resume:
            training.load_bytes(resume[replicate.number])
        trainings.append(training)
    train_in_lockstep(
        [replicate.number for replicate in replicates], trainings,
        lambda i: _interval(kind, config, replicates[i], images, trainings[i], normalise[i], compute),
        report, checkpoint, checkpoint_every,
    )  # fmt: skip
    return [
        _evaluate(kind, replicate, images, training, norm, compute)
        for replicate, training, norm in zip(replicates, trainings, normalise, strict=True)
    ]


class _Images:
    """The reduced images of a collection by the number of their bag, (1, 3, H, W) uint8 each, and where the instances
    are in them; read once."""

    def __init__(self, replicates: Sequence[Replicate]) -> None:
        pool = replicates[0].pool
        check_images(pool)
        assert isinstance(pool, BagCollection)
        self.pool = pool
        sets = [bags for r in replicates for bags in (r.train, r.val, r.test)]
        self.image = {int(b): self._read(int(b)) for b in np.unique(np.concatenate([bags.number for bags in sets]))}

    def _read(self, bag: int) -> np.ndarray:
        from d2l_study.data.image_files import read_image

        path = self.pool.image_of(bag)
        assert path is not None
        return _reduced(read_image(path))

    def places(self, bag: int) -> Tensor:
        """(k, 2) centres of the bag's instances (column, row) in pixels of the whole image."""
        offsets = self.pool.bags.offsets
        return torch.from_numpy(self.pool.xy[offsets[bag] : offsets[bag + 1]])


def _interval(
    kind: str,
    config: StudentConfig,
    replicate: Replicate,
    images: _Images,
    training: Training,
    normalise: Normalise,
    compute: Compute,
) -> None:
    """One interval of a replicate, up to its validation."""
    streams, train = replicate.streams.on("class_map"), replicate.train
    one = np.zeros(1, np.int64)

    def loss_of(step: int) -> tuple[Tensor, Tensor]:
        chosen = batch_bags(streams, len(train), config.batch_bags, step, "student_order")
        losses = []
        for place, bag in enumerate(chosen):  # images may differ in size, so one by one
            seen = augmented(config, images.image[int(train.number[bag])], one, streams.on(f"place{place}"), step)
            with compute.autocast():
                found = class_map(training.params, normalise(seen))
            label = torch.tensor([float(train.label[bag])], device=found.device)
            losses.append(binary_cross_entropy_with_logits(image_logit(found, kind), label))
        loss = torch.stack(losses).mean()
        return loss, loss.detach()[None]

    def validate(params: Params) -> dict[str, float] | None:
        logit, _ = _scores(kind, params, images, replicate.val, normalise, compute)
        if not np.isfinite(logit).all():
            return None
        label = replicate.val.label
        return {"val_bag_auc": metrics.auc(label, logit), "val_bag_nll": metrics.log_loss(label, logit)}

    if train_interval(config, training, PARTS, loss_of, validate, "val_bag_nll"):
        training.status = "done"


def _reduced(image: np.ndarray) -> np.ndarray:
    """image: (H, W, 3) uint8 -> (1, 3, H // 2, W // 2) uint8."""
    pixels = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    return F.avg_pool2d(pixels, REDUCTION).round().to(torch.uint8).numpy()


@torch.no_grad()
def image_scores(
    params: Params, image: np.ndarray, xy: np.ndarray, replicate: Replicate, compute: Compute
) -> tuple[np.ndarray, np.ndarray]:
    """One image's class map, (rows, columns) float32, and its values at places, (k,).

    image: (H, W, 3) uint8; xy: (k, 2) (column, row) in its pixels; replicate: the one trained on, which normalises.
    Element [i, j] stands for `PIXELS` × `PIXELS` pixels, whose middle is at column (j + ½) · PIXELS − ½.
    """
    with compute.autocast():
        (found,) = class_map(params, Normalise.of(replicate, compute)(_reduced(image)))
    return found.cpu().numpy(), read_map(found, torch.from_numpy(xy), PIXELS).cpu().numpy()


@torch.no_grad()
def _scores(
    kind: str, params: Params, images: _Images, bags: Bags, normalise: Normalise, compute: Compute
) -> tuple[np.ndarray, np.ndarray]:
    """The images' logits, (bags,), and the class map at each instance, (instances,), in the order of the bags."""
    logits, scores = [], []
    for bag in bags.number.tolist():
        with compute.autocast():
            found = class_map(params, normalise(images.image[bag]))
        logits.append(image_logit(found, kind))
        scores.append(read_map(found[0], images.places(bag), PIXELS))
    return torch.cat(logits).cpu().numpy(), torch.cat(scores).cpu().numpy()


def _evaluate(
    kind: str, replicate: Replicate, images: _Images, training: Training, normalise: Normalise, compute: Compute
) -> FittedStudent:
    begin = time.perf_counter()
    found: dict[str, float] = {}
    logits: dict[tuple[str, str], np.ndarray] = {}
    if training.status == "done":
        val, val_scores = _scores(kind, training.best_params, images, replicate.val, normalise, compute)
        test, test_scores = _scores(kind, training.best_params, images, replicate.test, normalise, compute)
        if all(np.isfinite(values).all() for values in (val, val_scores, test, test_scores)):
            logits = {("val", "bag"): val, ("test", "bag"): test, ("test", "instance"): test_scores}
            found = bag_metrics(replicate.val.label, val, "val_bag") | bag_metrics(replicate.test.label, test, "bag")
            found |= instance_metrics(replicate, test_scores, label_free_threshold(val_scores, replicate.val))
            warn_of_undefined(replicate)
        else:
            training.status = "failed"
            training.cause = f"the logits of the snapshot of step {training.best_step} are not finite"
    return FittedStudent(
        replicate.number, training.status, training.cause, training.best_params, training.best_step, training.step,
        training.seconds, time.perf_counter() - begin, training.curve, found, logits, kind,
    )  # fmt: skip
