"""An evaluation as tables for a terminal of 100 columns."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from analysis.evaluation.evaluation import Evaluation, Key, MetricDifference, MetricValue
from analysis.evaluation.metrics import BAG, HALF, HEADINGS, INSTANCE, LABELS, LEVELS, MODEL_THRESHOLD, RANKING, TRAINED
from analysis.statistics.cluster_bootstrap import FEW_CLUSTERS, LEAST_CLUSTERS
from d2l_study.errors import counted, listed

WIDTH = 100
FIRST = 29
"""Columns of the names of metrics."""
MAIN: tuple[Key, ...] = (
    (BAG, "auc", RANKING), (BAG, "average_precision", RANKING), (BAG, "balanced_accuracy", MODEL_THRESHOLD),
    (BAG, "brier", TRAINED), (INSTANCE, "auc", RANKING),
)  # fmt: skip
"""The metrics of members that are shown beside those of their ensemble."""
FEW_OF_A_CLASS = 20
"""Bags of a class below which DeLong's normal approximation, and a bootstrap, are poor."""
MOST_NAMED = 8
"""Metrics that are named before a reason; of few patients nearly all share it. `metrics.csv` has it beside each."""
SHORT = ("AUC", "avg. prec.", "bal. acc.", "Brier", "inst. AUC")


def text_lines(found: Evaluation) -> Iterator[str]:
    """The tables, line by line: the metrics of each level, then members, then differences, then what has no value."""
    notes = Notes()
    for level in LEVELS:
        if level == INSTANCE and not found.levels[level].units:
            yield f"instances: {found.value(found.leads[0].name, (INSTANCE, 'auc', RANKING)).reason}"
            yield ""
            continue
        yield from _level(found, level, notes)
        yield ""
    for name in found.ensembles:
        yield from _members(found, name)
        yield ""
    if found.differences:
        yield from _differences(found, notes)
        yield ""
    for sentence in few_sentences(found):
        yield from _note(sentence)
    yield from notes.lines()


def few_sentences(found: Evaluation) -> list[str]:
    """What so few bags and patients do not allow, none or more sentences."""
    of = found.levels[BAG]
    few = min(of.positives, of.units - of.positives)
    sentences = []
    if few < FEW_OF_A_CLASS:
        sentences.append(f"A class has {counted(few, 'bag')}: intervals and p-values of so few are rough.")
    patients = min(of.patients for of in found.levels.values() if of.units)
    if patients < LEAST_CLUSTERS:
        sentences.append(f"{counted(patients, 'patient')}: below {LEAST_CLUSTERS} there is no bootstrap, and so hardly "
                         "an interval or a test.")  # fmt: skip
    elif patients < FEW_CLUSTERS:
        sentences.append(f"{patients} patients: below about {FEW_CLUSTERS} intervals of a bootstrap are too narrow, "
                         "and its p-values too small.")  # fmt: skip
    return sentences


def counts_text(found: Evaluation, level: str) -> str:
    """`40 bags (20 positive) of 38 patients`."""
    of = found.levels[level]
    units = f"{of.units:,} {level}{'s' if of.units != 1 else ''}"
    whose = ", each a patient of its own" if of.single else f" of {counted(of.patients, 'patient')}"
    return f"{units} ({of.positives:,} positive){whose}"


def cells_text(level: str) -> str:
    """What the cells of the metrics of a level are, with their units."""
    others = "; log loss in nats; slope and intercept have no bounds" if level == BAG else ""
    return f"value [95 % interval], from 0 to 1{others}"


def number(value: float, signed: bool = False) -> str:
    """Three decimals with a minus sign; `–` for what has no value."""
    if math.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.3f}".replace("-", "−") if abs(value) < 1000 else f"{value:.3g}"


def value_text(value: MetricValue | MetricDifference, signed: bool = False) -> str:
    """`0.931 [0.851, 0.982]`; without an interval the value alone."""
    if math.isnan(value.lower):
        return number(value.value, signed)
    return f"{number(value.value, signed)} [{number(value.lower, signed)}, {number(value.upper, signed)}]"


def p_text(p: float) -> str:
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


