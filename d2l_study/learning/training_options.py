"""The keys that teacher and student configurations have in common, and what depends on these keys alone.

    class TeacherConfig(TrainingOptions):
        learning_rate: float = shared("learning_rate")
        eval_every: int = shared("eval_every", 100)

A key's bounds and words are written here once. Each configuration lists its keys itself, since their order is that of
stored records and of `python -m d2l_study keys`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from d2l_study.errors import UserError, counted
from d2l_study.options import Options, option

PATCH_NETWORKS = ("lenet", "lenet_wide", "lenet_histology", "resnet")
VECTOR_NETWORKS = ("none", "mlp")
NETWORKS = (*PATCH_NETWORKS, *VECTOR_NETWORKS)

LEAST_PATCH = {"lenet": 16, "lenet_wide": 16, "lenet_histology": 11, "resnet": 8}
"""Pixels a side of the smallest patch that a network takes."""

_RATE: dict[str, Any] = {"least": 0.0, "below": 1.0}
"""Of a chance, or of a decay per step."""

_SHARED: dict[str, dict[str, Any]] = {
    # the network
    "network": {"default": "lenet", "choices": NETWORKS},
    "hidden_layers": {"default": 1, "least": 1, "most": 20, "neutral": 1},
    "feature_width": {"default": 500, "least": 1, "most": 8192},
    # the optimizer
    "steps": {"doc": "optimizer steps", "least": 1, "most": 10_000_000},
    "batch_bags": {"doc": "bags per optimizer step", "least": 1, "most": 4096},
    "instances_per_bag": {
        "default": None, "doc": "instances of a bag that a training step sees, drawn anew for each step without "
        "replacement; bags that have no more are seen whole, as all are in evaluation; null: all", "least": 1,
        "neutral": None,
    },
    "learning_rate": {"default": 5e-4, "doc": "step size of Adam", "above": 0.0},
    "weight_decay": {"default": 1e-4, "doc": "L2 penalty of Adam", "least": 0.0},
    "adam_beta1": {"default": 0.9, "doc": "decay of Adam's mean of gradients", **_RATE, "neutral": 0.9},
    "adam_beta2": {"default": 0.999, "doc": "decay of Adam's mean of squared gradients", **_RATE, "neutral": 0.999},
    "decay": {
        "default": "constant", "doc": "course of the learning rate", "choices": ("constant", "linear", "cosine"),
    },
    "warmup_steps": {
        "default": 0, "doc": "steps over which the learning rate rises linearly from 0", "least": 0, "neutral": 0,
    },
    "weight_average": {
        "default": 0.0, "doc": "decay per step of the running mean of the weights, which then is what is validated, "
        "selected and kept; 0: the weights themselves", **_RATE, "neutral": 0.0,
    },
    # validation and selection
    "eval_every": {"doc": "optimizer steps between validations", "least": 1},
    "patience": {
        "default": 0, "doc": "validations without improvement after which training stops; 0: never", "least": 0,
    },
    # noise and augmentation
    "dropout": {"default": 0.0, "doc": "chance that a feature of h is dropped in training", **_RATE},
    "stochastic_depth": {"default": 0.0, **_RATE},
    "mixup": {"default": 0.0, "least": 0.0, "most": 100.0},
    "gaussian_noise": {"default": 0.0, "least": 0.0, "most": 100.0},
    "augment": {"choices": ("none", "shift", "affine", "dihedral", "histology")},
    "shift_pixels": {
        "default": 2.0, "doc": "largest shift to either side (augment: shift, affine)", "least": 0.0, "most": 100.0,
    },
    "rotation_degrees": {
        "default": 10.0, "doc": "largest rotation to either side (augment: affine)", "least": 0.0, "most": 180.0,
    },
    "stain_jitter": {
        "default": 0.2, "doc": "largest relative change of the amount of each stain (augment: histology)",
        "above": 0.0, "below": 1.0,
    },
}  # fmt: skip


def shared(key: str, default: Any = dataclasses.MISSING, **changes: Any) -> Any:
    """The option of a common key; see `option`.

    default: where it is not the common one, or there is none; changes: further arguments of `option` that are this
    configuration's own.
    """
    own = {} if default is dataclasses.MISSING else {"default": default}
    return option(**_SHARED[key] | own | changes)


class TrainingOptions(Options):
    """What teacher and student configurations have in common."""

    network_key: ClassVar[str]
    """The key that names the network."""

    # The fields that every training reads; each configuration defines them.
    hidden_layers: int
    feature_width: int
    steps: int
    batch_bags: int
    instances_per_bag: int | None
    learning_rate: float
    weight_decay: float
    adam_beta1: float
    adam_beta2: float
    decay: str
    warmup_steps: int
    weight_average: float
    eval_every: int
    patience: int
    select: str
    dropout: float
    stochastic_depth: float
    mixup: float
    augment: str
    shift_pixels: float
    rotation_degrees: float
    stain_jitter: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stochastic_depth > 0 and self.network_name != "resnet":
            key = self.network_key
            raise UserError(
                f"stochastic_depth: {self.stochastic_depth:g} needs residual blocks, {key} resnet; found {key} "
                f"{self.network_name}"
            )

    @property
    def network_name(self) -> str:
        """Which of `NETWORKS` reads the instances."""
        name: str = getattr(self, self.network_key)
        return name

    def idle_network_keys(self) -> dict[str, str]:
        """The keys of the network that do nothing with this one, each with what makes it so."""
        found = f"{self.network_key} {self.network_name}"
        idle = {} if self.network_name == "mlp" else {"hidden_layers": found}
        return idle | {"feature_width": found} if self.network_name == "none" else idle

    def idle_augmentation_keys(self) -> dict[str, str]:
        """The keys of the augmentation that do nothing under this `augment`, each with what makes it so."""
        needed = {"shift_pixels": ("shift", "affine"), "rotation_degrees": ("affine",), "stain_jitter": ("histology",)}
        return {key: f"augment {self.augment}" for key, values in needed.items() if self.augment not in values}

    def inert_keys(self) -> dict[str, str]:
        """`patience` with what makes that it ends no training early, none if it may end one.

        The first validation always is the best so far, so patience p can end a training at its validation p + 1 at the
        earliest; under `select: last` each is the best.
        """
        if self.select == "last":
            return {"patience": "select last"}
        validations = -(-self.steps // self.eval_every)
        if self.patience == 0 or self.patience + 1 < validations:
            return {}
        made = f"eval_every {self.eval_every} and steps {self.steps}, which make {counted(validations, 'validation')}"
        return {"patience": made}

    def acting_values(self) -> dict[str, Any]:
        return {"eval_every": min(self.eval_every, self.steps)} | dict.fromkeys(self.inert_keys(), 0)
