"""ROC and precision-recall curves of a study from its stored test predictions: for each arm the mean over replicates,
averaged vertically, with a pointwise band (`statistics.roc_curves`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.cells.hardware import hardware_differences, note_suffix
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import Layout
from analysis.cells.scored_cells import ScoredCell, left_out_note, scored_cells, scores_by_panel
from analysis.figures import style
from analysis.figures.legends import panels_with_legend
from analysis.figures.marks import legend_handles, marks_of
from analysis.rows import stages
from analysis.statistics.intervals import unit_values
from analysis.statistics.roc_curves import GRID, RECALL_GRID, mean_band, precision_on_grid, roc_on_grid
from analysis.statistics.scores import has_both_classes
from analysis.tables.caption import cell_counts_text
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("roc", "pr")
PANEL = 2.45
"""Height of a panel, in inches; its plot is about square."""


@dataclass(frozen=True)
class _Curve:
    """A cell's curve on the grid with its band, each (points,); the bounds are NaN where there is no interval."""

    of: ScoredCell
    mean: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    @property
    def has_band(self) -> bool:
        return bool(np.isfinite(self.lower).any())


def draw_roc(rows: pandas.DataFrame, kind: str = "roc", level: str = "bag", *, size: str = "page") -> Figure:
    """kind: `roc`, or `pr` for precision against recall; level: `bag` or `instance`.

    A replicate whose test part has one class only has no curve. UserError if no run kept predictions of this level, or
    none has both classes.
    """
    layout, found = scored_cells(rows, level, kind)
    found = [one for one in found if any(has_both_classes(scores) for scores in one.test.values())]
    if not found:
        raise UserError(f"--kind {kind}: in no finished run do the test {level}s have both classes")
    marks = marks_of(layout)
    shown = [(title, [_Curve(one, *_mean_band(one, kind)) for one in mine])
             for title, mine in scores_by_panel(layout, found)]  # fmt: skip
    names = list(dict.fromkeys(curve.of.row for _, mine in shown for curve in mine))
    with style.use(size):
        figure, axes = panels_with_legend(
            len(shown), PANEL, legend_handles(names, marks),
            _note(layout, found, [mine for _, mine in shown], kind, level),
            square=True, sharex=True, sharey=True,
        )  # fmt: skip
        for i, (axis, (title, mine)) in enumerate(zip(axes, shown, strict=True)):
            _draw(axis, mine, kind, marks)
            axis.set_title(style.title_lines(title, style.current_size().panel_width(len(shown)) - 0.4))
            _label(axis, kind, level, i, len(axes))
    return figure


def curves_on_grid(one: ScoredCell, kind: str) -> np.ndarray:
    """The curves of a cell's replicates on the grid, (replicates with both classes, points); those of a fold that were
    tested on the same bags as their mean."""
    on_grid = roc_on_grid if kind == "roc" else precision_on_grid
    curves = {r: on_grid(*scores) for r, scores in one.test.items() if has_both_classes(scores)}
    if not one.cell.averages_repeats:
        return np.array([*curves.values()])
    return np.transpose([unit_values({r: curve[i] for r, curve in curves.items()}, one.cell.units)
                         for i in range(len(GRID if kind == "roc" else RECALL_GRID))])  # fmt: skip


def _mean_band(one: ScoredCell, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`mean_band` of a cell's curves."""
    return mean_band(curves_on_grid(one, kind), one.cell.test_train_ratio)


def _draw(axis: Axes, mine: list[_Curve], kind: str, marks: dict) -> None:
    grid = GRID if kind == "roc" else RECALL_GRID
    if kind == "roc":
        axis.plot([0, 1], [0, 1], color="#999999", lw=0.7, linestyle=":", zorder=1)
    else:
        share = float(np.mean([scores[0].mean() for curve in mine for scores in curve.of.test.values()]))
        axis.axhline(share, color="#999999", lw=0.7, linestyle=":", zorder=1)
    for z, curve in enumerate(mine):
        mark = marks[curve.of.row]
        drawn = "default" if kind == "roc" else "steps-pre"
        axis.plot(grid, curve.mean, color=mark.colour, linestyle=mark.line, drawstyle=drawn, zorder=3 + z / 100)
        if curve.has_band and len(mine) <= style.FEW_CURVES:  # many bands on each other hide what they say
            step: Literal["pre"] | None = None if kind == "roc" else "pre"
            axis.fill_between(grid, curve.lower, curve.upper, color=mark.colour, alpha=0.13, lw=0, step=step, zorder=2)
    style.unit_square(axis)
    axis.set(xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])
    for ticks in (axis.set_xticklabels, axis.set_yticklabels):
        ticks(["0", "", "0.5", "", "1"])


def _label(axis: Axes, kind: str, level: str, i: int, count: int) -> None:
    across = style.current_size().columns(count)
    x, y = ("false positive rate", "true positive rate") if kind == "roc" else ("recall", "precision")
    if i + across >= count:
        axis.set_xlabel(x)
        axis.tick_params(axis="x", labelbottom=True)
    if i % across == 0:
        axis.set_ylabel(f"{y} of {level}s")


def _note(layout: Layout, found: list[ScoredCell], panels: Sequence[Sequence[_Curve]], kind: str, level: str) -> str:
    """panels: the curves of each."""
    many = cell_counts_text((one.cell, len(curves_on_grid(one, kind))) for one in found)
    fixed = "false positive rate" if kind == "roc" else "recall"
    text = (
        f"test {level}s; mean over {many} at equal {fixed} (vertical averaging "
        f"on a grid of {len(GRID) if kind == 'roc' else len(RECALL_GRID)} points)"
    )
    banded = [len(mine) <= style.FEW_CURVES for mine in panels if any(curve.has_band for curve in mine)]
    said = f", with pointwise 95 % t intervals{', corrected for folds' if layout.has_folds else ''}"
    text += style.spread_note(said, "bands", any(banded), not all(banded))
    text += "; dotted: chance" if kind == "roc" else "; dotted: share of positives"
    text += left_out_note(layout, found)
    if any(one.cell.origin.stage == stages.ORACLE for one in found):
        text += f"; {stages.ORACLE_MARK} trained on the true instance labels"
    return text + note_suffix([*hardware_differences(layout), *labels_used_sentences(layout)])
