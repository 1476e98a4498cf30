"""A metric over two keys of a study as a heat map: bag count × bag size, λ × ε, or any other two, a panel per arm.

Each field says the mean over replicates and, where there is room, the half-width of its 95 % interval. The colours
(cividis) grow lighter with the value, so that a print in grey reads the same.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.hardware import hardware_differences, note_suffix
from analysis.cells.labels_used import labels_used_sentences, on_axis
from analysis.cells.layout import Label, Layout, value_text, why_no_values
from analysis.figures import style
from analysis.rows.display_names import SETTING_SYMBOLS, Names
from analysis.rows.stages import ORACLE
from analysis.tables.caption import cell_counts_text, infinite_means_note, without_interval_note
from d2l_study.errors import UserError, listed

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PREFERRED = (("num_bags", "mean_bag_size"), ("lambda_adv", "epsilon"))
MOST_LEVELS, MOST_PANELS = 24, 12
NUMBERS_FROM = 0.42
"""Inches of a field from which its number has room; from twice that its interval too."""

INFINITE = "∞"
"""In a field without a colour: one loss that ran away makes the mean infinite."""


def draw_heatmap(
    rows: pandas.DataFrame,
    metric: str | None = None,
    *,
    row_key: str | None = None,
    column_key: str | None = None,
    size: str = "page",
) -> Figure:
    """row_key, column_key: of the study; by default bag count × bag size or λ × ε where they vary, else the first two
    numbers that vary. Arms in which only one of them varies are left out.

    UserError if there are no two such keys, a key has more levels than can be read (as drawn by a search), or another
    key varies too, which `--where` can fix.
    """
    row_key, column_key = _keys(rows, row_key, column_key)
    if "method" in (row_key, column_key):
        raise UserError("--kind heatmap: rows and columns are keys of settings; arms (method) have a panel each")
    for key in (row_key, column_key):
        if key in rows and rows[key].nunique() > MOST_LEVELS:
            raise UserError(
                f"--kind heatmap: {key} has {rows[key].nunique()} values, more than the {MOST_LEVELS} that a heat map "
                "shows (of a search, --kind parallel shows them)"
            )
    kept = rows[rows[[key for key in (row_key, column_key) if key in rows]].notna().all(axis=1)]
    layout = arrange(kept, metric, row_key, column_key, "method")
    panels = [p for p in layout.panels if p.stage != ORACLE and _filled(layout, p)]
    # An arm in which a key is off has one column of values: it says nothing over two axes.
    wide = [p for p in panels if len(layout.rows_of(p)) > 1 and len(layout.columns_of(p)) > 1]
    if not panels:
        raise UserError(
            f"study {layout.study!r} has no finished run with {layout.metric.name}{why_no_values(layout)}: there is "
            "nothing to draw"
        )
    if not wide:
        raise UserError(f"--kind heatmap: no arm has several values of both {row_key} and {column_key}")
    panels = wide
    # Nor does the row of an arm without a panel, such as λ = 0.
    layout = replace(
        layout,
        rows=[r for r in layout.rows if any(r in layout.rows_of(p) for p in panels)],
        columns=[c for c in layout.columns if any(c in layout.columns_of(p) for p in panels)],
    )
    if len(panels) > MOST_PANELS:
        other = listed(dict.fromkeys(key for p in panels for key, _ in p.keys))
        raise UserError(f"--kind heatmap: {len(panels)} panels are too many, since {other or 'many arms'} vary too; "
                        "choose with --where KEY=VALUE")  # fmt: skip
    shown = replace(layout, cells={cell_key: cell for cell_key, cell in layout.cells.items() if cell_key[0] in panels})
    means = [cell.interval.mean for cell in shown.cells.values() if cell.values]
    finite = [mean for mean in means if math.isfinite(mean)]
    if not finite:
        raise UserError(f"--kind heatmap: every mean of {layout.metric.name} is infinite: there is nothing to draw")
    low, high = min(finite), max(finite)
    if high - low < 1e-6:  # one field, or equal ones: a bar of readable numbers around them
        low, high = low - 0.005, high + 0.005
        if layout.metric.unit_interval:
            low, high = max(low, 0.0), min(high, 1.0)
    with style.use(size) as chosen:
        across = chosen.columns(min(len(panels), 2 if len(layout.columns) > 4 else 3))
        figure, axes = style.panels(len(panels), 0.75 + 0.34 * len(layout.rows), beside=0.8, around=0.35)
        field = (chosen.panel_width(len(panels), 0.8) - 0.5) / len(layout.columns)
        image = None
        for i, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
            image = _draw(axis, layout, panel, low, high, field)
            axis.set_title(style.title_lines(panel.text, field * len(layout.columns)))
            axis.set_xlabel(_name(column_key, layout.names) + on_axis(layout, column_key))
            left = i % max(across, 1) == 0
            axis.set_ylabel(_name(row_key, layout.names) + on_axis(layout, row_key) if left else "")
        assert image is not None
        bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
        bar.set_label(layout.metric.heading)
        bar.outline.set_visible(False)
        note = f"mean over {cell_counts_text((c, c.interval.count) for c in layout.cells.values() if c.values)}"
        note += " ± half-width of its 95 % interval" if field >= 2 * NUMBERS_FROM else ""
        note += f"; {layout.metric.better} is better; empty: not planned or no result"
        note += infinite_means_note(shown.cells, INFINITE)
        if field >= 2 * NUMBERS_FROM:
            note += without_interval_note([cell for cell in shown.cells.values() if cell.values], "±")
        said = [*hardware_differences(shown, by_panel=True), *labels_used_sentences(shown)]
        style.footnote(figure, note + note_suffix(said))
    return figure


def cell_means(layout: Layout, panel: Label) -> np.ndarray:
    """The means of a panel, (rows, columns); NaN where there is none."""
    found = np.full((len(layout.rows), len(layout.columns)), np.nan)
    for i, row in enumerate(layout.rows):
        for j, column in enumerate(layout.columns):
            cell = layout.cells.get((panel, row, column))
            if cell is not None and cell.values:
                found[i, j] = cell.interval.mean
    return found


def _draw(axis: Axes, layout: Layout, panel: Label, low: float, high: float, field: float) -> Any:
    import matplotlib as mpl

    means = cell_means(layout, panel)
    image = axis.imshow(np.ma.masked_invalid(means), cmap="cividis", vmin=low, vmax=high, aspect="auto", origin="lower")
    for i, row in enumerate(layout.rows):
        for j, column in enumerate(layout.columns):
            cell = layout.cells.get((panel, row, column))
            if cell is None or np.isnan(means[i, j]):
                continue
            if np.isinf(means[i, j]):  # it has no colour, and its sign has room in any field
                axis.text(j, i, INFINITE, ha="center", va="center", color="black")
                continue
            if field < NUMBERS_FROM:
                continue
            text = f"{means[i, j]:.3f}"
            if field >= 2 * NUMBERS_FROM and cell.interval.has_bounds:
                text += f" ± {cell.interval.half_width:.3f}"
            shade = mpl.colormaps["cividis"]((means[i, j] - low) / (high - low))
            light = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 0.5
            axis.text(j, i, text, ha="center", va="center", fontsize="small", color="black" if light else "white")
    axis.set_xticks(range(len(layout.columns)), [value_text(c.value) for c in layout.columns])
    axis.set_yticks(range(len(layout.rows)), [value_text(r.value) for r in layout.rows])
    if len(layout.columns) * 0.3 > field * len(layout.columns):
        axis.tick_params(axis="x", labelrotation=90)
    axis.grid(False)
    axis.tick_params(length=0)
    axis.spines[["left", "bottom"]].set_visible(False)
    return image


def _keys(rows: pandas.DataFrame, row_key: str | None, column_key: str | None) -> tuple[str, str]:
    varied = [key for key in rows.attrs.get("varied", []) if key in rows and rows[key].nunique() > 1]
    numeric = [k for k in dict.fromkeys(["num_bags", "mean_bag_size", *varied]) if k in rows and _is_numeric(rows[k])]
    both = next((pair for pair in PREFERRED if all(rows[k].nunique() > 1 for k in pair if k in rows)
                 and all(k in rows for k in pair)), None)  # fmt: skip
    if row_key is None and column_key is None:
        if both is None:
            several = varying_keys(rows, numeric)
            both = (several[0], several[1]) if len(several) > 1 else None
        if both is None:
            raise UserError(
                f"--kind heatmap: needs two keys that vary, found {listed(varying_keys(rows, numeric)) or 'none'}; "
                "name them with --rows and --columns"
            )
        return both
    left = [key for key in numeric if key not in (row_key, column_key) and rows[key].nunique() > 1]
    if (row_key is None or column_key is None) and not left:
        raise UserError("--kind heatmap: needs two keys; name both with --rows and --columns")
    return row_key or left[0], column_key or left[0]


def varying_keys(rows: pandas.DataFrame, keys: list[str]) -> list[str]:
    """Those of the keys that have several values."""
    return [key for key in keys if rows[key].nunique() > 1]


def _is_numeric(column: pandas.Series) -> bool:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    return is_numeric_dtype(column) and not is_bool_dtype(column)


def _filled(layout: Layout, panel: Label) -> bool:
    return any(cell.values for (p, _, _), cell in layout.cells.items() if p == panel)


def _name(key: str, names: Names) -> str:
    if key in names.texts:
        return names.texts[key]
    symbol = SETTING_SYMBOLS.get(key)
    words = {"num_bags": "training bags", "mean_bag_size": "mean bag size"}.get(key)
    return f"{words} {symbol}" if words else symbol or key.replace("_", " ")
