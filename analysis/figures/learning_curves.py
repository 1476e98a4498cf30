"""Learning curves of a study from the stored curves of its runs: a metric against optimizer steps, a line per
replicate and their mean, a dot where each replicate's snapshot was taken."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS, Cell, Label, default_columns, default_panel
from analysis.cells.machines import as_note, differing_machines
from analysis.figures import style
from analysis.figures.metric_curves import marks_of
from analysis.rows.metrics import describe
from analysis.rows.results import folders_of
from d2l_study.errors import UserError, nearest
from d2l_study.study.ledger.run_files import CURVE

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from d2l_study.study.ledger.study_folder import StudyFolder

DEFAULT = "val_bag_auc"
MOST_CELLS = 60
WORDS = {"train_loss": "training loss", "val_distill_loss": "distillation loss (validation)"}


def draw_learning(rows: pandas.DataFrame, metric: str | None = None, *, size: str = "page") -> Figure:
    """metric: one of the curves' own, by default the validation bag AUC.

    A mean is drawn at the steps that all finished replicates reached: beyond those it would be one of the late ones
    only. UserError if no run kept a curve, or none has the metric.
    """
    folders = folders_of(rows)
    name = DEFAULT if metric is None else metric
    columns, panel_key = default_columns(rows), default_panel(rows)
    # Any metric arranges the runs; what is drawn comes from the curves.
    arranged = [DEFAULT] if columns == METRICS else DEFAULT
    layout = arrange(rows, arranged, "method", columns, panel_key)
    there = {place: cell for place, cell in layout.cells.items() if cell.values}
    if len(there) > MOST_CELLS:
        raise UserError(f"--kind learning: {len(there)} configurations are too many (at most {MOST_CELLS}); choose "
                        "some with --where KEY=VALUE")  # fmt: skip
    owner = dict(zip(rows["config_id"].astype(str), rows["study"].astype(str), strict=True))
    steps_taken = rows["best_step"] if "best_step" in rows else rows["replicate"] * math.nan
    best = {
        (str(config), int(replicate)): step
        for config, replicate, step in zip(rows["config_id"], rows["replicate"], steps_taken, strict=True)
    }
    groups: dict[tuple[Label, Label], list[tuple[Label, Cell, dict[int, Curve]]]] = {}
    known: set[str] = set()
    for (panel, row, column), cell in there.items():
        config = cell.origin.config_id
        curves = {r: curve for r in cell.values if (curve := _curve(folders[owner[config]], config, r)) is not None}
        known |= {key for curve in curves.values() for point in curve for key in point}
        curves = {r: [p for p in curve if name in p] for r, curve in curves.items()}
        curves = {r: curve for r, curve in curves.items() if curve}
        if curves:
            groups.setdefault((panel, column), []).append((row, cell, curves))
    if not known:
        raise UserError(f"--kind learning: no finished run of study {layout.study!r} kept {CURVE}")
    if not groups:
        metrics = sorted(known - {"step", "generation"})
        raise UserError(f"--metric {name}: no curve has it{nearest(name, metrics)} (curves: {', '.join(metrics)})")
    marks = marks_of(layout)
    order = sorted(groups, key=lambda place: (layout.panels.index(place[0]), layout.columns.index(place[1])))
    names = [row for row in layout.rows if any(row == one[0] for mine in groups.values() for one in mine)]
    described = describe(name)
    with style.use(size):
        from matplotlib.lines import Line2D

        figure, axes, legend = style.panels_with_legend(len(order), 2.2, [r.text for r in names], sharey=True)
        for i, (axis, place) in enumerate(zip(axes, order, strict=True)):
            for row, cell, curves in groups[place]:
                mark = marks[row]
                for replicate, curve in curves.items():
                    steps, values = _points(curve, name)
                    axis.plot(steps, values, color=mark.colour, alpha=0.3, lw=0.6 * style.current().scale, zorder=2)
                    at = best.get((cell.origin.config_id, replicate), math.nan)
                    taken = values[steps == at]
                    if len(taken):
                        axis.plot([at], [taken[-1]], "o", color=mark.colour, markersize=2.6 * style.current().scale,
                                  alpha=0.75, markeredgewidth=0, zorder=3)  # fmt: skip
                steps, mean = mean_curve(list(curves.values()), name)
                axis.plot(steps, mean, color=mark.colour, linestyle=mark.line, zorder=4)
            panel, column = place
            axis.set_title(", ".join(filter(None, [panel.text, "" if columns == METRICS else column.text])))
            axis.set_xlabel("optimizer steps")
            axis.xaxis.get_major_locator().set_params(integer=True)
            if i % style.current().columns(len(order)) == 0:
                axis.set_ylabel(described.heading if described else WORDS.get(name, name.replace("_", " ")))
        if described is not None and described.unit_interval:
            style.end_at_one(axes[0].yaxis)
        legend(
            [
                Line2D([], [], color=marks[row].colour, linestyle=marks[row].line, label=style.wrapped(row.text))
                for row in names
            ]
        )
        style.footnote(
            figure,
            "thin: runs, their dots where validation chose the snapshot; thick: their mean, as far as all of them go"
            + as_note(differing_machines(layout)),
        )
    return figure


Curve = list[dict[str, Any]]


def mean_curve(curves: list[Curve], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps that all curves have, in order, and the mean of the metric there; non-finite values make the mean NaN."""
    by_step = [{int(p["step"]): float(p[name]) for p in curve} for curve in curves]
    common = sorted(set.intersection(*(set(one) for one in by_step)))
    return np.array(common), np.array([np.mean([one[step] for one in by_step]) for step in common])


def _points(curve: Curve, name: str) -> tuple[np.ndarray, np.ndarray]:
    found = sorted({int(p["step"]): float(p[name]) for p in curve}.items())
    return np.array([s for s, _ in found]), np.array([v for _, v in found])


def _curve(folder: StudyFolder, config: str, replicate: int) -> Curve | None:
    """The points of a run, of a student of several generations those of the last."""
    try:
        curve: Curve = json.loads(folder.read_file(config, replicate, CURVE))
    except (KeyError, FileNotFoundError):
        return None
    last = max((p.get("generation", 0) for p in curve), default=0)
    return [p for p in curve if p.get("generation", 0) == last]
