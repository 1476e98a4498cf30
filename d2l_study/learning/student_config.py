"""The student's configuration: distillation from a bag teacher to an instance classifier (slides 15–16)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from d2l_study.errors import UserError
from d2l_study.learning.training_options import TrainingOptions, shared
from d2l_study.options import Options, option

MOST_NEIGHBOURS = 1000
MOST_PARTS = 100
"""Of a cross-fitting."""


@dataclass(frozen=True)
class SmoothingConfig(Options):
    """What a teacher needs further to be read with smoothed instance scores (`references.smoothed_reference`)."""

    neighbours: int = option(
        4, "nearest neighbours in the image over which, with its own, an instance's logit is averaged", least=1,
        most=MOST_NEIGHBOURS,
    )  # fmt: skip


@dataclass(frozen=True)
class StudentConfig(TrainingOptions):
    """The `student` section of a space: L_s = λ T² CE(q, σ(s/T)) + α CE(0, s) on negative bags + β bag consistency."""

    network_key: ClassVar[str] = "network"

    # The defaults were chosen by validation bag AUC, in 16 pairs each: MNIST, K = 10, n = 50 and 100, teachers with
    # lambda_adv 0 and 1, 4 replicates, base seed 2000; 300 steps and fresh weights if not said otherwise; mean
    # difference ± standard error. affine against none: +0.007 ± 0.010, from the teacher's weights +0.025 ± 0.010.
    # 600 steps against 300: +0.026 ± 0.004. α = 0 against 1: −0.023 ± 0.009, α = 3: −0.001 ± 0.005. T = 4 against 2:
    # −0.005 ± 0.003. Start from the teacher's weights against fresh ones at 600 steps: +0.004 ± 0.008, no difference,
    # and fresh ones go with every network. Best of all, and twice the price: two generations from the teacher's weights
    # against one, +0.017 ± 0.006.
    temperature: float = option(2.0, "T: softness of the teacher's labels; 1: its own", least=1.0, most=100.0)
    lambda_distill: float = option(
        1.0, "λ: weight of the distillation term; 0: the teacher's labels are not read", least=0.0, neutral=1.0
    )  # fmt: skip
    alpha: float = option(1.0, "α: weight of the known negatives, the instances of negative bags", least=0.0)
    beta: float = option(0.0, "β: weight of the bag labels on the pooled scores", least=0.0)
    consistency: str = option("max", "how instance scores become a bag's score", choices=("max", "noisy_or"))

    network: str = shared("network", doc="the instance classifier's network, as the teacher's extractor")
    hidden_layers: int = shared(
        "hidden_layers", doc="linear layers, each with ReLU and feature_width units (network: mlp)"
    )
    feature_width: int = shared("feature_width", doc="length of an instance's feature vector h, as of the teacher")
    start: str = option(
        "fresh", "initial weights: new ones, or the teacher's (of an ensemble, the first member's)",
        choices=("fresh", "teacher"),
    )  # fmt: skip
    teachers: int = option(1, "teachers in the ensemble", least=1, most=100)
    unlabelled: bool = option(
        False, "whether the distillation term also runs over instances of unlabelled bags (data.unlabelled_bags), of "
        "batch_bags more of them in each step", neutral=False,
    )  # fmt: skip
    cross_fit: int = option(
        0, "F: parts of the training bags, each labelled by a teacher that was trained on the others alone (2 or more)"
        "; 0: one teacher labels the bags that it was trained on", least=0, most=MOST_PARTS, neutral=0,
    )  # fmt: skip
    generations: int = option(1, "generations: each student teaches the next", least=1, most=20)
    neighbours: int = option(
        0, "nearest neighbours in the image over which, with its own, an instance's soft labels are averaged (colon, "
        "breast, manifest with places); 0: its own alone", least=0, most=MOST_NEIGHBOURS, neutral=0,
    )  # fmt: skip

    dropout: float = shared("dropout")
    input_noise: float = shared(
        "gaussian_noise", doc="standard deviation of Gaussian noise on the input, in normalised units"
    )
    augment: str = shared(
        "augment", "affine", doc="what training sees of an instance: none: as it is; shift; affine (shift and "
        "rotation); dihedral and histology as of the teacher",
    )  # fmt: skip
    stain_jitter: float = shared("stain_jitter")
    shift_pixels: float = shared("shift_pixels")
    rotation_degrees: float = shared("rotation_degrees")
    stochastic_depth: float = shared(
        "stochastic_depth", doc="chance that the last residual block is skipped in training, falling linearly to the "
        "first (network: resnet)",
    )  # fmt: skip
    mixup: float = shared(
        "mixup", doc="a of the Beta(a, a) that mixes hidden features and soft targets of two instances, from bags of "
        "both classes where there are; 0: off",
    )  # fmt: skip

    steps: int = shared("steps", usual=600, doc="optimizer steps of each generation")
    epochs: int | None = shared(
        "epochs", doc="length of each generation in place of steps, as of the teacher; null: steps"
    )
    min_steps: int = shared("min_steps")
    batch_bags: int = shared("batch_bags", 4, doc="bags per optimizer step, with all of their instances")
    instances_per_bag: int | None = shared("instances_per_bag")
    learning_rate: float = shared("learning_rate")
    weight_decay: float = shared("weight_decay")
    adam_beta1: float = shared("adam_beta1")
    adam_beta2: float = shared("adam_beta2")
    decay: str = shared("decay")
    warmup_steps: int = shared(
        "warmup_steps", doc="steps of each generation over which the learning rate rises linearly from 0"
    )
    weight_average: float = shared("weight_average")
    eval_every: int = shared("eval_every", usual=50)
    patience: int = shared("patience", doc="validations without improvement after which a generation stops; 0: never")
    select: str = option(
        "auc", "which snapshot is kept: highest validation bag AUC of the pooled scores (ties: their lowest "
        "log loss), lowest distillation loss (lambda_distill 0: log loss of the bags), or the last",
        choices=("auc", "loss", "last"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lambda_distill == 0 and self.alpha == 0 and self.beta == 0:
            raise UserError("lambda_distill: 0 with alpha 0 and beta 0 leaves no loss; expected one of them above 0")
        if self.cross_fit == 1:
            raise UserError(f"cross_fit: 1 part leaves no bag to train on; expected 0 (off) or 2 to {MOST_PARTS}")

    @property
    def distils_unlabelled(self) -> bool:
        """Whether it reads soft labels of unlabelled bags, where there are such bags."""
        return self.unlabelled and self.lambda_distill > 0

    def bags_of_a_step(self, unlabelled: bool) -> int:
        """The labelled and unlabelled bags of a step. unlabelled: whether there are unlabelled bags."""
        return self.batch_bags * (2 if unlabelled and self.distils_unlabelled else 1)

    def idle_keys(self) -> dict[str, str]:
        """A rotation that never happens makes no difference, nor does how soft labels are made that nobody reads."""
        idle = self.idle_length_keys() | self.idle_augmentation_keys() | self.idle_network_keys()
        if self.lambda_distill == 0:
            idle |= dict.fromkeys(("temperature", "neighbours", "mixup", "cross_fit", "unlabelled"), "lambda_distill 0")
        return idle

    def without_teacher(self, *, all_steps: bool = False) -> StudentConfig:
        """Without what only a teacher gives meaning to: T = λ = 1, α = β = 0, one generation, no neighbours, no
        cross-fitting, no unlabelled bags. Network, noise, optimizer and selection stay: the configuration of the
        reference rows. all_steps: it is trained for as many steps as all generations together, else as one, as in
        version 1."""
        return dataclasses.replace(
            self, temperature=1.0, lambda_distill=1.0, alpha=0.0, beta=0.0, start="fresh", teachers=1, generations=1,
            neighbours=0, cross_fit=0, unlabelled=False, **(self._length_of_all() if all_steps else {}),
        )  # fmt: skip

    def _length_of_all(self) -> dict[str, Any]:
        """The keys of its length, for one generation as long as all."""
        lengths = ("steps",) if self.epochs is None else ("epochs", "min_steps")
        return {key: getattr(self, key) * self.generations for key in lengths}

    def no_teacher(self) -> StudentConfig:
        """The student that has no teacher: no soft labels (λ = 0), known negatives (α, 1 where the student has none)
        and its own β. Network, noise, optimizer and selection are the student's; it is trained in one generation for as
        many steps as all of the student's."""
        return dataclasses.replace(self.without_soft_labels(), start="fresh", generations=1, **self._length_of_all())

    def without_soft_labels(self) -> StudentConfig:
        """The student that starts from its teacher and does not learn from its soft labels: λ = 0, known negatives (α,
        1 where the student has none) and its own β. All else is the student's, generations and steps among it."""
        return dataclasses.replace(
            self, temperature=1.0, lambda_distill=0.0, alpha=self.alpha or 1.0, teachers=1, neighbours=0, cross_fit=0,
            unlabelled=False, mixup=0.0,
        )  # fmt: skip

    def check_teacher(self, extractor: str, feature_width: int, hidden_layers: int = 1) -> None:
        """`UserError` if the student shall start from weights that do not fit its network."""
        if self.start != "teacher":
            return
        own = {"network": self.network, "feature_width": self.feature_width, "hidden_layers": self.hidden_layers}
        of_teacher = {"network": extractor, "feature_width": feature_width, "hidden_layers": hidden_layers}
        idle = self.idle_network_keys()
        if any(own[key] != of_teacher[key] for key in own if key not in idle):
            layers = "" if "hidden_layers" in idle else f" and hidden_layers {self.hidden_layers}"
            of_layers = "" if "hidden_layers" in idle else f" and hidden_layers {hidden_layers}"
            raise UserError(
                f"start: teacher needs the teacher's network; found network {self.network} with feature_width "
                f"{self.feature_width}{layers}, the teacher has {extractor} with feature_width {feature_width}"
                f"{of_layers}"
            )
