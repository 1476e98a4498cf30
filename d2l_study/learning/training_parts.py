"""The parts into which cross-fitting splits the training bags of a replicate, and the replicates that leave one out.

part_of = training_parts(replicate, 5)                       # (bags,) 0 … 4
left_out = without_part(replicate, TrainingPart(5, 2))       # what the teacher of part 2 is trained on
"""

from __future__ import annotations

import dataclasses

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.folds import grouped_stratified_folds
from d2l_study.data.pool import Replicate
from d2l_study.errors import UserError, counted
from d2l_study.learning.part_config import TrainingPart


def training_parts(replicate: Replicate, parts: int) -> np.ndarray:
    """(B,) the part 0 … parts − 1 of each training bag.

    The parts hold the classes evenly, by the labels that training sees, and no group (patient) is in two of them. They
    depend on the replicate's training bags and a random stream of their own, on nothing that is trained. `UserError` if
    a class has fewer bags than there are parts, or if the bags outside of a part are all of one class, as few groups
    make them.
    """
    bags, pool = replicate.train, replicate.pool
    where = f"the training bags of replicate {replicate.number} of data set {pool.name}"
    for value, name in enumerate(("negative", "positive")):
        count = int(np.count_nonzero(bags.label == value))
        if count < parts:
            raise UserError(
                f"cross_fit: {parts} parts need as many bags of each class; {where} have {count} {name} ones "
                f"(allowed: 0{f' or 2 to {count}' if count > 2 else ' or 2' if count == 2 else ''})"
            )
    group = np.arange(len(bags))
    if isinstance(pool, BagCollection):
        group = pool.group[bags.number]
        groups = len(np.unique(group))
        if groups < parts:
            raise UserError(
                f"cross_fit: {parts} parts need as many groups of bags (patients, tissue cores), which are not split; "
                f"{where} are of {counted(groups, 'group')}"
            )
    part_of = grouped_stratified_folds(bags.label, group, parts, replicate.streams.on("cross_fit"))
    for part in range(parts):
        if len(np.unique(bags.label[part_of != part])) < 2:
            raise UserError(
                f"cross_fit: {parts} parts leave bags of one class outside of one of them, since no group of bags "
                f"(patient, tissue core) of {where} is split; fewer or more parts may do, or 0"
            )
    return part_of


def without_part(replicate: Replicate, left_out: TrainingPart) -> Replicate:
    """The replicate of a part teacher: the training bags outside of its part, and weights and draws of its own.

    Validation and test stay. So does the normalisation of the input, which knows no label: all teachers of a student
    see the same units. A length in epochs is that of the whole replicate, so that all teachers train for equally many
    steps.
    """
    kept = np.flatnonzero(training_parts(replicate, left_out.cross_fit) != left_out.part)
    return dataclasses.replace(
        replicate, train=replicate.train.subset(kept), streams=replicate.streams.on(f"part{left_out.part}"),
        mean_train_bags=replicate.epoch_bags,
    )  # fmt: skip
