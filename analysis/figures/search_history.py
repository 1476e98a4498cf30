"""How a search went: value of each trial and the best so far, against the number of trials; of several objectives the
trials and their Pareto front."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.cells.search_results import complete_trials, count_text, pareto_front, tied_trials, trials_by_search
from analysis.figures import style
from analysis.figures.marks import family_marks
from analysis.figures.search_labels import metric_heading, panel_title
from analysis.figures.sizes import PANEL_HEIGHT
from analysis.rows.display_names import Names
from analysis.rows.metrics import in_unit_interval
from d2l_study.study.search.trial import FAILED, PRUNED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_history(document: Mapping[str, Any], names: Names) -> Figure:
    """A panel for each search; of several objectives one panel with the fronts of all."""
    searches = trials_by_search(document, names.arm)
    metrics, goals = document["definition"]["metrics"], document["definition"]["goals"]
    if len(metrics) > 1:
        return _draw_fronts(document, names)
    size = style.current_size()
    columns = size.columns(len(searches))
    rows = math.ceil(len(searches) / columns)
    figure = style.new_figure(size.panel_height(size.panel_width(len(searches))) * rows + 0.45)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    axes = [axis for line in grid for axis in line]
    marks = family_marks([name for name, _ in searches])
    for axis, (name, trials), mark in zip(axes, searches, marks, strict=False):
        done = complete_trials(trials)
        startup = min(int(document["definition"].get("startup", 0)), len(trials))
        if 0 < startup < len(trials):
            axis.axvspan(0.5, startup + 0.5, color="#F1F1F1", zorder=0, label="drawn at random")
        x, y = [t["trial"] + 1 for t in done], [t["values"][0] for t in done]
        axis.plot(x, y, linestyle="none", marker=mark.marker, color=mark.colour, alpha=0.45, label="a trial")
        if done:
            order = sorted(zip(x, y, strict=True))
            better = max if goals[0] == "max" else min
            steps, values = [order[0][0]], [order[0][1]]
            for at, value in order[1:]:
                steps.append(at)
                values.append(better(values[-1], value))
            axis.step(
                [*steps, len(trials)], [*values, values[-1]], where="post", color=mark.colour, label="best so far"
            )
            best = tied_trials(trials, goals)
            axis.plot([t["trial"] + 1 for t in best], [t["values"][0] for t in best], marker="o", markersize=9,
                      markerfacecolor="none", markeredgecolor=mark.colour, markeredgewidth=1.3, linestyle="none",
                      label="the best" if len(best) == 1 else "tie as the best")  # fmt: skip
        _mark_without_value(axis, trials)
        if not done:
            style.annotate_empty(axis, f"no trial is complete: {count_text(trials)}")
        axis.set(
            title=panel_title(f"{name}\n{count_text(trials)}", figure, columns),
            xlabel="trial",
            xlim=(0.5, max(len(trials), 2) + 0.5),
        )
        axis.xaxis.get_major_locator().set_params(integer=True)
    for axis in axes[len(searches) :]:
        axis.set_visible(False)
    for line in grid:
        line[0].set_ylabel(metric_heading(metrics[0], names))
    if in_unit_interval(metrics[0]):
        style.limit_to_unit_interval(axes[0].yaxis)
    named = {
        text: handle for axis in axes for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }  # over the points there is no free corner that one could count on
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=min(len(named), 2 if figure.get_figwidth() < 5 * size.scale else len(named)),
        columnspacing=1.2,
    )
    return figure


def _draw_fronts(document: Mapping[str, Any], names: Names) -> Figure:
    """Several objectives: the first two of each trial, and the Pareto front of all of them."""
    searches = trials_by_search(document, names.arm)
    metrics, goals = document["definition"]["metrics"], document["definition"]["goals"]
    figure = style.new_figure(PANEL_HEIGHT + 0.9)
    axis = figure.subplots()
    for (name, trials), mark in zip(searches, family_marks([name for name, _ in searches]), strict=True):
        done, front = complete_trials(trials), pareto_front(trials, goals)
        x, y = [t["values"][1] for t in done], [t["values"][0] for t in done]
        axis.plot(x, y, linestyle="none", marker=mark.marker, color=mark.colour, alpha=0.3)
        points = sorted((t["values"][1], t["values"][0]) for t in front)
        axis.plot([p[0] for p in points], [p[1] for p in points], linestyle=mark.line if len(metrics) == 2 else "none",
                  marker=mark.marker, markersize=6, color=mark.colour, markeredgecolor="white",
                  label=f"{name}: front of {len(front)} of {len(done)} trials")  # fmt: skip
    axis.set(xlabel=metric_heading(metrics[1], names), ylabel=metric_heading(metrics[0], names))
    for along, metric in ((axis.yaxis, metrics[0]), (axis.xaxis, metrics[1])):
        if in_unit_interval(metric):
            style.limit_to_unit_interval(along)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2))
    if len(metrics) > 2:
        others = [metric_heading(metric, names) for metric in metrics[2:]]
        axis.set_title(f"the front is one of {len(metrics)} objectives: also {', '.join(others)}")
    return figure


def _mark_without_value(axis: Axes, trials: Sequence[Mapping[str, Any]]) -> None:
    """Trials without a value, at the lower edge: × failed, | ended early."""
    for state, marker, label in ((FAILED, "x", "failed"), (PRUNED, "|", "ended early")):
        x = [trial["trial"] + 1 for trial in trials if trial["state"] == state]
        if x:
            axis.plot(x, [0.02] * len(x), transform=axis.get_xaxis_transform(), linestyle="none", marker=marker,
                      color=style.GREY, clip_on=False, label=label)  # fmt: skip