class Notes:
    """Why values are missing, each reason once with the metrics that it is of."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    def add(self, key: Key, reason: str) -> None:
        if reason:
            level, name, at = key
            what = f"{LABELS[name]} of {level}s" + (f" {HEADINGS[at]}" if at in (MODEL_THRESHOLD, HALF) else "")
            names = self.found.setdefault(reason, [])
            if what not in names:
                names.append(what)

    def sentences(self) -> list[str]:
        return [f"{listed(names, MOST_NAMED)}: {reason}" for reason, names in self.found.items()]

    def lines(self) -> Iterator[str]:
        for sentence in self.sentences():
            yield from _note(sentence)


def _note(sentence: str) -> list[str]:
    return textwrap.wrap(f"– {sentence}", WIDTH, subsequent_indent="  ")


def _level(found: Evaluation, level: str, notes: Notes) -> Iterator[str]:
    leads = found.leads
    wide = (WIDTH - FIRST) // 2 - 2
    heads = [cut(model.name, wide) for model in leads]
    yield counts_text(found, level)
    yield f"  {cells_text(level)}"
    yield _row("", heads, wide)
    at, empty = None, False
    for key in (key for key in found.keys if key[0] == level):
        values = [found.value(model.name, key) for model in leads]
        if key[2] != at:
            at = key[2]
            group = [found.value(model.name, other) for other in found.keys for model in leads
                     if other[0] == level and other[2] == at]  # fmt: skip
            empty = all(math.isnan(value.value) for value in group)
            if at != RANKING:
                yield f"  {HEADINGS[at]}" + (f": {values[0].reason}" if empty else "")
        if empty and at != RANKING:
            continue
        for value in values:
            notes.add(key, value.reason)
        yield _row(LABELS[key[1]], [value_text(value) for value in values], wide, 4 if at != RANKING else 2)


def _members(found: Evaluation, name: str) -> Iterator[str]:
    ensemble = found.ensembles[name]
    keys = [key for key in MAIN if not all(math.isnan(v) for v in found.members_of(name, key))]
    heads = [short for key, short in zip(MAIN, SHORT, strict=True) if key in keys]
    yield f"{cut(name, 70)}: {counted(len(ensemble.members), 'member')} alone"
    yield _member("", heads)
    for member in ensemble.members:
        yield _member(member.name, [number(found.value(member.name, key).value) for key in keys])
    spread = [mean_sd(found.members_of(name, key)) for key in keys]
    yield _member("mean ± sd", [number(mean) + (f" ± {number(sd)}" if sd == sd else "") for mean, sd in spread])
    yield _member("the ensemble", [number(found.value(name, key).value) for key in keys])


def _member(name: str, cells: Sequence[str]) -> str:
    return (f"  {cut(name, 26):<26}" + "".join(f" {cell:<13}" for cell in cells)).rstrip()


def mean_sd(values: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation (n − 1) of the values that are there; NaN of too few."""
    kept = values[~np.isnan(values)]
    return (float(kept.mean()) if len(kept) else math.nan, float(kept.std(ddof=1)) if len(kept) > 1 else math.nan)


def _differences(found: Evaluation, notes: Notes) -> Iterator[str]:
    first, second = (model.name for model in found.leads)
    yield f"{cut(first, 40)} minus {cut(second, 40)}, on the same bags"
    yield f"{'':{FIRST}}{'difference [95 % interval]':<30}{'p':>9}{'p (Holm)':>11}  test"
    at = None
    for one in found.differences:
        level, name, where = one.key
        if level == INSTANCE and not found.levels[level].units:
            continue
        if one.reason and not one.reason.startswith((f"{first}: ", f"{second}: ")):  # else it is said above
            notes.add(one.key, one.reason)
        if (level, where) != at:
            at = (level, where)
            yield f"  {level}s: {HEADINGS[where]}"
        yield (f"    {LABELS[name]:<{FIRST - 4}}{value_text(one, signed=True):<30}{p_text(one.p):>9}"
               f"{p_text(one.p_holm):>11}  {one.test.split()[0] if one.test else ''}").rstrip()  # fmt: skip
    yield f"  The AUC of bags is the primary comparison; Holm's correction is for the {counted(found.tests, 'other')}."


def _row(name: str, cells: Sequence[str], wide: int, indent: int = 2) -> str:
    return (f"{' ' * indent}{name}".ljust(FIRST) + "".join(f"  {cell:<{wide}}" for cell in cells)).rstrip()


def cut(name: str, most: int) -> str:
    """A name in so many letters at most."""
    return name if len(name) <= most else name[: most - 1] + "…"
