"""The metrics of a model on bags with labels, as functions of how often each patient counts.

A metric has a level (`bag`, `instance`), a name, and where it needs that, at what: a threshold, or a temperature. One
that is not defined says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from analysis.statistics.recalibration import without_recalibration
from analysis.statistics.weighted_classification import (
    AT_THRESHOLD,
    OF_PROBABILITIES,
    probability_metrics,
    threshold_metrics,
)
from analysis.statistics.weighted_metrics import ScoredInstances, SortedScores, WeightedMetric, weighted_metric
from d2l_study.inference.evaluated_scores import EvaluatedBags, ModelScores
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS

BAG, INSTANCE = "bag", "instance"
LEVELS = (BAG, INSTANCE)
RANKING = ""
PRIMARY_METRIC = "auc"
MODEL_THRESHOLD, HALF = "model threshold", "0.5"
TRAINED, SCALED = "as trained", "temperature"

RANKS = ("auc", "average_precision")
WITHIN = {"auc_within": "instance_auc_within", "average_precision_within": "instance_ap_within",
          "froc": "instance_froc"}  # fmt: skip
"""By the names of `statistics.weighted_metrics`."""
DICE_WITHIN = "dice_within"
OF_SCALED = tuple(name for name in OF_PROBABILITIES if name != "calibration_intercept")
"""A temperature leaves the intercept as it is."""

LABELS = {
    "auc": "AUC", "average_precision": "average precision", "auc_within": "AUC within bags",
    "average_precision_within": "average precision within", "froc": "FROC", "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy", "sensitivity": "sensitivity", "specificity": "specificity",
    "precision": "precision", "f1": "F1", DICE_WITHIN: "Dice within bags", "brier": "Brier score",
    "log_loss": "log loss", "ece": "calibration error (ECE)", "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}  # fmt: skip
"""Name -> what people call it."""

NOT_RESAMPLED = {"ece": "resampled bags look less calibrated than they are"}
"""Metrics without interval and test -> why. The calibration error takes the absolute value of each bin's mean error:
resampling adds its own spread to that of the data, so that all resampled values lie too high. Simulated (60 data sets
of 60 bags, and of 200): the interval of a model that is not calibrated never held its true error, of 200 bags twice; of
two calibrated models the test found a difference in 15, of 200 bags in 21."""
WITHOUT_END = ("log_loss", "calibration_slope", "calibration_intercept")
"""Metrics with no greatest value; all others lie in [0, 1]."""

HEADINGS = {
    RANKING: "ranking", MODEL_THRESHOLD: "at the model's threshold", HALF: "at a score of 0.5",
    TRAINED: "scores as probabilities", SCALED: "the same, scaled by the temperature",
}  # fmt: skip
"""What a metric is at -> the heading of such metrics."""


@dataclass(frozen=True)
class Metric:
    """weighted: the value, given how often each patient counts; None where it cannot be asked for; reason: why there is
    no value, in words, empty if there is one."""

    level: str
    name: str
    at: str
    weighted: WeightedMetric | None
    reason: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.level, self.name, self.at


@dataclass(frozen=True)
class Level:
    """What the metrics of a level are of: `units` bags or instances of known label, of `patients`, `positives` of them
    positive; bags: those that the units are in; single: whether each patient has one unit."""

    level: str
    units: int
    patients: int
    positives: int
    bags: int

    @property
    def single(self) -> bool:
        return self.level == BAG and self.units == self.patients


def levels_of(bags: EvaluatedBags) -> dict[str, Level]:
    """The levels, whatever they hold."""
    known = bags.known
    with_known = np.unique(bags.bags.bag_of[known])
    return {
        BAG: Level(BAG, len(bags.label), bags.patients, int((bags.label == 1).sum()), len(bags.label)),
        INSTANCE: Level(INSTANCE, int(known.sum()), len(np.unique(bags.patient[with_known])),
                        int((bags.instance_label == 1).sum()), len(with_known)),
    }  # fmt: skip


def metrics_of(bags: EvaluatedBags, scores: ModelScores) -> list[Metric]:
    """All metrics of a model, those of bags first; the same ones for every model, in the same order."""
    return [*_bag_metrics(bags, scores), *_instance_metrics(bags, scores)]


def _bag_metrics(bags: EvaluatedBags, scores: ModelScores) -> list[Metric]:
    label, cluster, clusters = bags.label.astype(np.int64), bags.patient, bags.patients
    logit = scores.bag_logit.astype(np.float64)
    found = _ranks(BAG, label, SortedScores.of(label, logit, cluster))
    for at, threshold in ((MODEL_THRESHOLD, scores.bag_threshold), (HALF, 0.0)):
        lacking = "the model has no threshold for bags"
        found += _at_threshold(BAG, at, label, scores.bag_logit, threshold, lacking, cluster, clusters)
    for at, names, temperature in ((TRAINED, OF_PROBABILITIES, 1.0), (SCALED, OF_SCALED, scores.temperature)):
        if temperature is None:
            found += [Metric(BAG, name, at, None, "the model has no temperature") for name in names]
            continue
        weighted = probability_metrics(label, logit / temperature, cluster, clusters)
        slope = without_recalibration(label, logit)
        found += [
            Metric(BAG, name, at, weighted[name], slope if name.startswith("calibration") else "") for name in names
        ]
    return found


def _instance_metrics(bags: EvaluatedBags, scores: ModelScores) -> list[Metric]:
    names = [(name, RANKING) for name in (*RANKS, *WITHIN)]
    names += [(name, MODEL_THRESHOLD) for name in (*AT_THRESHOLD, DICE_WITHIN)]
    known = bags.known
    if not known.any():
        return [Metric(INSTANCE, name, at, None, NO_INSTANCE_LABELS) for name, at in names]
    bag_of, truth = bags.bags.bag_of, bags.instance_label.astype(np.int64)
    with_known = np.unique(bag_of[known])
    kept = np.isin(bag_of, with_known)  # whole bags, for maps; those without a known label say nothing
    bag = np.searchsorted(with_known, bag_of[kept])
    patient = np.unique(bags.patient[with_known], return_inverse=True)[1]
    logit, threshold = scores.instance_logit.astype(np.float64), scores.instance_threshold
    called = None if threshold is None else scores.instance_logit > threshold
    image, xy = bags.pool.image[bags.positions][kept], bags.pool.xy[bags.positions][kept]
    placed = bool((image >= 0).all() and np.isfinite(xy).all())
    scored = ScoredInstances(
        bag, truth[kept], logit[kept], None if called is None else called[kept],
        image if placed else None, xy if placed else None,
    )  # fmt: skip

    def by_patient(metric: WeightedMetric) -> WeightedMetric:
        return lambda weight: metric(weight[patient])

    label = truth[known]
    of_known = patient[np.searchsorted(with_known, bag_of[known])]
    clusters = int(patient.max()) + 1
    found = _ranks(INSTANCE, label, SortedScores.of(label, logit[known], of_known))
    both = any(np.ptp(part) for part in np.split(label, np.flatnonzero(np.diff(bag_of[known])) + 1))
    reasons = {
        "auc_within": "" if both else "no bag holds instances of both classes",
        "average_precision_within": "" if both else "no bag holds instances of both classes",
        "froc": "no instance is positive" if not (label == 1).any() else "the instances are no tiles of a grid",
    }
    for name, other in WITHIN.items():
        metric = weighted_metric(other, scored)
        whole = math.nan if metric is None else metric(np.ones(len(with_known)))
        reason = reasons[name] if math.isnan(whole) else ""
        found.append(Metric(INSTANCE, name, RANKING, None if metric is None else by_patient(metric), reason))
    lacking = "the model has no threshold for instances"
    found += _at_threshold(
        INSTANCE, MODEL_THRESHOLD, label, scores.instance_logit[known], threshold, lacking, of_known, clusters
    )
    dice = weighted_metric("instance_dice_within_tuned", scored)
    reason = lacking if dice is None else "" if (label == 1).any() else "no instance is positive"
    found.append(Metric(INSTANCE, DICE_WITHIN, MODEL_THRESHOLD, None if dice is None else by_patient(dice), reason))
    return found


def _ranks(level: str, label: np.ndarray, ranked: SortedScores) -> list[Metric]:
    one = _one_class(level, label)
    none = "" if (label == 1).any() else f"no {level} is positive"
    return [
        Metric(level, "auc", RANKING, ranked.auc, one),
        Metric(level, "average_precision", RANKING, ranked.average_precision, none),
    ]


def _at_threshold(
    level: str, at: str, label: np.ndarray, logit: np.ndarray, threshold: float | None, lacking: str,
    cluster: np.ndarray, clusters: int,
) -> list[Metric]:  # fmt: skip
    if threshold is None:
        return [Metric(level, name, at, None, lacking) for name in AT_THRESHOLD]
    called = logit > threshold
    weighted: Mapping[str, WeightedMetric] = threshold_metrics(label, called, cluster, clusters)
    positive = bool((label == 1).any())
    reasons = {
        "balanced_accuracy": _one_class(level, label),
        "sensitivity": "" if positive else f"no {level} is positive",
        "specificity": "" if (label == 0).any() else f"no {level} is negative",
        "precision": "" if called.any() else f"no {level} is called positive",
        "f1": "" if positive or called.any() else f"no {level} is positive or called so",
    }
    return [Metric(level, name, at, weighted[name], reasons.get(name, "")) for name in AT_THRESHOLD]


def _one_class(level: str, label: np.ndarray) -> str:
    if len(np.unique(label)) != 1:
        return ""
    return f"all {len(label):,} {level}s are {'positive' if label[0] == 1 else 'negative'}"
