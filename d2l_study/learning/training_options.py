"""The keys that teacher and student configurations have in common, and what depends on these keys alone.

    class TeacherConfig(TrainingOptions):
        learning_rate: float = shared("learning_rate")
        eval_every: int = shared("eval_every", 100)

A key's bounds and words are written here once. Each configuration lists its keys itself, since their order is that of
stored records and of `d2l keys`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

from d2l_study.errors import UserError, counted
from d2l_study.options import Options, field_of, option

PATCH_NETWORKS = ("lenet", "lenet_wide", "lenet_histology", "resnet")
VECTOR_NETWORKS = ("none", "mlp")
NETWORKS = (*PATCH_NETWORKS, *VECTOR_NETWORKS)

LEAST_PATCH = {"lenet": 16, "lenet_wide": 16, "lenet_histology": 11, "resnet": 8}
"""Pixels a side of the smallest patch that a network takes."""

VALIDATIONS = 10
"""Of a training whose length is given in epochs, where `eval_every` is not given."""

_RATE: dict[str, Any] = {"least": 0.0, "below": 1.0}
"""Of a chance, or of a decay per step."""

_SHARED: dict[str, dict[str, Any]] = {
    # the network
    "network": {"default": "lenet", "choices": NETWORKS},
    "hidden_layers": {"default": 1, "least": 1, "most": 20, "neutral": 1},
    "feature_width": {"default": 500, "least": 1, "most": 8192},
    # the optimizer
    "steps": {"default": None, "doc": "optimizer steps", "least": 1, "most": 10_000_000},
    "epochs": {
        "default": None, "doc": "length in place of steps: epochs × ⌈training bags / batch_bags⌉ optimizer steps, at "
        "least min_steps; of folds of unequal size the mean number of training bags, rounded up; null: steps",
        "least": 1, "most": 1_000_000, "neutral": None,
    },
    "min_steps": {
        "default": 1, "doc": "the fewest optimizer steps that epochs make", "least": 1, "most": 10_000_000,
        "neutral": 1,
    },
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
    "eval_every": {
        "default": None, "doc": "optimizer steps between validations; with epochs, where it is not given, a tenth of "
        "the steps, rounded up", "least": 1,
    },
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
    """What teacher and student configurations have in common.

    The length of training is given as `steps`, or as `epochs` (with `min_steps`). How many steps epochs are depends on
    the training bags: `in_steps` says it, and until then `steps` is None, and `eval_every` unless it is given. Whatever
    trains, counts or is stored has its length in steps.
    """

    network_key: ClassVar[str]
    """The key that names the network."""

    # The fields that every training reads; each configuration defines them.
    hidden_layers: int
    feature_width: int
    steps: int
    epochs: int | None
    min_steps: int
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
        if self.epochs is None:
            for key in ("steps", "eval_every"):
                if getattr(self, key) is None:
                    object.__setattr__(self, key, field_of(type(self), key)[1]["usual"])
        super().__post_init__()
        if self.epochs is not None and self.steps is not None:
            raise UserError(
                f"steps: {self.steps} and epochs: {self.epochs} both say how long training is; expected one of them"
            )
        if self.stochastic_depth > 0 and self.network_name != "resnet":
            key = self.network_key
            raise UserError(
                f"stochastic_depth: {self.stochastic_depth:g} needs residual blocks, {key} resnet; found {key} "
                f"{self.network_name}"
            )

    def in_steps(self, bags: int) -> Self:
        """The same configuration with its length in steps, of which training has as many in every replicate. bags:
        training bags of an epoch (`Replicate.epoch_bags`)."""
        if self.epochs is None:
            return self
        steps = max(self.min_steps, self.epochs * -(-bags // self.batch_bags))
        every = -(-steps // VALIDATIONS) if self.eval_every is None else self.eval_every
        changed: dict[str, Any] = {"steps": steps, "eval_every": every, "epochs": None, "min_steps": 1}
        return dataclasses.replace(self, **changed)

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

    def idle_length_keys(self) -> dict[str, str]:
        """The keys of the length that do nothing, each with what makes it so."""
        if self.epochs is None:
            return {"min_steps": "epochs null"}
        found = f"epochs {self.epochs}"
        return {"steps": found} | ({"eval_every": found} if self.eval_every is None else {})

    def inert_keys(self) -> dict[str, str]:
        """`patience` with what makes that it ends no training early, none if it may end one.

        The first validation always is the best so far, so patience p can end a training at its validation p + 1 at the
        earliest; under `select: last` each is the best.
        """
        if self.select == "last":
            return {"patience": "select last"}
        if self.epochs is not None:
            return {}  # how many validations there are is not known yet
        validations = -(-self.steps // self.eval_every)
        if self.patience == 0 or self.patience + 1 < validations:
            return {}
        made = f"eval_every {self.eval_every} and steps {self.steps}, which make {counted(validations, 'validation')}"
        return {"patience": made}

    def acting_values(self) -> dict[str, Any]:
        length = {} if self.epochs is not None else {"eval_every": min(self.eval_every, self.steps)}
        return length | dict.fromkeys(self.inert_keys(), 0)
