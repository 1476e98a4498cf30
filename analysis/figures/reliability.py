"""Reliability of bag or instance scores: share of positives against score, before and after temperature scaling, and
the numbers that go with it (`statistics.calibration`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.hardware import hardware_differences, note_suffix
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import Layout
from analysis.cells.partitions import unit_noun
from analysis.cells.scored_cells import ScoredCell, left_out_note, scored_cells, scores_by_panel
from analysis.figures import style
from analysis.figures.legends import panels_with_legend
from analysis.figures.marks import Mark, legend_handles, marks_of
from analysis.rows import stages
from analysis.statistics.calibration import (
    BINS,
    SPECIFICITY,
    calibration_by_replicate,
    reliability_bins,
)
from analysis.statistics.intervals import Interval, mean_interval, unit_count, unit_values
from analysis.tables.caption import cell_counts_text, no_interval_sentences
from analysis.tables.number_style import BOTH_BOUNDS, NO_INTERVAL
from analysis.tables.sheet import EMPTY, Caption, Entry, Group, Line, Panel, Sheet
from d2l_study.errors import UserError
from d2l_study.learning.calibration import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from d2l_study.learning.metrics import probability

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEAST = 5
"""Scores of a replicate in a bin below which its share says nothing."""
COLUMNS = (
    ("temperature", "temperature", False),
    ("ece", "calibration error", True), ("ece_scaled", "calibration error, scaled", True),
    ("brier", "Brier score", True), ("brier_scaled", "Brier score, scaled", True),
    ("sensitivity", "sensitivity", True),
)  # fmt: skip


@dataclass(frozen=True)
class _Curve:
    """What the figure shows of a cell: score and share of positives by bin, and from the least to the greatest share of
    its runs where several have one (bins, 3): score, least, greatest."""

    score: np.ndarray
    share: np.ndarray
    bars: np.ndarray


ATTENTION_LEFT_OUT = "Attention scores rank instances and are no probabilities: they are left out."


@dataclass
class Reliability:
    """A study's cells with their scores, to be drawn or tabled."""

    layout: Layout
    cells: list[ScoredCell]
    level: str
    attention_cells: int = 0
    """How many cells are left out, since their scores are attention, which is no probability."""

    @classmethod
    def of(cls, rows: pandas.DataFrame, level: str = "bag") -> Reliability:
        """UserError where no finished run kept predictions of the level that are probabilities."""
        layout, cells = scored_cells(rows, level, "reliability")
        attention = [
            one for one in cells if level == "instance" and one.cell.origin.stage in stages.WITHOUT_PROBABILITY
        ]
        kept = [one for one in cells if one not in attention]
        if not kept:
            raise UserError(f"--kind reliability: the {level} scores of study {layout.study!r} are of attention, which "
                            "is no probability")  # fmt: skip
        return cls(layout, kept, level, len(attention))

    def frame(self) -> pandas.DataFrame:
        """One row per run: its temperature, calibration errors, Brier scores and sensitivity."""
        import pandas as pd

        found = [
            {"panel": one.panel.text, "column": one.column.text, "row": one.row.text,
             "config_id": one.cell.origin.config_id, "replicate": r, **vars(values)}
            for one in self.cells
            for r, values in calibration_by_replicate(one.test, one.validation).items()
        ]  # fmt: skip
        return pd.DataFrame(found)

    def sheet(self) -> Sheet:
        """The numbers as a table: mean with its interval over replicates."""
        panels, intervals = [], []
        for title, mine in scores_by_panel(self.layout, self.cells):
            lines = []
            for one in mine:
                runs = calibration_by_replicate(one.test, one.validation)
                entries = []
                for name, _, unit in COLUMNS:
                    ratio = one.cell.test_train_ratio
                    if name == "temperature":  # a factor: its logarithm is what varies evenly
                        logs = {r: np.log(run.temperature) for r, run in runs.items()}
                        values = unit_values(logs, one.cell.units)
                        interval = _factor(mean_interval(values, unit_interval=False, test_train_ratio=ratio))
                        entries.append(_factor_entry(interval))
                    else:
                        values = unit_values({r: getattr(run, name) for r, run in runs.items()}, one.cell.units)
                        interval = mean_interval(values, unit_interval=unit, test_train_ratio=ratio)
                        entries.append(_entry(interval))
                    intervals.append(interval)
                lines.append(Line(one.row, entries))
            panels.append(Panel(title, [head for _, head, _ in COLUMNS], [Group("", lines)]))
        units = unit_noun(self.layout.designs)
        averaged = ", their repeats averaged" if self.layout.averages_repeats else ""
        cells = (
            f"Test {self.level}s: mean [95 % interval] (count of {units}{averaged}); all from 0 to 1 but temperature."
        )
        beside = [
            f"Sensitivity at a specificity of {SPECIFICITY:g}: its threshold is read off the test scores, not set "
            "beforehand.",
            *no_interval_sentences(intervals),
            *([ATTENTION_LEFT_OUT] if self.attention_cells else []),
            *hardware_differences(self.layout),
            *labels_used_sentences(self.layout),
        ]  # fmt: skip
        details = [
            f"Calibration error over {BINS} bins of equal width, of the probability of the positive class; lower is "
            "better for it and for the Brier score.",
            "Scaled: logits divided by a temperature that was fitted to the labels of validation bags only"
            f" (geometric mean over {units}){', since instances have none' if self.level == 'instance' else ''}.",
        ]
        return Sheet(
            f"{self.layout.study}: reliability of {self.level} scores",
            f"{self.layout.study}-reliability-{self.level}",
            panels,
            Caption(cells, beside, details),
        )

    def draw(self, size: str = "page") -> Figure:
        """The figure: a panel as trained and one after temperature scaling, for each panel of the table."""
        marks = marks_of(self.layout)
        shown = scores_by_panel(self.layout, self.cells)
        names = list(dict.fromkeys(one.row for _, mine in shown for one in mine))
        scaled = any(one.validation for one in self.cells)
        kinds = (False, True) if scaled else (False,)
        with style.use(size):
            count = len(shown) * len(kinds)
            most = len(kinds) * max(1, style.current_size().across // len(kinds))  # both of a cell beside each other
            order = [(title, [(one, _curve(one, after)) for one in mine], after)
                     for title, mine in shown for after in kinds]  # fmt: skip
            said = [*hardware_differences(self.layout), *labels_used_sentences(self.layout)]
            note = self._note(scaled, [[curve for _, curve in mine] for _, mine, _ in order]) + note_suffix(said)
            figure, axes = panels_with_legend(
                count, 2.45, legend_handles(names, marks, markers=True), note, most,
                square=True, sharex=True, sharey=True,
            )  # fmt: skip
            for i, (axis, (title, mine, after)) in enumerate(zip(axes, order, strict=True)):
                axis.plot([0, 1], [0, 1], color="#999999", lw=0.7, linestyle=":", zorder=1)
                for one, curve in mine:
                    _draw(axis, curve, marks[one.row], bars=len(mine) <= style.FEW_CURVES)
                if not any(len(curve.score) for _, curve in mine):
                    scaled_some = not after or any(one.validation for one, _ in mine)
                    few = f"no bin has {LEAST} scores"
                    style.annotate_empty(axis, few if scaled_some else "no validation labels to fit a temperature to")
                across = style.current_size().columns(count, most)
                text = ", ".join(filter(None, [title, "after scaling" if after else "as trained"]))
                axis.set_title(style.title_lines(text, style.current_size().panel_width(count, most=most) - 0.4))
                style.unit_square(axis)
                axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
                if i + across >= count:
                    axis.set_xlabel("score (probability)")
                    axis.tick_params(axis="x", labelbottom=True)
                if i % across == 0:
                    axis.set_ylabel(f"share of positive {self.level}s")
        return figure

    def _note(self, scaled: bool, panels: Sequence[Sequence[_Curve]]) -> str:
        """scaled: some panels are; panels: the curves of each."""
        many = cell_counts_text((one.cell, unit_count(one.test, one.cell.units)) for one in self.cells)
        many = many.replace("(their repeats averaged)", "(with all their repeats)")  # scores are put together instead
        text = f"test {self.level}s in {BINS} bins of equal width, {many} together"
        barred = [len(curves) <= style.FEW_CURVES for curves in panels if any(len(curve.bars) for curve in curves)]
        said = f"; bars: from the least to the greatest run with at least {LEAST} scores in the bin"
        text += style.spread_note(said, "bars", any(barred), not all(barred))
        text += "; dotted: perfect"
        text += "; scaled by a temperature fitted to validation bags" if scaled else ""
        text += "; attention, which is no probability, is left out" if self.attention_cells else ""
        return text + left_out_note(self.layout, self.cells, self.attention_cells)


def _curve(one: ScoredCell, after: bool) -> _Curve:
    """The curve of a cell, as trained or after temperature scaling; without points where there is nothing to draw."""
    temperatures = (
        {r: v.temperature for r, v in calibration_by_replicate(one.test, one.validation).items()} if after else {}
    )
    runs = []
    for r, (labels, logits) in one.test.items():
        if after and np.isnan(temperatures[r]):
            continue
        runs.append((labels, probability(logits / temperatures[r] if after else logits)))
    if not runs:
        return _Curve(np.empty(0), np.empty(0), np.empty((0, 3)))
    labels, scores = (np.concatenate([run[i] for run in runs]) for i in (0, 1))
    count, score, share = reliability_bins(labels, scores)
    full = count >= LEAST
    each = [reliability_bins(*run) for run in runs]
    shares = np.array([np.where(c >= LEAST, s, np.nan) for c, _, s in each])
    several = np.flatnonzero(full & ((~np.isnan(shares)).sum(axis=0) > 1))
    bars = [(score[b], np.nanmin(shares[:, b]), np.nanmax(shares[:, b])) for b in several]
    return _Curve(score[full], share[full], np.reshape(bars, (-1, 3)))


def _draw(axis: Axes, curve: _Curve, mark: Mark, bars: bool) -> None:
    """bars: with the spread of the runs."""
    axis.plot(curve.score, curve.share, color=mark.colour, linestyle=mark.line, marker=mark.marker,
              markersize=3.4 * style.current_size().scale, zorder=3)  # fmt: skip
    for score, least, greatest in curve.bars if bars else ():
        axis.plot([score] * 2, [least, greatest], color=mark.colour, alpha=0.4, lw=0.9, zorder=2)


def _factor(logs: Interval) -> Interval:
    """The interval of a temperature from that of its logarithm; without bounds where it is wider than a temperature can
    be."""
    mean, lower, upper = (float(np.exp(v)) for v in (logs.mean, logs.lower, logs.upper))
    if lower < LOWEST_TEMPERATURE and upper > HIGHEST_TEMPERATURE:
        return Interval(mean, np.nan, np.nan, logs.count, "not estimable")
    return replace(logs, mean=mean, lower=lower, upper=upper)


def _factor_entry(interval: Interval) -> Entry:
    if not interval.count:
        return EMPTY
    interval_text = f"[{interval.lower:.2g}, {interval.upper:.2g}]" if interval.has_bounds else ""
    if interval.is_void:
        interval_text = NO_INTERVAL
    return Entry(f"{interval.mean:.2f}", interval_text, f"({interval.count})", value=interval.mean)


def _entry(interval: Interval) -> Entry:
    if not interval.count:
        return EMPTY
    return Entry(
        BOTH_BOUNDS.mean(interval), BOTH_BOUNDS.interval_text(interval), f"({interval.count})", value=interval.mean
    )
