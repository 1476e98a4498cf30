"""Learning curves of a study from the stored curves of its runs: a metric against optimizer steps, a line per
replicate and their mean, a dot where each replicate's snapshot was taken."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.hardware import hardware_differences, note_suffix
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import METRICS, Cell, Label, Layout, default_columns, default_panel, panel_title
from analysis.figures import style
from analysis.figures.legends import panels_with_legend
from analysis.figures.marks import Mark, legend_handles, marks_of
from analysis.rows.metrics import metric_of_column
from analysis.rows.study_folders import RunFolders, RunKey, by_run, finished_replicates
from d2l_study.errors import DamagedError, UserError, counted, nearest
from d2l_study.study.ledger.run_files import CURVE

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEFAULT = "val_bag_auc"
MOST_CELLS = 60
WORDS = {"train_loss": "training loss", "val_distill_loss": "distillation loss (validation)"}
"""How axes call what runs measure of their training; what is called like a metric of results would be of test data."""

Curve = list[dict[str, Any]]
"""The validations of a run: `step` and its metrics."""


@dataclass(frozen=True)
class CellCurves:
    """The stored curves of a cell, by replicate, as far as they have the metric."""

    row: Label
    cell: Cell
    by_replicate: Mapping[int, Curve]
    finished: int
    """How many replicates are."""


@dataclass(frozen=True)
class _Read:
    """What is drawn: by panel and column the cells whose runs kept curves with the metric. bare: how many more there
    are, of the same stages."""

    layout: Layout
    curves: Mapping[tuple[Label, Label], list[CellCurves]]
    bare: int


def draw_learning(rows: pandas.DataFrame, metric: str | None = None, *, size: str = "page") -> Figure:
    """metric: one of the curves' own, by default the validation bag AUC.

    A mean is drawn at the steps that all finished replicates reached: beyond those it would be one of the late ones
    only. UserError if no run kept a curve, or none has the metric.
    """
    name = DEFAULT if metric is None else metric
    read = _read(rows, name)
    layout, curves = read.layout, read.curves
    best_steps = _best_steps(rows)
    marks = marks_of(layout)
    order = sorted(curves, key=lambda at: (layout.panels.index(at[0]), layout.columns.index(at[1])))
    drawn_rows = {one.row for mine in curves.values() for one in mine}
    names = [row for row in layout.rows if row in drawn_rows]
    described = metric_of_column(name)
    with style.use(size) as chosen:
        note = "thin: runs, their dots at the snapshot that is kept; thick: their mean, as far as all of them go"
        note += _left_out(read) + _gaps(read, name)
        note += note_suffix([*hardware_differences(layout), *labels_used_sentences(layout)])
        figure, axes = panels_with_legend(len(order), 2.2, legend_handles(names, marks), note, sharey=True)
        for i, (axis, (panel, column)) in enumerate(zip(axes, order, strict=True)):
            for one in curves[panel, column]:
                _draw_cell(axis, one, name, marks[one.row], best_steps)
            axis.set_title(panel_title(panel, column))
            axis.set_xlabel("optimizer steps")
            axis.xaxis.get_major_locator().set_params(integer=True)
            if i % chosen.columns(len(order)) == 0:
                axis.set_ylabel(_heading(name, layout))
        if described is not None and described.unit_interval:
            style.limit_to_unit_interval(axes[0].yaxis)
    return figure


def _draw_cell(axis: Axes, one: CellCurves, name: str, mark: Mark, best_steps: Mapping[RunKey, float]) -> None:
    """The curve of each run with a dot at its snapshot, and their mean."""
    scale = style.current_size().scale
    for replicate, curve in one.by_replicate.items():
        steps, values = _points(curve, name)
        axis.plot(steps, values, color=mark.colour, alpha=0.3, lw=0.6 * scale, zorder=2)
        at = best_steps.get((one.cell.origin.config_id, replicate, one.row.study), math.nan)
        taken = values[steps == at]
        if len(taken):
            axis.plot([at], [taken[-1]], "o", color=mark.colour, markersize=2.6 * scale, alpha=0.75, markeredgewidth=0,
                      zorder=3)  # fmt: skip
    steps, mean = mean_curve(list(one.by_replicate.values()), name)
    axis.plot(steps, mean, color=mark.colour, linestyle=mark.line, zorder=4)


def _read(rows: pandas.DataFrame, name: str) -> _Read:
    """The layout of the rows, and the stored curves of its cells, of whatever metric the rows have a value of."""
    folders = RunFolders.of(rows)
    # Any metric arranges the runs; what is drawn comes from the curves.
    columns = default_columns(rows)
    layout = arrange(rows, [DEFAULT] if columns == METRICS else DEFAULT, "method", columns, default_panel(rows))
    replicates = finished_replicates(rows)
    there = {key: cell for key, cell in layout.cells.items() if (cell.origin.config_id, key[1].study) in replicates}
    if len(there) > MOST_CELLS:
        raise UserError(f"--kind learning: {len(there)} configurations are too many (at most {MOST_CELLS}); choose "
                        "some with --where KEY=VALUE")  # fmt: skip
    found: dict[tuple[Label, Label], list[CellCurves]] = {}
    known: set[str] = set()
    bare: list[Cell] = []
    for (panel, row, column), cell in there.items():
        config, study = cell.origin.config_id, row.study
        finished = replicates[config, study]
        curves = {r: curve for r in finished if (curve := _curve(folders, (config, r, study))) is not None}
        known |= {key for curve in curves.values() for point in curve for key in point}
        with_metric = {r: [point for point in curve if name in point] for r, curve in curves.items()}
        with_metric = {r: own for r, own in with_metric.items() if any(math.isfinite(point[name]) for point in own)}
        if with_metric:
            found.setdefault((panel, column), []).append(CellCurves(row, cell, with_metric, len(finished)))
        else:
            bare.append(cell)
    metrics = sorted(known - {"step", "generation"})
    if not known:
        raise UserError(f"--kind learning: no finished run of study {layout.study!r} kept {CURVE}")
    if not found and name in metrics:
        raise UserError(f"--metric {name}: it is undefined in every curve (curves: {', '.join(metrics)})")
    if not found:
        raise UserError(f"--metric {name}: no curve has it{nearest(name, metrics)} (curves: {', '.join(metrics)})")
    stages = {one.cell.origin.stage for mine in found.values() for one in mine}  # others have none of the metric
    return _Read(layout, found, sum(cell.origin.stage in stages for cell in bare))


def _left_out(read: _Read) -> str:
    """For the note: how many finished runs and configurations are not drawn; empty for none."""
    shown = [one for mine in read.curves.values() for one in mine]
    finished, drawn = sum(one.finished for one in shown), sum(len(one.by_replicate) for one in shown)
    lost = [counted(read.bare, "configuration")] if read.bare else []
    if drawn < finished:
        lost.append(f"{finished - drawn} of {'the other ' if lost else ''}{counted(finished, 'run')}")
    return f"; without {' and '.join(lost)}, whose curves are not there or undefined" if lost else ""


def _gaps(read: _Read, name: str) -> str:
    """For the note: what breaks a line; empty where every value can be drawn."""
    curves = (curve for mine in read.curves.values() for one in mine for curve in one.by_replicate.values())
    broken = sum(any(not math.isfinite(point[name]) for point in curve) for curve in curves)
    return f"; gaps in {counted(broken, 'run')}, and in their means: infinite or undefined values" if broken else ""


def _heading(name: str, layout: Layout) -> str:
    """The metric as the axis says it."""
    described, own = metric_of_column(name), layout.names.texts.get(name)
    if described is None or name in WORDS:
        return own or WORDS.get(name, name.replace("_", " "))
    return replace(described, title=own or described.title).heading


def _best_steps(rows: pandas.DataFrame) -> dict[RunKey, float]:
    """The step at which the snapshot of each finished run was taken; NaN where rows do not say."""
    return by_run(rows, rows["best_step"] if "best_step" in rows else rows["replicate"] * math.nan)


def mean_curve(curves: list[Curve], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all curves have, in order, and the mean of the metric there; non-finite values make the mean NaN."""
    by_step = [{int(p["step"]): float(p[name]) for p in curve} for curve in curves]
    common = sorted(set.intersection(*(set(one) for one in by_step)))
    return np.array(common), np.array([np.mean([one[step] for one in by_step]) for step in common])


def _points(curve: Curve, name: str) -> tuple[np.ndarray, np.ndarray]:
    found = sorted({int(p["step"]): float(p[name]) for p in curve}.items())
    return np.array([s for s, _ in found]), np.array([v for _, v in found])


def _curve(folders: RunFolders, run: RunKey) -> Curve | None:
    """The points of a run, of a student of several generations those of the last; None if it kept none, or its row came
    from a file."""
    try:
        curve: Curve = json.loads(folders.folder(*run).read_file(*run[:2], CURVE))
    except (KeyError, FileNotFoundError):
        return None
    except DamagedError:
        raise  # to leave it out would change a figure without a word
    except UserError:
        return None
    last = max((p.get("generation", 0) for p in curve), default=0)
    return [p for p in curve if p.get("generation", 0) == last]
