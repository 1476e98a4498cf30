"""An evaluation: the metrics of models on the same bags with their intervals, and the differences of two of them.

    found = evaluate(bags, [scores])
    found.value("A", ("bag", "auc", ""))

Patients are drawn with replacement, each with all bags and instances (`statistics.cluster_bootstrap`); where each
patient has one bag, the interval and the test of the AUC of bags are DeLong's (`statistics.delong`), which does not
reject too often where patients are few. All models are drawn the same patients, so that differences are paired. The
models stay as they are: an interval says how much a value would move with other patients of the same kind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from analysis.evaluation.metrics import (
    BAG,
    LEVELS,
    NOT_RESAMPLED,
    PRIMARY_METRIC,
    RANKING,
    WITHOUT_END,
    Level,
    Metric,
    levels_of,
    metrics_of,
)
from analysis.statistics.cluster_bootstrap import (
    LEAST_CLUSTERS,
    LEAST_DEFINED,
    RESAMPLES,
    cluster_draws,
    differences_of,
    percentile_bounds,
    two_sided_p,
    without_spread,
)
from analysis.statistics.delong import delong_interval, delong_test
from analysis.statistics.intervals import WIDEST
from analysis.statistics.paired_tests import holm
from d2l_study.inference.evaluated_scores import EvaluatedBags, ModelScores

CONFIDENCE = 0.95
DELONG, BOOTSTRAP = "DeLong", "bootstrap over patients"
PRIMARY = (BAG, PRIMARY_METRIC, RANKING)
"""The comparison that is not corrected for the others: it was the question before the data were seen."""
FEWER_FROM = ((1_000_000, 499), (100_000, 999))
"""Units from which on there are fewer resamples: each sorts through all of them."""
SAME_VALUE = "all resamples give the same value"
Key = tuple[str, str, str]


@dataclass(frozen=True)
class MetricValue:
    """Of one model. lower, upper: of the 95 % interval, NaN where there is none; interval: how it was made; resamples:
    in which the metric was defined, of the bootstrap; reason: why there is no value, or no interval."""

    model: str
    key: Key
    value: float
    lower: float
    upper: float
    interval: str
    resamples: int
    reason: str


@dataclass(frozen=True)
class MetricDifference:
    """Of the first minus the second model on the same units. lower, upper: NaN where there is no interval; p:
    two-sided, NaN where it is not tested; p_holm: of the primary comparison p itself, of the others corrected for all
    of them that are tested; reason: why there is no value, no test or no interval."""

    first: str
    second: str
    key: Key
    value: float
    lower: float
    upper: float
    test: str
    resamples: int
    p: float
    p_holm: float
    reason: str


@dataclass(frozen=True)
class Ensemble:
    """An ensemble and its members, in the order of their replicates."""

    whole: ModelScores
    members: tuple[ModelScores, ...]


@dataclass(frozen=True)
class Evaluation:
    """leads: one model or two, which are compared; ensembles: those of the leads that are some, by their names."""

    bags: EvaluatedBags
    levels: dict[str, Level]
    leads: tuple[ModelScores, ...]
    ensembles: dict[str, Ensemble]
    values: dict[tuple[str, Key], MetricValue]
    differences: tuple[MetricDifference, ...]
    resamples: dict[str, int]

    @property
    def keys(self) -> list[Key]:
        """Of all metrics, in order."""
        return [key for model, key in self.values if model == self.leads[0].name]

    @property
    def tests(self) -> int:
        """How many differences are tested beside the primary one: what Holm's correction counts."""
        return sum(not math.isnan(one.p) for one in self.differences if one.key != PRIMARY)

    def value(self, model: str, key: Key) -> MetricValue:
        return self.values[model, key]

    def members_of(self, model: str, key: Key) -> np.ndarray:
        """(members,) the values of an ensemble's members, NaN where one has none."""
        return np.array([self.value(member.name, key).value for member in self.ensembles[model].members])


