"""The picture of ROC curves on a configuration's page: one curve for each replicate, and their mean."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from d2l_study.learning.metrics import roc_curve


class RocAxes:
    """The empty axes of the picture, which are drawn once for all pictures: drawing them takes ten times as long as
    drawing the curves."""

    def __init__(self) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure  # not pyplot, whose state is not for threads

        self.figure = Figure(figsize=(4.6, 4.6), dpi=110)
        self.canvas = FigureCanvasAgg(self.figure)
        self.axes = self.figure.add_axes((0.13, 0.12, 0.82, 0.80))
        self.axes.set_aspect("equal")
        self.axes.set(xlabel="false positive rate", ylabel="true positive rate", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        self.axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        self.canvas.draw()
        self.empty = self.canvas.copy_from_bbox(self.figure.bbox)

    def picture(self, artists: Sequence[Any]) -> bytes:
        """A PNG of the axes with these artists of theirs, which are removed then."""
        from PIL import Image

        self.canvas.restore_region(self.empty)
        for artist in artists:
            self.axes.draw_artist(artist)
        out = io.BytesIO()
        Image.fromarray(np.asarray(self.canvas.buffer_rgba())).convert("RGB").save(out, format="png")
        for artist in artists:
            artist.remove()
        return out.getvalue()


_roc_axes = lru_cache(maxsize=1)(RocAxes)
_drawing = threading.Lock()


def roc_picture(replicates: Mapping[int, tuple[np.ndarray, np.ndarray]], title: str) -> bytes:
    """A PNG: the ROC curve of each replicate, thin, and their mean at equal false positive rates.

    replicates: number -> (labels (bags,), logits (bags,)); one with a single class or a NaN has no curve.
    """
    grid = np.linspace(0, 1, 201)
    curves, areas = [], []
    artists: list[Any] = []
    with _drawing:
        frame = _roc_axes()
        axes = frame.axes
        for labels, logits in replicates.values():
            if len(np.unique(labels)) < 2 or not np.isfinite(logits).all():
                continue
            false, true = roc_curve(labels, logits)
            artists += axes.plot(false, true, color="tab:blue", alpha=0.35, linewidth=0.8)
            curves.append(np.interp(grid, false, true))
            areas.append(float(np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)))
        artists.append(axes.text(0.5, 1.02, title, transform=axes.transAxes, ha="center", va="bottom", fontsize=12))
        if curves:
            count = f"{len(curves)} replicates" if len(curves) > 1 else "1 replicate"
            mean = np.append(0.0, np.mean(curves, axis=0))
            label = f"mean of {count}, AUC {np.mean(areas):.3f}"
            artists += axes.plot(np.append(0.0, grid), mean, color="tab:blue", linewidth=2, label=label)
            artists.append(axes.legend(handles=artists[-1:], loc="lower right", frameon=False))
        else:
            artists.append(axes.text(0.5, 0.5, "no replicate has both classes", ha="center"))
        return frame.picture(artists)
