"""The teacher's configuration: every constant of the method page is a key here, with its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from d2l_study.errors import UserError, counted
from d2l_study.options import Options, option

POOLINGS = (
    "attention", "gated_attention", "instance_max", "instance_mean", "embedding_max", "embedding_mean",
)  # fmt: skip

PATCH_NETWORKS = ("lenet", "lenet_wide", "lenet_histology", "resnet")
VECTOR_NETWORKS = ("none", "mlp")
NETWORKS = (*PATCH_NETWORKS, *VECTOR_NETWORKS)

LEAST_PATCH = {"lenet": 16, "lenet_wide": 16, "lenet_histology": 11, "resnet": 8}
"""Pixels a side of the smallest patch that a network takes."""


@dataclass(frozen=True)
class TeacherConfig(Options):
    """The `teacher` section of a space: attention MIL (Ilse et al. 2018) with the three regularizers of slide 11."""

    extractor: str = option(
        "lenet", "feature extractor f: of patches lenet, lenet_wide, lenet_histology or resnet; of vectors none, which "
        "pools them as they are, or mlp", choices=NETWORKS,
    )  # fmt: skip
    hidden_layers: int = option(
        1, "linear layers, each with ReLU and feature_width units (extractor: mlp)", least=1, most=20, neutral=1
    )
    pooling: str = option("attention", "how instances become a bag", choices=POOLINGS)
    attention_width: int = option(128, "rows of V (and U) of the attention", least=1, most=4096)
    feature_width: int = option(
        500, "length of an instance's feature vector h; of lenet_histology also the units of the layer before "
        "(published: 512)", least=1, most=8192,
    )  # fmt: skip

    initial_weights: str = option(
        "uniform", "the extractor's first weights: uniform: U(−1/√n, 1/√n) for n inputs, biases too; he: √6 times as "
        "wide, which keeps the variance through its ReLUs, and biases 0 (He et al. 2015; the LeNets)",
        choices=("uniform", "he"), neutral="uniform",
    )  # fmt: skip

    lambda_adv: float = option(0.0, "weight of the adversarial regularizer R_adv", least=0.0)
    lambda_noise: float = option(0.0, "weight of the noise-instance regularizer R_noise", least=0.0)
    lambda_ent: float = option(0.0, "weight of the subset-entropy regularizer R_ent", least=0.0)
    ramp_steps: int = option(0, "steps over which the three weights rise linearly from 0", least=0)

    epsilon: float = option(4.0, "radius ε of each instance's L2 ball, in normalised units", above=0.0)
    direction: str = option("logit", "how the adversarial direction is found", choices=("logit", "power"))
    xi: float = option(0.1, "finite-difference length ξ of the power iteration", above=0.0)
    power_iterations: int = option(1, "power iterations (direction: power)", least=1, most=20)
    noise_rate: float = option(0.2, "ρ: noise instances put into a bag, as a share of its size", above=0.0)
    noise_kind: str = option("gaussian", "what noise instances are: gaussian, in normalised units; uniform over "
                            "the pixel range; shuffled: those of the bag, their pixels or dimensions shuffled; "
                            "negatives: of other training bags of label 0",
                            choices=("gaussian", "uniform", "shuffled", "negatives"))  # fmt: skip
    drop_rate: float = option(0.2, "q: chance that R_ent leaves an instance out", least=0.0, below=1.0)

    # Batch, select, learning rate and ε (and λ_adv in the spaces) are what `vat_tuning` settled on validation bags at
    # n = 50; at n = 100 validation AUC still rose until about 2000 steps (6 replicates).
    steps: int = option(2000, "optimizer steps", least=1, most=10_000_000)
    batch_bags: int = option(1, "bags per optimizer step", least=1, most=4096)
    bag_order: str = option(
        "shuffled", "order of the bags in an epoch: shuffled; alternating: shuffled, with the two classes by turns, so "
        "that the batches hold the same share of positive bags", choices=("shuffled", "alternating"),
        neutral="shuffled",
    )  # fmt: skip
    learning_rate: float = option(5e-4, "step size of Adam", above=0.0)
    weight_decay: float = option(1e-4, "L2 penalty of Adam", least=0.0)
    adam_beta1: float = option(0.9, "decay of Adam's mean of gradients", least=0.0, below=1.0, neutral=0.9)
    adam_beta2: float = option(0.999, "decay of Adam's mean of squared gradients", least=0.0, below=1.0, neutral=0.999)
    decay: str = option("constant", "course of the learning rate", choices=("constant", "linear", "cosine"))
    warmup_steps: int = option(0, "steps over which the learning rate rises linearly from 0", least=0, neutral=0)
    weight_average: float = option(
        0.0, "decay per step of the running mean of the weights, which then is what is validated, selected and kept; "
        "0: the weights themselves", least=0.0, below=1.0, neutral=0.0,
    )  # fmt: skip
    eval_every: int = option(100, "optimizer steps between validations", least=1)
    patience: int = option(0, "validations without improvement after which training stops; 0: never", least=0)
    select: str = option(
        "auc", "which snapshot is kept: lowest validation loss, highest validation AUC, or the last",
        choices=("loss", "auc", "last"),
    )  # fmt: skip

    # Added with the student stage; at their neutral values they change no draw, and older results keep their ids.
    dropout: float = option(0.0, "chance that a feature of h is dropped in training", least=0.0, below=1.0, neutral=0.0)
    stochastic_depth: float = option(
        0.0, "chance that the last residual block is skipped in training, falling linearly to the first "
        "(extractor: resnet)", least=0.0, below=1.0, neutral=0.0,
    )  # fmt: skip
    mixup: float = option(
        0.0, "a of the Beta(a, a) that mixes each bag's embedding and label with another's of its batch, of the other "
        "class where there is one; 0: off",
        least=0.0, most=100.0, neutral=0.0,
    )  # fmt: skip
    augment: str = option(
        "none", "what training sees of a patch: none: as it is; shift; affine (shift and rotation), each instance on "
        "its own; dihedral: flipped and turned by quarters, each instance on its own; histology: also in another H&E "
        "stain, each bag on its own", choices=("none", "shift", "affine", "dihedral", "histology"), neutral="none",
    )  # fmt: skip
    instance_noise: float = option(
        0.0, "standard deviation of Gaussian noise on what training sees of an instance, in normalised units",
        least=0.0, most=100.0, neutral=0.0,
    )  # fmt: skip
    instances_per_bag: int | None = option(
        None, "instances of a bag that a training step sees, drawn anew for each step without replacement; bags that "
        "have no more are seen whole, as all are in evaluation; null: all", least=1, neutral=None,
    )  # fmt: skip
    shift_pixels: float = option(2.0, "largest shift to either side (augment: shift, affine)", least=0.0, most=100.0)
    rotation_degrees: float = option(10.0, "largest rotation to either side (augment: affine)", least=0.0, most=180.0)
    stain_jitter: float = option(
        0.2, "largest relative change of the amount of each stain (augment: histology)", above=0.0, below=1.0
    )
    member: int = option(
        0, "which member of an ensemble: other initial weights and draws on the same bags", least=0, neutral=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noising(self.stochastic_depth, "extractor", self.extractor)
        if self.initial_weights == "he" and self.extractor == "resnet":
            raise UserError(
                "initial_weights: he is for lenet, lenet_wide and lenet_histology; found extractor resnet, whose "
                "blocks normalise their inputs (allowed: uniform)"
            )
        if self.mixup > 0 and self.batch_bags < 2:
            raise UserError(f"mixup: {self.mixup:g} needs batch_bags ≥ 2; found batch_bags {self.batch_bags}")

    @property
    def regularized(self) -> bool:
        return self.lambda_adv > 0 or self.lambda_noise > 0 or self.lambda_ent > 0

    def idle_keys(self) -> dict[str, str]:
        """The plain teacher is the same one whatever ε says."""
        idle: dict[str, str] = {}
        if not self.lambda_adv:
            idle |= dict.fromkeys(("epsilon", "direction", "xi", "power_iterations"), "lambda_adv 0")
        elif self.direction == "logit":
            idle |= dict.fromkeys(("xi", "power_iterations"), "direction logit")
        if not self.lambda_noise:
            idle |= dict.fromkeys(("noise_rate", "noise_kind"), "lambda_noise 0")
        if not self.lambda_ent:
            idle["drop_rate"] = "lambda_ent 0"
        if not self.regularized:
            idle["ramp_steps"] = "lambda_adv, lambda_noise and lambda_ent 0"
        if "attention" not in self.pooling:
            idle["attention_width"] = f"pooling {self.pooling}"
        idle |= idle_network_keys("extractor", self.extractor)
        if self.extractor == "none":
            idle["initial_weights"] = "extractor none"
        return idle | idle_motions(self.augment)

    def inert_keys(self) -> dict[str, str]:
        return idle_patience(self.steps, self.eval_every, self.patience, self.select)

    def acting_values(self) -> dict[str, Any]:
        return {"eval_every": min(self.eval_every, self.steps)} | dict.fromkeys(self.inert_keys(), 0)


def idle_patience(steps: int, eval_every: int, patience: int, select: str) -> dict[str, str]:
    """`patience` with what makes that it ends no training early, none if it may end one.

    The first validation always is the best so far, so patience p can end a training at its validation p + 1 at the
    earliest; under `select: last` each is the best."""
    if select == "last":
        return {"patience": "select last"}
    validations = -(-steps // eval_every)
    if patience == 0 or patience + 1 < validations:
        return {}
    return {"patience": f"eval_every {eval_every} and steps {steps}, which make {counted(validations, 'validation')}"}


def idle_network_keys(key: str, network: str) -> dict[str, str]:
    """The keys of a network that do nothing with this one, with what makes them so. key: where it is named."""
    idle = {} if network == "mlp" else {"hidden_layers": f"{key} {network}"}
    return idle | {"feature_width": f"{key} none"} if network == "none" else idle


def idle_motions(augment: str) -> dict[str, str]:
    """The keys of `augment` that do nothing under its value, with what makes them so."""
    needed = {"shift_pixels": ("shift", "affine"), "rotation_degrees": ("affine",), "stain_jitter": ("histology",)}
    return {key: f"augment {augment}" for key, values in needed.items() if augment not in values}


def check_noising(stochastic_depth: float, key: str, network: str) -> None:
    """`UserError` if the network has no residual blocks to skip."""
    if stochastic_depth > 0 and network != "resnet":
        raise UserError(
            f"stochastic_depth: {stochastic_depth:g} needs residual blocks, {key} resnet; found {key} {network}"
        )