def evaluate(bags: EvaluatedBags, models: Sequence[ModelScores | Ensemble], seed: int = 0) -> Evaluation:
    """Evaluate one model or ensemble, or two of them against each other. Their names, and those of members, differ."""
    leads = tuple(one.whole if isinstance(one, Ensemble) else one for one in models)
    ensembles = {one.whole.name: one for one in models if isinstance(one, Ensemble)}
    every = [*leads, *(member for one in ensembles.values() for member in one.members)]
    if len({one.name for one in every}) < len(every):
        raise ValueError("two models of one name")
    levels = levels_of(bags)
    resamples = {level: _resamples(found.units) for level, found in levels.items()}
    values: dict[tuple[str, Key], MetricValue] = {}
    draws: dict[tuple[str, Key], np.ndarray] = {}
    for model in every:
        metrics = metrics_of(bags, model)
        own = {key: drawn for level in LEVELS
               for key, drawn in _drawn(metrics, levels[level], resamples[level], seed).items()}  # fmt: skip
        for metric in metrics:
            values[model.name, metric.key] = _value(bags, model, metric, levels[metric.level], own.get(metric.key))
        if model in leads:
            draws |= {(model.name, key): drawn for key, drawn in own.items()}
    differences = _differences(bags, leads, levels, values, draws) if len(leads) == 2 else ()
    return Evaluation(bags, levels, leads, ensembles, values, differences, resamples)


def _resamples(units: int) -> int:
    return next((fewer for least, fewer in FEWER_FROM if units > least), RESAMPLES)


def _drawn(metrics: Sequence[Metric], level: Level, resamples: int, seed: int) -> dict[Key, np.ndarray]:
    """The resampled values of the metrics of a level that have a value."""
    mine = [metric for metric in metrics if metric.level == level.level and metric.weighted and not metric.reason
            and metric.name not in NOT_RESAMPLED]  # fmt: skip
    if not mine or level.patients < LEAST_CLUSTERS:
        return {}
    drawn = cluster_draws([metric.weighted for metric in mine if metric.weighted], level.patients, resamples, seed)
    return {metric.key: drawn[:, i] for i, metric in enumerate(mine)}


def _value(
    bags: EvaluatedBags, model: ModelScores, metric: Metric, level: Level, drawn: np.ndarray | None
) -> MetricValue:
    found = MetricValue(model.name, metric.key, math.nan, math.nan, math.nan, "", 0, metric.reason)
    if metric.reason or metric.weighted is None:
        return found
    value = float(metric.weighted(np.ones(level.patients)))
    found = dataclasses.replace(found, value=value)
    if math.isnan(value):
        return dataclasses.replace(found, reason="not to be computed from these scores")
    if level.patients < 2:
        return dataclasses.replace(found, reason="no interval: all is of one patient")
    if metric.name in NOT_RESAMPLED:
        return dataclasses.replace(found, reason=f"no interval: {NOT_RESAMPLED[metric.name]}")
    if _by_delong(metric.key, level):
        _, lower, upper = delong_interval(bags.label, model.bag_logit)
        reason = ""
        if math.isnan(lower):
            few = min(level.positives, level.units - level.positives) < 2
            reason = f"no interval: {'a class has one bag only' if few else _without_variance(value)}"
        return _without_wide_interval(
            dataclasses.replace(found, lower=lower, upper=upper, interval=DELONG, reason=reason), 1.0
        )
    if level.patients < LEAST_CLUSTERS:
        return dataclasses.replace(found, reason=f"no interval: {_few(level)}")
    assert drawn is not None
    kept = drawn[~np.isnan(drawn)]
    reason = _without_interval(kept, len(drawn))
    lower, upper = (math.nan, math.nan) if reason else percentile_bounds(kept, CONFIDENCE)
    return _without_wide_interval(
        dataclasses.replace(found, lower=lower, upper=upper, interval=BOOTSTRAP, resamples=len(kept), reason=reason),
        1.0,
    )


def _few(level: Level) -> str:
    """Why there is no bootstrap."""
    return f"of {level.patients} patients, and a bootstrap asks for {LEAST_CLUSTERS}"


def _without_variance(auc: float) -> str:
    """Why DeLong's variance of an AUC is 0: such a one is 0, 0.5 or 1."""
    where = {0.0: "all positive bags score below all negative ones", 1.0: "the classes are told apart without error"}
    return f"DeLong's variance is 0 where {where.get(round(auc, 9), 'all bags have the same score')}"


