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


COMPILED_FROM = 8_000_000
"""Instances that all steps of a pack see together, from which on its step is compiled on a GPU, where nothing else is
asked for; those of R_adv count `ADVERSARIAL` times more. Compiled, such steps take some 10 s less than as they are
written, and the compiler takes as long or up to four times longer, while another trial has the GPU; the next pack of
these shapes finds what it made."""

ADVERSARIAL = 1.2
"""What R_adv adds to the time that compilation saves for an instance, as a part of what a step without it saves
(benchmarks/records/2026-11-27-packed-h200: 26 µs with it and 12 µs without)."""


def compilation_pays(instances: float, adversarial: float) -> bool:
    """Whether a pack's step is compiled. instances: that all its steps see; adversarial: those of them, and of
    unlabelled bags, that R_adv is computed for."""
    return instances + ADVERSARIAL * adversarial >= COMPILED_FROM


def structure(config: TeacherConfig) -> tuple[Any, ...]:
    """What all configurations of a pack have in common."""
    weights = (config.lambda_adv > 0, config.lambda_noise > 0, config.lambda_ent > 0)
    return (*weights, *(getattr(config, name) for name in config.keys() if name not in SCALARS))  # noqa: SIM118
