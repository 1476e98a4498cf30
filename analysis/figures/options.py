"""The kinds of figures, and which of them take which option. Imports nothing, so that `--help` and wrong options are
answered at once."""

from __future__ import annotations

SEARCH_KINDS = ("best", "importances", "parallel")
SCORE_KINDS = ("roc", "pr", "reliability")
"""Those of the stored predictions."""
KINDS = ("curves", "pairs", "heatmap", *SCORE_KINDS, "learning", *SEARCH_KINDS)
KINDS_WITH = {
    "scale": ("curves",), "level": SCORE_KINDS, "row_key": ("heatmap",), "column_key": ("heatmap", "pairs"),
    "panel_key": ("curves", "pairs"), "metric": ("curves", "pairs", "heatmap", "learning"), "x_key": ("curves",),
}  # fmt: skip
"""Which kinds take an option; all take `size`."""
SCALES = ("linear", "logit")
"""Of the metric, in curves."""
