"""The rows of published figures in a study's table: only where what stands above and beside them is true of them.

A published figure is of a metric on a whole data set. Under a number of training bags, or in the panel of one of our
methods, it would look like a result of that; and beside runs that all trained on a part of the bags, of that part.
"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.cells.layout import METRICS, Label, Layout
from analysis.rows.published_results import PublishedResult
from d2l_study.errors import listed

DATASET = "dataset"


def published_of(
    layout: Layout, results: Sequence[PublishedResult], panel: Label, columns: Sequence[Label]
) -> dict[str, list[PublishedResult | None]]:
    """Method, as its source names it -> its figure in each of the columns of a panel; only methods that have one."""
    if _wrong_axis(layout):
        return {}
    places = [_place(layout, panel, column) for column in columns]
    results = [one for one in results if one.dataset not in layout.thinned]
    found = {}
    for method in dict.fromkeys(one.method for one in results):
        of_method = {(one.dataset, one.column): one for one in results if one.method == method}
        figures = [of_method.get(place) if place else None for place in places]
        if any(figures):
            found[method] = figures
    return found


def why_none(layout: Layout, results: Sequence[PublishedResult]) -> str:
    """Why none of the results stands in the table; empty where one does."""
    if any(published_of(layout, results, panel, layout.columns_of(panel)) for panel in layout.panels):
        return ""
    if wrong := _wrong_axis(layout):
        return f"a published figure is of a metric on a whole data set, not of one value of {wrong}"
    if len(layout.datasets) > 1 and DATASET not in (layout.column_key, layout.panel_key):
        return f"which of the data sets they are of would not be seen; expected --panel {DATASET}"
    if all(one.dataset in layout.thinned for one in results):
        numbers = sorted({n for one in results for n in layout.thinned[one.dataset]})
        return (
            "they are of all training bags, and every run here trained on a part of them "
            f"({layout.names.key('num_bags')} = {listed(map(str, numbers))})"
        )
    metrics = ", ".join(dict.fromkeys(one.column for one in results))
    return f"none is of {', '.join(one.name for one in layout.metrics)} (there are of {metrics})"


def _wrong_axis(layout: Layout) -> str:
    """The axis under whose values no published figure can stand; empty if there is none."""
    if layout.column_key not in (METRICS, DATASET):
        return f"{layout.column_key}: expected --columns {METRICS}"
    if layout.panel_key not in (None, DATASET):
        return f"{layout.panel_key}: expected --panel none"
    return ""


def _place(layout: Layout, panel: Label, column: Label) -> tuple[str, str] | None:
    """The data set and the metric of what stands in a column; None where it is of several data sets."""
    by_axis = {label.key: label.value for label in (panel, column)}
    only = layout.datasets[0] if len(layout.datasets) == 1 else None
    dataset = by_axis.get(DATASET, only)
    return None if dataset is None else (str(dataset), layout.metric_of(column).name)
