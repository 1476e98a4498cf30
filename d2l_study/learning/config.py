"""The teacher's configuration: every constant of the method is a key here, with its bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from d2l_study.errors import UserError
from d2l_study.learning.training_options import TrainingOptions, shared
from d2l_study.options import option
from d2l_study.poolings import POOLINGS

NOISE_KINDS = ("gaussian", "uniform", "shuffled", "negatives")
"""What noise instances are (`noise_instances`)."""


@dataclass(frozen=True)
class TeacherConfig(TrainingOptions):
    """The `teacher` section of a space: attention MIL (Ilse et al. 2018) with the three regularizers of slide 11."""

    network_key: ClassVar[str] = "extractor"

    extractor: str = shared(
        "network", doc="feature extractor f: of patches lenet, lenet_wide, lenet_histology or resnet; of vectors none, "
        "which pools them as they are, or mlp",
    )  # fmt: skip
    hidden_layers: int = shared(
        "hidden_layers", doc="linear layers, each with ReLU and feature_width units (extractor: mlp)"
    )
    pooling: str = option("attention", "how instances become a bag", choices=POOLINGS)
    attention_width: int = option(128, "rows of V (and U) of the attention", least=1, most=4096)
    feature_width: int = shared(
        "feature_width", doc="length of an instance's feature vector h; of lenet_histology also the units of the layer "
        "before (published: 512)",
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
    noise_kind: str = option(
        "gaussian", "what noise instances are: gaussian: standard normal in each dimension, in normalised units, under "
        "data.normalise length far longer than any instance, and under none as a rule, where shuffled or negatives "
        "are better; uniform over the pixel range; shuffled: those of the bag, their pixels or dimensions shuffled; "
        "negatives: of other training bags of label 0", choices=NOISE_KINDS,
    )  # fmt: skip
    drop_rate: float = option(0.2, "q: chance that R_ent leaves an instance out", least=0.0, below=1.0)

    # Batch, select, learning rate and ε (and λ_adv in the spaces) are what `vat_tuning` settled on validation bags at
    # n = 50; at n = 100 validation AUC still rose until about 2000 steps (6 replicates).
    steps: int = shared("steps", usual=2000)
    epochs: int | None = shared("epochs")
    min_steps: int = shared("min_steps")
    batch_bags: int = shared("batch_bags", 1)
    bag_order: str = option(
        "shuffled", "order of the bags in an epoch: shuffled; alternating: shuffled, with the two classes by turns, so "
        "that the batches hold the same share of positive bags", choices=("shuffled", "alternating"),
        neutral="shuffled",
    )  # fmt: skip
    unlabelled_batch: int | None = option(
        None, "unlabelled bags per optimizer step, which R_adv takes beside the labelled ones (data.unlabelled_bags); "
        "null: batch_bags", least=1, most=4096, neutral=None,
    )  # fmt: skip
    learning_rate: float = shared("learning_rate")
    weight_decay: float = shared("weight_decay")
    adam_beta1: float = shared("adam_beta1")
    adam_beta2: float = shared("adam_beta2")
    decay: str = shared("decay")
    warmup_steps: int = shared("warmup_steps")
    weight_average: float = shared("weight_average")
    eval_every: int = shared("eval_every", usual=100)
    patience: int = shared("patience")
    select: str = option(
        "auc", "which snapshot is kept: lowest validation loss, highest validation AUC (ties: lowest loss), or "
        "the last, which takes no validation label",
        choices=("loss", "auc", "last"),
    )  # fmt: skip

    # Added with the student stage; at their neutral values they change no draw, and older results keep their ids.
    dropout: float = shared("dropout", neutral=0.0)
    stochastic_depth: float = shared(
        "stochastic_depth", doc="chance that the last residual block is skipped in training, falling linearly to the "
        "first (extractor: resnet)", neutral=0.0,
    )  # fmt: skip
    mixup: float = shared(
        "mixup", doc="a of the Beta(a, a) that mixes each bag's embedding and label with another's of its batch, of "
        "the other class where there is one; 0: off", neutral=0.0,
    )  # fmt: skip
    augment: str = shared(
        "augment", "none", doc="what training sees of a patch: none: as it is; shift; affine (shift and rotation), "
        "each instance on its own; dihedral: flipped and turned by quarters, each instance on its own; histology: also "
        "in another H&E stain, each bag on its own", neutral="none",
    )  # fmt: skip
    instance_noise: float = shared(
        "gaussian_noise", doc="standard deviation of Gaussian noise on what training sees of an instance, in "
        "normalised units", neutral=0.0,
    )  # fmt: skip
    instances_per_bag: int | None = shared("instances_per_bag")
    shift_pixels: float = shared("shift_pixels")
    rotation_degrees: float = shared("rotation_degrees")
    stain_jitter: float = shared("stain_jitter")
    member: int = option(
        0, "which member of an ensemble: other initial weights and draws on the same bags", least=0, neutral=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def unlabelled_of_a_step(self, unlabelled: bool = True) -> int:
        """The unlabelled bags of a step: none if R_adv has no weight. unlabelled: whether there are any."""
        if not unlabelled or self.lambda_adv == 0:
            return 0
        return self.batch_bags if self.unlabelled_batch is None else self.unlabelled_batch

    def bags_of_a_step(self, unlabelled: bool) -> int:
        """The labelled and unlabelled bags of a step."""
        return self.batch_bags + self.unlabelled_of_a_step(unlabelled)

    def idle_keys(self) -> dict[str, str]:
        """The plain teacher is the same one whatever ε says."""
        idle: dict[str, str] = {}
        if not self.lambda_adv:
            idle |= dict.fromkeys(
                ("epsilon", "direction", "xi", "power_iterations", "unlabelled_batch"), "lambda_adv 0"
            )
        elif self.direction == "logit":
            idle |= dict.fromkeys(("xi", "power_iterations"), "direction logit")
        if self.unlabelled_batch == self.batch_bags:
            idle["unlabelled_batch"] = f"batch_bags {self.batch_bags}"
        if not self.lambda_noise:
            idle |= dict.fromkeys(("noise_rate", "noise_kind"), "lambda_noise 0")
        if not self.lambda_ent:
            idle["drop_rate"] = "lambda_ent 0"
        if not self.regularized:
            idle["ramp_steps"] = "lambda_adv, lambda_noise and lambda_ent 0"
        if "attention" not in self.pooling:
            idle["attention_width"] = f"pooling {self.pooling}"
        idle |= self.idle_length_keys() | self.idle_network_keys()
        if self.extractor == "none":
            idle["initial_weights"] = "extractor none"
        return idle | self.idle_augmentation_keys()
