"""Which configurations can share a stack, those whose steps have one form, and how much of them. It needs no torch."""

from __future__ import annotations

from typing import Any

from d2l_study.learning.config import TeacherConfig

SCALARS = (
    "lambda_adv", "lambda_noise", "lambda_ent", "ramp_steps", "epsilon", "xi", "noise_rate", "drop_rate",
    "learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "decay", "warmup_steps", "patience", "select",
    "member",
)  # fmt: skip
"""The keys in which configurations of one pack may differ, as long as the same of the three weights are positive."""


STACK_INSTANCES = 4096
STACK_VALUES = STACK_INSTANCES * 28 * 28
"""Most digits, and most values of instances, in a step of a stack on a GPU, where none is asked for. A step of more
takes longer in proportion (`benchmarks/packed.py`), and fewer leave the GPU waiting for launches."""


def structure(config: TeacherConfig) -> tuple[Any, ...]:
    """What all configurations of a pack have in common."""
    weights = (config.lambda_adv > 0, config.lambda_noise > 0, config.lambda_ent > 0)
    return (*weights, *(getattr(config, name) for name in config.keys() if name not in SCALARS))  # noqa: SIM118
