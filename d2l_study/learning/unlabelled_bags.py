"""The unlabelled bags that a teacher learns from: R_adv is a mean over both kinds of bags (Miyato et al. 2018, section
3: the smoothness of the prediction is averaged over labelled and unlabelled points).

A student may read the teacher's soft labels of their instances, too (`student.unlabelled`).

They are drawn like labelled bags: by turns in a shuffled order, cut to `instances_per_bag`, augmented and noised. Their
draws have streams of their own, so that no draw of a labelled bag depends on them.
"""

from __future__ import annotations

import dataclasses
from functools import lru_cache

from d2l_study.data.pool import Bags, Replicate
from d2l_study.learning.batches import Batch, draw_batch
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.prediction import Normalise

BRANCH = "unlabelled"
"""Of the streams of the unlabelled bags of a step."""


def unlabelled_task(config: TeacherConfig, replicate: Replicate) -> tuple[TeacherConfig, Replicate] | None:
    """The unlabelled bags as the training bags of a replicate, and the configuration by which a step draws them; None
    where there are none, or R_adv has no weight."""
    if config.lambda_adv == 0 or not len(replicate.unlabelled):
        return None
    return drawing_config(config), unlabelled_replicate(replicate)


def unlabelled_replicate(replicate: Replicate) -> Replicate:
    """The replicate with its unlabelled bags as training bags, and with streams of their own."""
    return dataclasses.replace(
        replicate, train=replicate.unlabelled, unlabelled=Bags.empty(), streams=replicate.streams.on(BRANCH)
    )


@lru_cache(maxsize=256)
def drawing_config(config: TeacherConfig) -> TeacherConfig:
    """By which the unlabelled bags of a step are drawn: the configuration without what reads labels, and without what
    is of labelled bags alone."""
    return dataclasses.replace(
        config, batch_bags=config.unlabelled_of_a_step(), unlabelled_batch=None, bag_order="shuffled",
        lambda_noise=0.0, lambda_ent=0.0, mixup=0.0,
    )  # fmt: skip


def draw_teacher_batch(config: TeacherConfig, replicate: Replicate, step: int, normalise: Normalise) -> Batch:
    """`draw_batch` of a step of a teacher, with its unlabelled bags where it learns from some."""
    batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)
    task = unlabelled_task(config, replicate)
    if task is None:
        return batch
    drawing, own = task
    others = draw_batch(drawing, own.pool, own.train, own.streams, step, normalise)
    return dataclasses.replace(batch, unlabelled=others)