_Shown = TypeVar("_Shown", MetricValue, MetricDifference)


def _without_wide_interval(found: _Shown, length: float) -> _Shown:
    """Without an interval that covers more than `WIDEST` of the range of a metric, or of its differences.

    length: of that range
    """
    if found.key[1] in WITHOUT_END or not found.upper - found.lower > WIDEST * length:
        return found
    reason = "no interval: it would cover more than half of all possible values"
    return dataclasses.replace(found, lower=math.nan, upper=math.nan, reason=reason)


def _without_interval(kept: np.ndarray, resamples: int) -> str:
    if len(kept) < LEAST_DEFINED * resamples:
        return f"no interval: defined in {len(kept):,} of {resamples:,} resamples only"
    if without_spread(kept):
        return f"no interval: {SAME_VALUE}"
    return ""


def _differences(
    bags: EvaluatedBags, leads: tuple[ModelScores, ...], levels: dict[str, Level],
    values: dict[tuple[str, Key], MetricValue], draws: dict[tuple[str, Key], np.ndarray],
) -> tuple[MetricDifference, ...]:  # fmt: skip
    first, second = leads
    found = []
    for name, key in values:
        if name != first.name:
            continue
        a, b = values[first.name, key], values[second.name, key]
        made = MetricDifference(first.name, second.name, key, a.value - b.value, math.nan, math.nan, "", 0, math.nan,
                                math.nan, "")  # fmt: skip
        undefined = next((f"{one.model}: {one.reason}" for one in (a, b) if math.isnan(one.value)), "")
        if undefined:
            made = dataclasses.replace(made, reason=undefined)
        elif _by_delong(key, levels[key[0]]):
            test = delong_test(bags.label, first.bag_logit, second.bag_logit, CONFIDENCE)
            made = dataclasses.replace(made, lower=test.lower, upper=test.upper, test=DELONG, p=test.p)
            if test.has_no_spread:
                reason = f"{_lacking(test.p)}: DeLong's variance of the difference is 0"
                made = dataclasses.replace(made, reason=reason)
            elif math.isnan(test.p):
                made = dataclasses.replace(made, reason="not tested: a class has one bag only")
        elif levels[key[0]].patients < 2:
            made = dataclasses.replace(made, reason="not tested: all is of one patient")
        elif key[1] in NOT_RESAMPLED:
            made = dataclasses.replace(made, reason=f"not tested: {NOT_RESAMPLED[key[1]]}")
        elif levels[key[0]].patients < LEAST_CLUSTERS:
            made = dataclasses.replace(made, reason=f"not tested: {_few(levels[key[0]])}")
        else:
            drawn = differences_of(draws[first.name, key], draws[second.name, key])
            kept = drawn[~np.isnan(drawn)]
            if len(kept) < LEAST_DEFINED * len(drawn):
                reason = f"not tested: defined in {len(kept):,} of {len(drawn):,} resamples only"
                made = dataclasses.replace(made, reason=reason)
            else:
                p, same = two_sided_p(kept, levels[key[0]].patients), without_spread(kept)
                lower, upper = (math.nan, math.nan) if same else percentile_bounds(kept, CONFIDENCE)
                made = dataclasses.replace(made, lower=lower, upper=upper, test=BOOTSTRAP, resamples=len(kept), p=p,
                                           reason=f"{_lacking(p)}: {SAME_VALUE}" if same else "")  # fmt: skip
        found.append(_without_wide_interval(made, 2.0))
    others = [one for one in found if one.key != PRIMARY]
    corrected = dict(zip((one.key for one in others), holm([one.p for one in others]), strict=True))
    return tuple(dataclasses.replace(one, p_holm=corrected.get(one.key, one.p)) for one in found)


def _lacking(p: float) -> str:
    """What a difference without spread has not: a difference of 0 keeps its p-value of 1, which claims nothing."""
    return "not tested" if math.isnan(p) else "no interval"


def _by_delong(key: Key, level: Level) -> bool:
    return key[:2] == (BAG, "auc") and level.single
