"""Any of the figures by its kind, for notebooks and for the command `figure`.

import analysis
rows = analysis.load("vat_quick")
analysis.figure(rows)                                # a matplotlib Figure, which a notebook shows
analysis.figure(rows, "roc", level="instance").savefig("roc.pdf")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from analysis.figures.options import KINDS, KINDS_WITH, SEARCH_KINDS
from d2l_study.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


def figure(rows: pandas.DataFrame, kind: str = "curves", *, size: str = "page", **options: Any) -> Figure:
    """A figure of a study's rows (`analysis.load`), drawn without a display.

    kind: curves (a metric against the number of bags), pairs (students minus their teachers), heatmap (over two keys),
        roc, pr, reliability (of the stored scores), learning (stored curves), and of a search best, importances,
        parallel
    size: column (3.4 inches wide), page (7), slide (13 1/3 × 7.5)
    options: metric, panel_key, scale (linear, logit), x_key of curves; metric, panel_key, column_key of pairs; metric,
        row_key, column_key of a heat map; level (bag, instance) of roc, pr and reliability; metric of learning
    UserError for a kind or option that is not known or not of this kind, and where there is nothing to draw.
    """
    if kind not in KINDS:
        raise UserError(f"kind {kind}: not known{nearest(kind, KINDS)} (kinds: {', '.join(KINDS)})")
    for name, value in options.items():
        if name not in KINDS_WITH:
            raise UserError(
                f"{name}: no option of a figure{nearest(name, KINDS_WITH)} (options: {', '.join(KINDS_WITH)})"
            )
        if kind not in KINDS_WITH[name]:
            raise UserError(f"{name} {value}: not of kind {kind} (it is of {', '.join(KINDS_WITH[name])})")
    if kind in SEARCH_KINDS:
        return _of_search(rows, kind, size)
    from analysis.figures import heatmap, learning_curves, metric_curves, paired, reliability, roc

    if kind == "pairs":
        return paired.draw_pairs(rows, size=size, **options)
    if kind == "heatmap":
        return heatmap.draw_heatmap(rows, size=size, **options)
    if kind == "reliability":
        return reliability.Reliability.of(rows, **options).draw(size)
    if kind in roc.KINDS:
        return roc.draw_roc(rows, kind, size=size, **options)
    if kind == "learning":
        return learning_curves.draw_learning(rows, size=size, **options)
    return metric_curves.draw_metric_curves(rows, size=size, **options)


def _of_search(rows: pandas.DataFrame, kind: str, size: str) -> Figure:
    from analysis.figures import search
    from analysis.rows.display_names import Names
    from analysis.rows.study_folders import folders_of

    folders = folders_of(rows)
    if len(folders) > 1:
        raise UserError(f"kind {kind}: one study at a time, found {len(folders)}")
    (folder,) = folders.values()
    return search.draw_search_of(folder, kind, size, Names.of(rows))
