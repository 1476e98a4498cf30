"""How many instances a training has seen: each instance that a step draws counts once, however often.

Counted are the instances of the training bags, labelled and unlabelled, as the steps drew them, with
`instances_per_bag`. What a step makes of them (an adversarial copy, noise instances) is none. Two trainings of as many
visits have seen as much data.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from d2l_study.data.pool import Bags, Replicate
from d2l_study.data.streams import Streams
from d2l_study.learning.batches import epoch_order, order_label
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.learning.teacher_model import member_replicate
from d2l_study.learning.training_options import TrainingOptions
from d2l_study.learning.unlabelled_bags import unlabelled_replicate, unlabelled_task


def teacher_visits(config: TeacherConfig, replicate: Replicate, steps: int) -> int:
    """The instance visits of a teacher's first `steps` steps."""
    own = member_replicate(replicate, config.member)
    tasks = [(config, own), unlabelled_task(config, own)]
    return sum(
        _visits(by, of.train, of.streams, steps, "order", order_label(by, of.train))
        for by, of in (task for task in tasks if task is not None)
    )


def student_visits(config: StudentConfig, replicate: Replicate, steps: Sequence[int]) -> int:
    """The instance visits of a student, whose generations were trained for `steps` steps each."""
    read = [replicate]
    if config.distils_unlabelled and len(replicate.unlabelled):
        read.append(unlabelled_replicate(replicate))
    return sum(
        _visits(config, of.train, of.streams.on(f"generation{generation}"), own, "student_order")
        for of in read for generation, own in enumerate(steps, start=1)
    )  # fmt: skip


def _visits(
    config: TrainingOptions, bags: Bags, streams: Streams, steps: int, stream: str, label: np.ndarray | None = None
) -> int:
    """Whole epochs see every bag; of the last one the first bags of its order count."""
    seen = bags.sizes if config.instances_per_bag is None else np.minimum(bags.sizes, config.instances_per_bag)
    epochs, rest = divmod(steps * config.batch_bags, len(bags))
    return int(epochs * seen.sum() + seen[epoch_order(streams, epochs, len(bags), stream, label)[:rest]].sum())
