"""The teacher matched to a student in training: the control for all that a student gains by seeing more, and noised."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig

_AUGMENTATION = ("augment", "shift_pixels", "rotation_degrees", "stain_jitter")


def matched_teacher(
    teacher: TeacherConfig, student: StudentConfig, seen_by_teacher: float = 1.0, seen_by_student: float = 1.0,
    unlabelled: bool = False,
) -> TeacherConfig:  # fmt: skip
    """The teacher's configuration, trained from new weights as teacher and student together were, but for the soft
    labels.

    - The student's augmentation, input noise, dropout and (of a resnet) stochastic depth; where the student has none,
      the teacher's own stays. Network, regularizers, optimizer and selection are the teacher's.
    - As many instance visits as both in all: teacher steps + student steps × generations × instances of a student's
      step / instances of a teacher's step, rounded up.
    - Validated about as often as the student in all its generations (`eval_every` is rounded up), and never stopped
      early, which would cost it visits.
    - Of an ensemble it is matched to one member and the student.

    Both lengths are in steps (`TrainingOptions.in_steps`). seen_by_teacher, seen_by_student: mean instances of a bag
    that a step of each sees; only their ratio counts, 1 where `instances_per_bag` is the same. unlabelled: whether
    there are unlabelled bags, whose instances count, too.
    """
    changes: dict[str, Any] = {}
    if student.augment != "none":
        changes |= {key: getattr(student, key) for key in _AUGMENTATION}
    noise = {"instance_noise": student.input_noise, "dropout": student.dropout}
    if teacher.extractor == "resnet":
        noise["stochastic_depth"] = student.stochastic_depth
    changes |= {key: value for key, value in noise.items() if value > 0}
    bags = student.steps * student.generations * student.bags_of_a_step(unlabelled)
    of_a_step = teacher.bags_of_a_step(unlabelled)
    if seen_by_teacher == seen_by_student:
        further = -(-bags // of_a_step)
    else:
        further = math.ceil(bags * seen_by_student / (of_a_step * seen_by_teacher) - 1e-9)
    steps = teacher.steps + further
    validations = student.generations * -(-student.steps // student.eval_every)
    return dataclasses.replace(
        teacher, **changes, steps=steps, eval_every=-(-steps // validations), patience=0, member=0
    )
