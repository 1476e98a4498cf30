"""The student's configuration: distillation from a bag teacher to an instance classifier (method page, "Student")."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from d2l_study.errors import UserError
from d2l_study.learning.config import NETWORKS, check_noising, idle_motions, idle_network_keys, idle_patience
from d2l_study.options import Options, option


@dataclass(frozen=True)
class StudentConfig(Options):
    """The `student` section of a space: L_s = T² CE(q, σ(s/T)) + α CE(0, s) on negative bags + β bag consistency."""

    # The defaults were chosen by validation bag AUC, in 16 pairs each: MNIST, K = 10, n = 50 and 100, teachers with
    # lambda_adv 0 and 1, 4 replicates, base seed 2000; 300 steps and fresh weights if not said otherwise; mean
    # difference ± standard error. affine against none: +0.007 ± 0.010, from the teacher's weights +0.025 ± 0.010.
    # 600 steps against 300: +0.026 ± 0.004. α = 0 against 1: −0.023 ± 0.009, α = 3: −0.001 ± 0.005. T = 4 against 2:
    # −0.005 ± 0.003. Start from the teacher's weights against fresh ones at 600 steps: +0.004 ± 0.008, no difference,
    # and fresh ones go with every network. Best of all, and twice the price: two generations from the teacher's weights
    # against one, +0.017 ± 0.006.
    temperature: float = option(2.0, "T: softness of the teacher's labels; 1: its own", least=1.0, most=100.0)
    alpha: float = option(1.0, "α: weight of the known negatives, the instances of negative bags", least=0.0)
    beta: float = option(0.0, "β: weight of the bag labels on the pooled scores", least=0.0)
    consistency: str = option("max", "how instance scores become a bag's score", choices=("max", "noisy_or"))

    network: str = option("lenet", "the instance classifier's network, as the teacher's extractor", choices=NETWORKS)
    hidden_layers: int = option(
        1, "linear layers, each with ReLU and feature_width units (network: mlp)", least=1, most=20, neutral=1
    )
    feature_width: int = option(500, "length of an instance's feature vector h, as of the teacher", least=1, most=8192)
    start: str = option(
        "fresh", "initial weights: new ones, or the teacher's (of an ensemble, the first member's)",
        choices=("fresh", "teacher"),
    )  # fmt: skip
    teachers: int = option(1, "teachers in the ensemble", least=1, most=100)
    generations: int = option(1, "generations: each student teaches the next", least=1, most=20)
    neighbours: int = option(
        0, "nearest neighbours in the image over which, with its own, an instance's soft labels are averaged (colon, "
        "breast, manifest with places); 0: its own alone", least=0, most=1000, neutral=0,
    )  # fmt: skip

    dropout: float = option(0.0, "chance that a feature of h is dropped in training", least=0.0, below=1.0)
    input_noise: float = option(
        0.0, "standard deviation of Gaussian noise on the input, in normalised units", least=0.0, most=100.0
    )
    augment: str = option(
        "affine", "what training sees of an instance: none: as it is; shift; affine (shift and rotation); dihedral and "
        "histology as of the teacher", choices=("none", "shift", "affine", "dihedral", "histology"),
    )  # fmt: skip
    stain_jitter: float = option(
        0.2, "largest relative change of the amount of each stain (augment: histology)", above=0.0, below=1.0
    )
    shift_pixels: float = option(2.0, "largest shift to either side (augment: shift, affine)", least=0.0, most=100.0)
    rotation_degrees: float = option(10.0, "largest rotation to either side (augment: affine)", least=0.0, most=180.0)
    stochastic_depth: float = option(
        0.0, "chance that the last residual block is skipped in training, falling linearly to the first "
        "(network: resnet)", least=0.0, below=1.0,
    )  # fmt: skip
    mixup: float = option(
        0.0,
        "a of the Beta(a, a) that mixes hidden features and soft targets of two instances, from bags of both "
        "classes where there are; 0: off",
        least=0.0,
        most=100.0,
    )

    steps: int = option(600, "optimizer steps of each generation", least=1, most=10_000_000)
    batch_bags: int = option(4, "bags per optimizer step, with all of their instances", least=1, most=4096)
    instances_per_bag: int | None = option(
        None, "instances of a bag that a training step sees, drawn anew for each step without replacement; bags that "
        "have no more are seen whole, as all are in evaluation; null: all", least=1, neutral=None,
    )  # fmt: skip
    learning_rate: float = option(5e-4, "step size of Adam", above=0.0)
    weight_decay: float = option(1e-4, "L2 penalty of Adam", least=0.0)
    adam_beta1: float = option(0.9, "decay of Adam's mean of gradients", least=0.0, below=1.0, neutral=0.9)
    adam_beta2: float = option(0.999, "decay of Adam's mean of squared gradients", least=0.0, below=1.0, neutral=0.999)
    decay: str = option("constant", "course of the learning rate", choices=("constant", "linear", "cosine"))
    warmup_steps: int = option(
        0, "steps of each generation over which the learning rate rises linearly from 0", least=0, neutral=0
    )
    weight_average: float = option(
        0.0, "decay per step of the running mean of the weights, which then is what is validated, selected and kept; "
        "0: the weights themselves", least=0.0, below=1.0, neutral=0.0,
    )  # fmt: skip
    eval_every: int = option(50, "optimizer steps between validations", least=1)
    patience: int = option(0, "validations without improvement after which a generation stops; 0: never", least=0)
    select: str = option(
        "auc", "which snapshot is kept: highest validation bag AUC of the pooled scores (ties: lowest distillation "
        "loss), lowest distillation loss, or the last", choices=("auc", "loss", "last"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_noising(self.stochastic_depth, "network", self.network)

    def idle_keys(self) -> dict[str, str]:
        """A rotation that never happens makes no difference."""
        return idle_motions(self.augment) | idle_network_keys("network", self.network)

    def inert_keys(self) -> dict[str, str]:
        return idle_patience(self.steps, self.eval_every, self.patience, self.select)

    def acting_values(self) -> dict[str, Any]:
        return {"eval_every": min(self.eval_every, self.steps)} | dict.fromkeys(self.inert_keys(), 0)

    def without_teacher(self) -> StudentConfig:
        """Without what only a teacher gives meaning to: T = 1, α = β = 0, one generation, no neighbours. Network,
        noise, steps, optimizer and selection stay: the configuration of the reference rows."""
        return dataclasses.replace(
            self, temperature=1.0, alpha=0.0, beta=0.0, start="fresh", teachers=1, generations=1, neighbours=0
        )

    def check_teacher(self, extractor: str, feature_width: int, hidden_layers: int = 1) -> None:
        """`UserError` if the student shall start from weights that do not fit its network."""
        if self.start != "teacher":
            return
        own = {"network": self.network, "feature_width": self.feature_width, "hidden_layers": self.hidden_layers}
        of_teacher = {"network": extractor, "feature_width": feature_width, "hidden_layers": hidden_layers}
        idle = idle_network_keys("network", self.network)
        if any(own[key] != of_teacher[key] for key in own if key not in idle):
            layers = "" if "hidden_layers" in idle else f" and hidden_layers {self.hidden_layers}"
            of_layers = "" if "hidden_layers" in idle else f" and hidden_layers {hidden_layers}"
            raise UserError(
                f"start: teacher needs the teacher's network; found network {self.network} with feature_width "
                f"{self.feature_width}{layers}, the teacher has {extractor} with feature_width {feature_width}"
                f"{of_layers}"
            )
