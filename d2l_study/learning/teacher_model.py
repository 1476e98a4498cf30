"""A teacher before its training: its network, its first weights, and the draws of an ensemble's member."""

from __future__ import annotations

import dataclasses

from d2l_study.data.pool import Replicate
from d2l_study.learning.config import TeacherConfig
from d2l_study.models import MilModel, Params
from d2l_study.models.extractors import he_scaled


def teacher_model(config: TeacherConfig, replicate: Replicate) -> MilModel:
    """The bag classifier of a configuration, for instances of the shape that the replicate's pool has."""
    return MilModel(
        replicate.pool.shape, config.pooling, config.feature_width, config.attention_width, config.extractor,
        config.hidden_layers,
    )  # fmt: skip


def initial_params(config: TeacherConfig, model: MilModel, replicate: Replicate) -> Params:
    """Fresh parameters, as `config.initial_weights` wants them. Both ways use the same draws."""
    params = model.init(replicate.streams.rng("init"))
    return he_scaled(params) if config.initial_weights == "he" else params


def member_replicate(replicate: Replicate, member: int) -> Replicate:
    """The replicate as a member of an ensemble draws it: the same bags, other initial weights, order and noise."""
    if member == 0:
        return replicate
    return dataclasses.replace(replicate, streams=replicate.streams.on(f"member{member}"))
