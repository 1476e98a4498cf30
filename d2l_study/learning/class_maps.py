"""Reference rows of networks that are trained on whole images and read at the places of instances (slides 8–9: filters
in trained networks as object detectors): class activation maps and class peak responses (`models.class_map`).

An image is a bag's, its label the bag's; images are halved first, by the mean of 2×2 pixels, which leaves a nucleus
about 13 pixels. What the network says of an instance is its class map at the instance's centre. Folds, normalisation,
steps, optimizer and selection are those of the other reference rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Unpack

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.errors import UserError
from d2l_study.learning.augmentation import augmented
from d2l_study.learning.batches import batch_bags
from d2l_study.learning.evaluation import Logits, Metrics, evaluation_metrics, validation_metrics
from d2l_study.learning.fit_checks import check_bags
from d2l_study.learning.lockstep import Callbacks, ReplicateTrainer, fit_in_lockstep
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.training import Training, parameters_and_optimizer, train_interval
from d2l_study.learning.training_result import FittedStudent
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
    from d2l_study.slides.image_files import image_size

    if not isinstance(pool, BagCollection):
        raise UserError(f"class maps need images; data set {pool.name} has none")
    if pool.tile_side is not None:
        raise UserError("class maps see images whole; patches of slides (data.mpp) are resampled from larger ones")
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
    **callbacks: Unpack[Callbacks],
) -> list[FittedStudent]:
    """Train a class map network (`cam` or `peak`) on the images and labels of each replicate's training bags.

    Of the configuration count the length, batch_bags (images per step), optimizer, eval_every, patience, select (the
    validation loss is the images' log loss), and augment where it is `dihedral` or `histology`; motions of a few pixels
    do nothing to an image. The other keywords as in `fit_teacher`. `UserError` if a bag is not one image, or its
    instances have no places in it, or a replicate lacks bags (`check_bags`).
    """
    if kind not in KINDS:
        raise UserError(f"reference: {kind!r} is no class map; expected {' or '.join(KINDS)}")
    check_bags(config, replicates)
    compute, config = compute or Compute(), config.without_teacher()
    of_pool: dict[int, list[Replicate]] = {}
    for r in replicates:
        of_pool.setdefault(id(r.pool), []).append(r)
    images = {pool: _Images(mine) for pool, mine in of_pool.items()}
    trainers = [
        ClassMapTrainer(kind, config.in_steps(r.epoch_bags), r, images[id(r.pool)], compute) for r in replicates
    ]
    return fit_in_lockstep(trainers, callbacks)


class _Images:
    """The reduced images of one collection by the number of their bag, (1, 3, H, W) uint8 each, and where the instances
    are in them; read once. replicates: of this collection."""

    def __init__(self, replicates: Sequence[Replicate]) -> None:
        pool = replicates[0].pool
        check_images(pool)
        assert isinstance(pool, BagCollection)
        self.pool = pool
        sets = [bags for r in replicates for bags in (r.train, r.val, r.test)]
        self.image = {int(b): self._read(int(b)) for b in np.unique(np.concatenate([bags.number for bags in sets]))}

    def _read(self, bag: int) -> np.ndarray:
        from d2l_study.slides.image_files import read_image

        path = self.pool.image_of(bag)
        assert path is not None
        return _reduced(read_image(path))

    def centres(self, bag: int) -> Tensor:
        """(k, 2) centres of the bag's instances (column, row) in pixels of the whole image."""
        offsets = self.pool.bags.offsets
        return torch.from_numpy(self.pool.xy[offsets[bag] : offsets[bag + 1]])


class ClassMapTrainer(ReplicateTrainer[FittedStudent]):
    """One replicate's class map network in training."""

    def __init__(
        self, kind: str, config: StudentConfig, replicate: Replicate, images: _Images, compute: Compute
    ) -> None:
        self.kind, self.config, self.images = kind, config, images
        self.streams = replicate.streams.on("class_map")
        values = class_map_init(self.streams.rng("student_init"))
        super().__init__(replicate, Training(*parameters_and_optimizer(config, values, compute)), compute)

    def advance(self) -> None:
        if train_interval(self.config, self.training, PARTS, self._loss, self._validate, "val_bag_nll"):
            self.training.status = "done"

    def _loss(self, step: int) -> tuple[Tensor, Tensor]:
        config, train, streams = self.config, self.replicate.train, self.streams
        chosen = batch_bags(streams, len(train), config.batch_bags, step, "student_order")
        one = np.zeros(1, np.int64)
        losses = []
        for place, bag in enumerate(chosen):  # images may differ in size, so one by one
            image = self.images.image[int(train.number[bag])]
            seen = augmented(config, image, one, streams.on(f"place{place}"), step)
            with self.compute.autocast():
                found = class_map(self.training.params, self.normalise(seen))
            label = torch.tensor([float(train.label[bag])], device=found.device)
            losses.append(binary_cross_entropy_with_logits(image_logit(found, self.kind), label))
        loss = torch.stack(losses).mean()
        return loss, loss.detach()[None]

    def _validate(self, params: Params) -> Metrics | None:
        logit, _ = self._scores(params, self.replicate.val)
        return validation_metrics(self.replicate, logit)

    def evaluate(self) -> FittedStudent:
        begin, training = time.perf_counter(), self.training
        values: Metrics = {}
        logits: Logits = {}
        if training.status == "done":
            val, val_instances = self._scores(training.best_params, self.replicate.val)
            test, test_instances = self._scores(training.best_params, self.replicate.test)
            found = evaluation_metrics(self.replicate, [val, test, test_instances, val_instances])
            if found is None or not np.isfinite(val_instances).all():
                training.fail_snapshot("logits")
            else:
                values, logits = found
        return FittedStudent.of(self.replicate, training, values, logits, begin, stage=self.kind)

    @torch.no_grad()
    def _scores(self, params: Params, bags: Bags) -> tuple[np.ndarray, np.ndarray]:
        """The images' logits, (bags,), and the class map at each instance, (instances,), in the order of the bags."""
        if not len(bags):
            return np.empty(0, np.float32), np.empty(0, np.float32)
        logits, scores = [], []
        for bag in bags.number.tolist():
            with self.compute.autocast():
                found = class_map(params, self.normalise(self.images.image[bag]))
            logits.append(image_logit(found, self.kind))
            scores.append(read_map(found[0], self.images.centres(bag), PIXELS))
        return torch.cat(logits).cpu().numpy(), torch.cat(scores).cpu().numpy()


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
