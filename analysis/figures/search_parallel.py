"""Parallel coordinates of a search: each trial as a line over its keys and metrics, the best ones coloured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.cells.search_results import best_trial, complete_trials, tied_trials, trials_by_search
from analysis.figures import style
from analysis.figures.marks import COLOURS
from analysis.figures.search_labels import key_label, metric_heading, panel_title
from analysis.rows.display_names import Names
from analysis.rows.metrics import in_unit_interval
from d2l_study.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UPRIGHT_FROM = 0.8
"""Inches for each axis of parallel coordinates, below which their names stand upright."""


def draw_parallel(document: Mapping[str, Any], names: Names) -> Figure:
    """A panel for each search. `UserError` where none has a key that varies and a complete trial."""
    import matplotlib as mpl

    searches = [
        (name, complete_trials(trials), search["distributions"])
        for (name, trials), search in zip(
            trials_by_search(document, names.arm), document["definition"]["searches"], strict=True
        )
    ]
    searches = [item for item in searches if item[1] and item[2]]
    if not searches:
        raise UserError("--kind parallel: no search has a key that varies and a complete trial")
    metrics, goals = document["definition"]["metrics"], document["definition"]["goals"]
    widest = max(len(keys) for _, _, keys in searches) + len(metrics)
    figure = style.new_figure(2.8 * len(searches) + 0.2)
    crowded = style.current_size().width / widest < UPRIGHT_FROM
    axes = figure.subplots(len(searches), 1, squeeze=False)[:, 0]
    colours = mpl.colormaps["cividis"]  # for colour-blind readers, and even in grey
    for axis, (name, done, distributions) in zip(axes, searches, strict=True):
        scales = [_Scale.of_key(key_label(key, names), one) for key, one in distributions.items()]
        scales += [_Scale.of_metric(m, [t["values"][i] for t in done], names) for i, m in enumerate(metrics)]
        first = [trial["values"][0] for trial in done]
        low, high = min(first), max(first)
        sign = 1 if goals[0] == "max" else -1
        for trial in sorted(done, key=lambda t: sign * t["values"][0]):  # the best ones on top
            share = 0.5 if high == low else (trial["values"][0] - low) / (high - low)
            share = share if sign > 0 else 1 - share
            points = [*(trial["params"][key] for key in distributions), *trial["values"]]
            y = [scale.position(value) for scale, value in zip(scales, points, strict=True)]
            axis.plot(range(len(y)), y, color=colours(1 - share), alpha=0.35 + 0.6 * share, linewidth=0.8 + share)
        best = best_trial(done, goals)
        assert best is not None
        points = [*(best["params"][key] for key in distributions), *best["values"]]
        y = [scale.position(value) for scale, value in zip(scales, points, strict=True)]
        axis.plot(range(len(y)), y, color=COLOURS[2], linewidth=2.2, marker="o")
        for x, scale in enumerate(scales):
            axis.axvline(x, color=style.GREY, linewidth=0.8, zorder=1)
            for value, text in scale.ticks:
                axis.annotate(
                    text, (x, scale.position(value)), xytext=(3, 0), textcoords="offset points", fontsize="small",
                    va="center", zorder=9, bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6},
                )  # fmt: skip
        axis.set_xticks(range(len(scales)), [scale.name for scale in scales])
        if crowded:
            axis.tick_params(axis="x", labelrotation=90)
        axis.set(xlim=(-0.1, len(scales) - 1 + 0.45), ylim=(-0.06, 1.06), yticks=[])
        others = len(tied_trials(done, goals)) - 1
        which = f"{best['trial_id']}, with which {others} tie" if others else best["trial_id"]
        text = f"{name}: {len(done)} complete trials, the darker the better; with dots the best ({which})"
        axis.set_title(panel_title(text, figure), loc="left")
        axis.grid(visible=False)
        axis.spines[["left", "bottom"]].set_visible(False)
        axis.tick_params(length=0)
    return figure


class _Scale:
    """One upright axis: where a value lies on it, from 0 to 1, and its ticks (value, text)."""

    def __init__(self, name: str, low: float, high: float, log: bool, choices: Sequence[Any] = ()) -> None:
        self.name, self.low, self.high, self.log, self.choices = name, low, high, log, list(choices)

    @classmethod
    def of_key(cls, label: str, distribution: Mapping[str, Any]) -> _Scale:
        if "choices" in distribution:
            return cls(label, 0, 1, False, distribution["choices"])
        return cls(label, distribution["low"], distribution["high"], distribution["log"])

    @classmethod
    def of_metric(cls, metric: str, values: Sequence[float], names: Names) -> _Scale:
        low, high = min(values), max(values)
        margin = (high - low) / 20 or 0.01
        low, high = low - margin, high + margin
        if in_unit_interval(metric):
            low, high = max(low, 0.0), min(high, 1.0)
        return cls(metric_heading(metric, names).replace(" (", "\n("), low, high, False)

    def position(self, value: Any) -> float:
        if self.choices:
            return (self.choices.index(value) + 0.5) / len(self.choices)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[tuple[Any, str]]:
        if self.choices:
            return [(value, str(value)) for value in self.choices]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return [(value, f"{value:.2g}" if self.log else f"{value:.3g}") for value in (self.low, middle, self.high)]
