"""The study's figure: a metric against the number of bags, a panel per bag size, a curve per row of the table.
Teacher against student, paired, is another figure (`figures.paired`).

Curves are means over replicates, bands their 95 % intervals (`statistics.intervals`); more than `style.MOST_BANDS` of
them are left out. Where a cell has no interval the band ends, and the note says why. A hollow marker stands for a cell
with fewer replicates than planned; a missing cell breaks its curve, and so does an infinite mean, which the note names.
With a single number of bags there is no curve, and
the panels show one point with its error bar per row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from analysis.cells.arrange import arrange
from analysis.cells.hardware import hardware_differences, note_suffix
from analysis.cells.labels_used import labels_used_sentences, on_axis
from analysis.cells.layout import (
    METRICS,
    SYMBOL_MEANINGS,
    Cell,
    Label,
    Layout,
    default_columns,
    is_missing,
    known_panel,
    why_no_values,
)
from analysis.cells.unfinished import Unfinished, unfinished, without_waiting_panels
from analysis.figures import style
from analysis.figures.legends import panels_with_legend
from analysis.figures.marks import Mark, legend_handles, marks_of
from analysis.figures.options import SCALES
from analysis.figures.sizes import PANEL_HEIGHT
from analysis.rows import stages
from analysis.rows.display_names import SYMBOLS, Names
from analysis.tables.caption import cell_counts_text, infinite_means_note, interval_kinds, without_interval_note
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

LOGIT_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def draw_metric_curves(
    rows: pandas.DataFrame,
    metric: str | None = None,
    *,
    x_key: str = "num_bags",
    panel_key: str | None = "mean_bag_size",
    scale: str = "linear",
    size: str = "page",
) -> Figure:
    """The figure of a study's rows (`analysis.load`), on Agg, independent of any display.

    metric: by default the instance AUC where the study has students, the bag AUC otherwise
    size: column, page or slide; where the figure is to stand
    scale: of the metric; `logit` gives the differences near 1 their room, for metrics in [0, 1] only
    UserError for an unknown metric, key or scale, an x axis that is not numeric or not positive, or no result.
    """
    if x_key == "num_bags" and default_columns(rows) == METRICS:  # given bags: one point per row
        x_key = METRICS
    whole = _without_rows_that_lack_it(arrange(rows, metric, "method", x_key, known_panel(rows, panel_key)))
    layout = without_waiting_panels(whole)
    if x_key != METRICS:
        _check_numbers(layout)
    if not any(cell.values for cell in layout.cells.values()):
        raise UserError(
            f"study {layout.study!r} has no finished run with {layout.metric.name}{why_no_values(layout)}: there is "
            "nothing to draw"
        )
    if not any(map(_has_place, layout.cells.values())):
        raise UserError(f"every mean of {layout.metric.name} is infinite: there is nothing to draw")
    if scale not in SCALES:
        raise UserError(f"--scale {scale}: not known{nearest(scale, SCALES)} (scales: {', '.join(SCALES)})")
    if scale == "logit" and not layout.metric.unit_interval:
        raise UserError(f"--scale logit: {layout.metric.name} does not lie in [0, 1]; only linear is possible")
    if scale == "logit" and any(c.interval.mean in (0.0, 1.0) for c in layout.cells.values()):
        raise UserError(
            f"--scale logit: a mean of {layout.metric.name} is exactly 0 or 1, which has no place on it; use linear"
        )
    curves = len(layout.columns) > 1
    marks = marks_of(layout)

    with style.use(size) as chosen:
        across = chosen.columns(len(layout.panels))
        bands = max(len(layout.rows_of(panel)) for panel in layout.panels) <= style.MOST_BANDS
        note = _note(layout, unfinished(whole), curves, bands or not curves)
        if curves:
            many = len(layout.rows) > style.FEW_CURVES
            handles = legend_handles(marks, marks, markers=True)
            height = PANEL_HEIGHT * (1.25 if many else 1)
            figure, axes = panels_with_legend(len(layout.panels), height, handles, note, sharey=True)
        else:  # names take at most half of the width, in lines
            names = [
                style.wrapped(row.text, int(chosen.width / 2 / style.INCHES_PER_LABEL_LETTER)) for row in layout.rows
            ]
            figure, axes = _panels_of_points(len(layout.panels), names)
            style.footnote(figure, note)
        for i, (axis, panel) in enumerate(zip(axes, layout.panels, strict=True)):
            axis.set_title(panel.text)
            if curves:
                _draw_curves(axis, layout, panel, marks, bands)
                below = i + across >= len(layout.panels)
                axis.set_xlabel(_words(x_key, layout.names) + on_axis(layout, x_key) if below else "")
            else:
                _draw_points(axis, layout, panel, marks, names)
                axis.set_xlabel(layout.metric.heading if i + across >= len(layout.panels) else "")
            if curves and i % across == 0:
                axis.set_ylabel(layout.metric.heading)
        _scale_metric([axis.yaxis if curves else axis.xaxis for axis in axes], layout, scale, bands or not curves)
        if curves:
            _set_ticks(figure, axes, layout)
    return figure


def _check_numbers(layout: Layout) -> None:
    """UserError that names the values of the x axis that are no positive numbers, and rows that have them."""
    wrong = [c for c in layout.columns if not isinstance(c.value, int | float) or not c.value > 0]
    if wrong:
        found = (f"{'no value' if is_missing(c.value) else c.text} "
                 f"({listed(dict.fromkeys(row.text for _, row, column in layout.cells if column == c), 3)})"
                 for c in wrong)  # fmt: skip
        raise UserError(f"a figure against {layout.column_key} needs positive numbers there, found {listed(found, 6)}")


def _has_place(cell: Cell) -> bool:
    """Whether a cell has a mean that an axis can show."""
    return bool(cell.values) and math.isfinite(cell.interval.mean)


def _without_rows_that_lack_it(layout: Layout) -> Layout:
    """The layout without the rows whose stage has no such metric: they would be names without a curve."""
    cells = {key: cell for key, cell in layout.cells.items() if cell.status != "no such metric"}
    kept = {row for _, row, _ in cells}
    return replace(layout, cells=cells, rows=[row for row in layout.rows if row in kept])


def _panels_of_points(count: int, names: list[str]) -> tuple[Figure, list[Axes]]:
    """A figure of so many panels with a line for each name, and their axes in order."""
    size = style.current_size()
    across = size.columns(count)
    down = math.ceil(count / across)
    figure = style.new_figure()
    height = 0.8 + 0.26 * len(names) + 0.12 * sum(name.count("\n") for name in names)
    size.set_size_of(figure, height * down + 0.3)
    axes = list(figure.subplots(down, across, sharey=True, sharex=True, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def _draw_curves(axis: Axes, layout: Layout, panel: Label, marks: dict[Label, Mark], bands: bool) -> None:
    """bands: with the intervals."""
    rows = layout.rows_of(panel)
    few = len(rows) <= style.FEW_CURVES  # many bands on each other turn to mud: then fainter, and without edges
    for z, row in enumerate(rows):
        mark = marks[row]
        for piece in _unbroken(layout, panel, row):
            x = [column.value for column, _ in piece]
            y = [cell.interval.mean for _, cell in piece]
            axis.plot(x, y, color=mark.colour, linestyle=mark.line, zorder=3 + z / 100)
            if bands:
                _draw_band(axis, piece, mark, few, 2 + z / 100)
            for column, cell in piece:
                _draw_marker(axis, column.value, cell.interval.mean, cell, mark)
    mine = [cell for (one, _, _), cell in layout.cells.items() if one == panel]
    if not any(map(_has_place, mine)):
        style.annotate_empty(axis, why_empty(mine))


def why_empty(cells: Iterable[Cell]) -> str:
    """Why a panel is empty: `no result: 2 configurations failed, 1 configuration missing`."""
    states: dict[str, int] = {}
    for cell in cells:
        state = "infinite" if cell.values else cell.status
        states[state] = states.get(state, 0) + 1
    each = (f"{number} configuration{'s' if number > 1 else ''} {status}" for status, number in states.items())
    return f"no {'finite ' if 'infinite' in states else ''}result: {', '.join(each)}"


def _draw_band(axis: Axes, piece: list[tuple[Label, Cell]], mark: Mark, few: bool, z: float) -> None:
    """The interval of each cell: bands over neighbours that have one, a bar for one that stands alone."""
    for has_bounds, group in itertools.groupby(piece, lambda one: one[1].interval.has_bounds):
        bounded = [(column.value, cell.interval.lower, cell.interval.upper) for column, cell in group]
        if not has_bounds:
            continue
        if len(bounded) == 1:
            x, lower, upper = bounded[0]
            axis.errorbar(x, (lower + upper) / 2, (upper - lower) / 2, color=mark.colour, capsize=2, fmt="none", lw=0.9)
            continue
        x_values, lower_values, upper_values = zip(*bounded, strict=True)
        alpha = 0.15 if few else 0.07
        axis.fill_between(x_values, lower_values, upper_values, color=mark.colour, alpha=alpha, lw=0, zorder=z)
        for edge in (lower_values, upper_values) if few else ():
            axis.plot(x_values, edge, color=mark.colour, alpha=0.35, lw=0.5, linestyle=mark.line, zorder=z)


def _draw_marker(axis: Axes, x: float, y: float, cell: Cell, mark: Mark) -> None:
    face = mark.colour if cell.status == "done" else "white"
    axis.plot([x], [y], mark.marker, color=mark.colour, markerfacecolor=face, markeredgewidth=0.9, zorder=4)


def _draw_points(axis: Axes, layout: Layout, panel: Label, marks: dict[Label, Mark], names: list[str]) -> None:
    (column,) = layout.columns
    for position, row in enumerate(layout.rows):
        cell = layout.cells.get((panel, row, column))
        if cell is None or not _has_place(cell):
            if cell is not None:  # on the axes' own left edge, so that it moves no limit
                text = "infinite" if cell.values else cell.status
                axis.annotate(text, (0.02, position), xycoords=("axes fraction", "data"), va="center",
                              color=style.GREY, fontsize="small", style="italic")  # fmt: skip
            continue
        interval, mark = cell.interval, marks[row]
        if interval.has_bounds:
            axis.plot([interval.lower, interval.upper], [position] * 2, color=mark.colour, lw=1.2)
            axis.plot([interval.lower, interval.upper], [position] * 2, "|", color=mark.colour, markersize=6)
        _draw_marker(axis, interval.mean, position, cell, mark)
    axis.set_yticks(range(len(layout.rows)), names)
    axis.set_ylim(len(layout.rows) - 0.5, -0.5)
    for position, (before, after) in enumerate(itertools.pairwise(layout.rows)):
        if stages.group_heading(before.stage) != stages.group_heading(after.stage):
            axis.axhline(position + 0.5, color="#BBBBBB", lw=0.7)
    axis.grid(False, axis="y")
    axis.set_title(" · ".join(filter(None, [panel.text, "" if column.key == METRICS else column.text])))


def _unbroken(layout: Layout, panel: Label, row: Label) -> list[list[tuple[Label, Cell]]]:
    """The stretches of a curve between missing cells and infinite means; a combination that was never planned breaks
    nothing."""
    pieces: list[list[tuple[Label, Cell]]] = [[]]
    for column in layout.columns:
        cell = layout.cells.get((panel, row, column))
        if cell is None:
            continue
        if _has_place(cell):
            pieces[-1].append((column, cell))
        else:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _set_ticks(figure: Figure, axes: list[Axes], layout: Layout) -> None:
    """Ticks at the numbers of bags themselves, on a logarithmic axis, turned where they would touch."""
    values = [c.value for c in layout.columns]
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.set_xticks(values, [f"{v:g}" for v in values], minor=False)
        axis.set_xticks([], minor=True)
        room = (values[-1] / values[0]) ** 0.06
        axis.set_xlim(values[0] / room, values[-1] * room)  # of an empty panel too
    figure.draw_without_rendering()
    canvas: Any = figure.canvas
    boxes = [label.get_window_extent(canvas.get_renderer()) for label in axes[0].get_xticklabels()]
    touching = any(b.x0 - a.x1 < 3 for a, b in itertools.pairwise(boxes))
    if touching:
        for axis in axes:
            axis.tick_params(axis="x", labelrotation=90)


def _scale_metric(along: list[XAxis | YAxis], layout: Layout, scale: str, bounds: bool) -> None:
    """The axes along which the metric runs, in shared limits: a metric that ends at 0 and 1 ends its axis there.
    bounds: the intervals are drawn."""
    from matplotlib.ticker import MaxNLocator

    if not layout.metric.unit_interval:
        return
    if scale == "logit":
        for axis in along:
            axis.axes.set(**{f"{axis.axis_name}scale": "logit"})
            axis.set_ticks([], minor=True)
        inside = [v for c in layout.cells.values() if c.values for v in _extent(c, bounds) if 0 < v < 1]
        logits = [math.log(v / (1 - v)) for v in inside]
        if logits:
            margin = 0.05 * (max(logits) - min(logits)) + 0.05
            lower, upper = (1 / (1 + math.exp(-z)) for z in (min(logits) - margin, max(logits) + margin))
            nearest_ticks = (max(logits) - min(logits) + 2 * margin) / (8 if along[0].axis_name == "x" else 20)
            ticks = _apart((tick for tick in LOGIT_TICKS if lower <= tick <= upper), nearest_ticks)
            if len(ticks) < 2:  # so narrow a range is nearly linear
                ticks = [tick for tick in MaxNLocator(5).tick_values(lower, upper) if lower <= tick <= upper]
            for axis in along:
                axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            along[0].axes.set(**{f"{along[0].axis_name}lim": (lower, upper)})
        return
    style.limit_to_unit_interval(along[0])


def _apart(ticks: Iterable[float], least: float) -> list[float]:
    """The ticks from the highest down, without those whose logit is nearer than `least` to the one before."""
    kept: list[float] = []
    for tick in sorted(ticks, reverse=True):
        if not kept or math.log(kept[-1] / (1 - kept[-1])) - math.log(tick / (1 - tick)) >= least:
            kept.append(tick)
    return kept[::-1]


def _extent(cell: Cell, bounds: bool) -> tuple[float, ...]:
    interval = cell.interval
    return (interval.mean, interval.lower, interval.upper) if bounds and interval.has_bounds else (interval.mean,)


def _words(key: str, names: Names) -> str:
    meaning = SYMBOL_MEANINGS.get(key)
    return f"{meaning.split(': ')[1]} {SYMBOLS[key]}" if meaning and names.uses_symbol(key) else names.key(key)


def _note(layout: Layout, waiting: Unfinished, curves: bool, bounds: bool) -> str:
    """curves: it is of these, not of points; bounds: the intervals are drawn."""
    cells = [c for c in layout.cells.values() if c.values]
    kinds = interval_kinds(cells) if bounds else ""
    interval = f" and 95 % interval ({kinds})" if kinds else ""
    text = f"mean{interval}, {cell_counts_text((c, c.planned) for c in layout.cells.values())}"
    if any(c.status == "partial" for c in cells):
        text += "; hollow: fewer than planned"
    if len(cells) < len(layout.cells):
        text += "; no point: no result"
    text += infinite_means_note(layout.cells, "not drawn")
    if bounds or not any(c.interval.has_bounds for c in cells):
        text += without_interval_note(cells, "band or bar" if curves else "bar")
    else:
        text += f"; no bands, since more than {style.MOST_BANDS} would hide each other; the table has the intervals"
    if any(c.origin.stage == stages.ORACLE for c in cells):
        text += f"; {stages.ORACLE_MARK} trained on the true instance labels"
    said = [waiting.sentence(), *hardware_differences(layout), *labels_used_sentences(layout)]
    return text + note_suffix(list(filter(None, said)))
