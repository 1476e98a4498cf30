"""Panels with a legend and a note, in a figure that is made as high as all three need.

Legend and note are measured before the panels get their size. So the note never lies under a legend of many rows, and
no row leaves the figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.figures import style

GAP = 0.15
"""Inches on paper between panels, legend, note and the edges together."""
MOST_COLUMNS = 8
CLOSE_FROM = 12
"""Rows from which on the lines of a legend beside the panels stand closer."""


def panels_with_legend(
    count: int, height: float, handles: Sequence[Any], note: str, most: int = 9, **shared: Any
) -> tuple[Any, Any]:
    """`style.panels` with a legend and a note below: the figure and its axes in order.

    The legend stands above the panels, or beside them where it has many rows and there is room; one of a single row is
    none. height: of a panel, in inches on paper; most: panels beside each other; shared: as of `style.panels`.
    """
    size = style.current_size()
    rows = len(handles)
    beside = rows > style.FEW_CURVES and size.columns(count, most) < size.across
    options = _beside(rows) if beside else _above(handles)
    wide, high = _inches_of_legend(handles, options) if rows > 1 else (0.0, 0.0)
    below = _inches_of_note(note)
    figure, axes = style.panels(
        count, height, beside=wide + GAP if beside else 0.0, around=GAP + below + (0.0 if beside else high),
        least=2 * GAP + below + high if beside else 0.0, most=most, **shared,
    )  # fmt: skip
    if rows > 1:
        figure.legend(handles=handles, **options)
    style.footnote(figure, note)
    return figure, axes


def _beside(rows: int) -> dict[str, Any]:
    spacing = 0.7 if rows < CLOSE_FROM else 0.45
    return {"loc": "outside right upper", "handlelength": 3.2, "labelspacing": spacing}


def _above(handles: Sequence[Any]) -> dict[str, Any]:
    """In as many columns as the figure is wide enough for."""
    options = {"loc": "outside upper center", "handlelength": 3.2}
    for columns in range(min(len(handles), MOST_COLUMNS), 1, -1):
        if _inches_of_legend(handles, {**options, "ncols": columns})[0] <= style.current_size().width - GAP:
            return {**options, "ncols": columns}
    return {**options, "ncols": 1}


def _inches_of_legend(handles: Sequence[Any], options: dict[str, Any]) -> tuple[float, float]:
    """Width and height of a legend, in inches on paper."""
    figure = style.new_figure(1.0)
    box = figure.legend(handles=handles, **options).get_window_extent(_renderer(figure))
    per_inch = figure.dpi * style.current_size().scale
    return box.width / per_inch, box.height / per_inch


def _inches_of_note(text: str) -> float:
    """Height of a note below a figure, in inches on paper."""
    figure = style.new_figure(1.0)
    style.footnote(figure, text)
    (note,) = figure.texts
    return float(note.get_window_extent(_renderer(figure)).height / figure.dpi / style.current_size().scale)


def _renderer(figure: Any) -> Any:
    return figure.canvas.get_renderer()
