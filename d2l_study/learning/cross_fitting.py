"""Cross-fitted soft labels: those of a training bag come from a teacher that was not trained on it.

A teacher has seen the bags that it labels for its student, and is over-confident there. With `cross_fit: F` the
training bags are split into F parts (`training_parts`), and F part teachers of the same configuration are each trained
on the others (Chernozhukov et al. 2018, "cross-fitting"; as out-of-fold predictions in stacking, Wolpert 1992).

    part = TrainingPart(5, 2)
    fitted = fit_teacher(config, [without_part(r, part) for r in replicates])
    targets = cross_fitted_targets(teacher, [part_targets(model, params, r, part) for …], r)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from d2l_study.data.pool import Replicate
from d2l_study.errors import UserError
from d2l_study.learning.distillation import TeacherTargets, bags_digest, check_origin, teacher_targets
from d2l_study.learning.part_config import TrainingPart
from d2l_study.learning.prediction import Compute
from d2l_study.learning.training_parts import training_parts, without_part
from d2l_study.models import MilModel, Params


def part_targets(
    model: MilModel, params: Params, replicate: Replicate, left_out: TrainingPart, compute: Compute | None = None
) -> TeacherTargets:
    """What a part teacher says about the instances of the part that it was not trained on, and of no others.

    replicate: the whole one. `bags` of the result is the digest of what the part teacher was trained on
    (`without_part`); train_logits are in the order of the part's bags, val_logits empty. `UserError` without
    parameters, as of a teacher that failed.
    """
    mine = np.flatnonzero(training_parts(replicate, left_out.cross_fit) == left_out.part)
    seen = dataclasses.replace(replicate, train=replicate.train.subset(mine), val=replicate.val.subset([]))
    found = teacher_targets(model, params, seen, compute)
    return dataclasses.replace(found, bags=bags_digest(without_part(replicate, left_out)), params=None)


def cross_fitted_targets(
    teacher: TeacherTargets, part_teachers: Sequence[TeacherTargets], replicate: Replicate
) -> TeacherTargets:
    """A teacher's targets with the training logits of its part teachers, each of the part that it has not seen.

    teacher: of the teacher that was trained on all bags, whose validation logits and weights stay: it has seen no
    validation bag. part_teachers: `part_targets` of part 0, 1, … `UserError` if one of them is of another replicate or
    fold, or was trained on other bags than all outside of its part.
    """
    parts = len(part_teachers)
    part_of = training_parts(replicate, parts)[replicate.train.bag_of]
    logits = np.empty(len(part_of), np.float32)
    for part, found in enumerate(part_teachers):
        check_origin(found, replicate)
        mine = part_of == part
        own = bags_digest(without_part(replicate, TrainingPart(parts, part)))
        if found.bags != own or len(found.train_logits) != np.count_nonzero(mine):
            raise UserError(
                f"replicate {replicate.number}: the teacher that was given for part {part} of {parts} was not trained "
                "on exactly the bags outside of that part; a bag's soft labels come from a teacher that has not seen it"
            )
        logits[mine] = found.train_logits
    return dataclasses.replace(teacher, train_logits=logits, cross_fit=parts)
