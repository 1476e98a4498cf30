"""The figures of an evaluation: ROC curves, reliability, and how scores are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.evaluation.evaluation import Evaluation
from analysis.evaluation.metrics import BAG, INSTANCE, RANKING
from analysis.evaluation.text_table import number
from analysis.figures import style
from analysis.figures.legends import panels_with_legend
from analysis.figures.marks import Mark, family_marks
from analysis.statistics.calibration import BINS, reliability_bins
from analysis.statistics.scores import Scores, has_both_classes
from d2l_study.inference.evaluated_scores import ModelScores
from d2l_study.learning.metrics import probability, roc_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 2.45
"""Height of a panel, in inches."""
CHANCE: dict[str, Any] = {"color": "#999999", "lw": 0.7, "linestyle": ":", "zorder": 1}
NEGATIVE, POSITIVE = "#0072B2", "#D55E00"


def scores_of(found: Evaluation, model: ModelScores, level: str) -> Scores:
    """Labels and logits of bags, or of instances whose label is known."""
    if level == BAG:
        return found.bags.label.astype(np.int64), model.bag_logit.astype(np.float64)
    known = found.bags.known
    return found.bags.instance_label[known].astype(np.int64), model.instance_logit[known].astype(np.float64)


def draw_roc(found: Evaluation) -> Figure | None:
    """ROC curves of the models, of bags and of instances; the members of an ensemble in grey. None where neither level
    has both classes."""
    levels = [level for level in (BAG, INSTANCE) if has_both_classes(scores_of(found, found.leads[0], level))]
    if not levels:
        return None
    marks = _marks(found)
    with style.use("page"):
        note = "dots: at the threshold that was set in training; dotted: chance"
        note += "; grey: the members of the ensemble" if found.ensembles else ""
        figure, axes = panels_with_legend(
            len(levels), PANEL, _handles(found, marks), note, square=True, sharex=True, sharey=True
        )
        for axis, level in zip(axes, levels, strict=True):
            axis.plot([0, 1], [0, 1], **CHANCE)
            for member in (member for one in found.ensembles.values() for member in one.members):
                axis.plot(*roc_curve(*scores_of(found, member, level)), color="#BBBBBB", lw=0.6, zorder=2)
            for model in found.leads:
                mark = marks[model.name]
                axis.plot(*roc_curve(*scores_of(found, model, level)), color=mark.colour, linestyle=mark.line, zorder=3)
            _point_at_threshold(axis, found, level, marks)
            areas = [number(found.value(model.name, (level, "auc", RANKING)).value) for model in found.leads]
            axis.set_title(f"{level}s, AUC {' and '.join(areas)}")
            axis.set(xlabel="false positive rate", ylabel="true positive rate", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            style.unit_square(axis)
    return figure


def draw_reliability(found: Evaluation) -> Figure:
    """Share of positive bags against score, as trained and scaled by the temperature where there is one."""
    marks = _marks(found)
    scaled = any(model.temperature is not None for model in found.leads)
    with style.use("page"):
        kinds = ("as trained", "scaled by the temperature")[: 1 + scaled]
        note = f"{BINS} bins of equal width; the larger a dot, the more bags; dotted: perfect"
        figure, axes = panels_with_legend(
            len(kinds), PANEL, _handles(found, marks), note, square=True, sharex=True, sharey=True
        )
        for axis, kind in zip(axes, kinds, strict=True):
            axis.plot([0, 1], [0, 1], **CHANCE)
            for model in found.leads:
                label, logit = scores_of(found, model, BAG)
                temperature = 1.0 if kind == kinds[0] else model.temperature
                if temperature is None:
                    continue
                count, score, share = reliability_bins(label, probability(logit / temperature))
                full, mark = count > 0, marks[model.name]
                axis.plot(score[full], share[full], color=mark.colour, linestyle=mark.line, lw=0.8, zorder=3)
                axis.scatter(score[full], share[full], s=6 + 60 * count[full] / count.sum(), color=mark.colour,
                             zorder=4, clip_on=False)  # fmt: skip
            axis.set_title(f"bags, {kind}")
            axis.set(xlabel="score (probability)", ylabel="share of positive bags", xticks=[0, 0.5, 1],
                     yticks=[0, 0.5, 1])  # fmt: skip
            style.unit_square(axis)
    return figure


def draw_scores(found: Evaluation) -> Figure:
    """How the scores of bags are distributed in each class, with the thresholds."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    edges = np.linspace(0, 1, 21)
    with style.use("page"):
        handles = [Patch(color=NEGATIVE, label="negative bags"), Patch(color=POSITIVE, label="positive bags"),
                   Line2D([], [], color="#000000", linestyle="--", label="threshold")]  # fmt: skip
        note = "stacked counts of bags; dashed: the model's threshold for bags, set in training"
        figure, axes = panels_with_legend(len(found.leads), PANEL - 0.4, handles, note, sharex=True, sharey=True)
        for axis, model in zip(axes, found.leads, strict=True):
            label, logit = scores_of(found, model, BAG)
            score = probability(logit)
            axis.hist([score[label == 0], score[label == 1]], edges, color=[NEGATIVE, POSITIVE], stacked=True)
            if model.bag_threshold is not None:
                axis.axvline(float(probability(np.array(model.bag_threshold))), color="#000000", lw=1, linestyle="--")
            axis.set_title(style.title_lines(model.name, 3.0))
            axis.set(xlabel="score (probability)", ylabel="bags", xlim=(0, 1))
    return figure


def _point_at_threshold(axis: Axes, found: Evaluation, level: str, marks: dict[str, Mark]) -> None:
    for model in found.leads:
        threshold = model.bag_threshold if level == BAG else model.instance_threshold
        if threshold is None:
            continue
        label, logit = scores_of(found, model, level)
        called, mark = logit > threshold, marks[model.name]
        axis.plot(called[label == 0].mean(), called[label == 1].mean(), marker=mark.marker, color=mark.colour,
                  linestyle="", zorder=5)  # fmt: skip


def _marks(found: Evaluation) -> dict[str, Mark]:
    names = [model.name for model in found.leads]
    return dict(zip(names, family_marks(names), strict=True))


def _handles(found: Evaluation, marks: dict[str, Mark]) -> Sequence[Any]:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=marks[model.name].colour, linestyle=marks[model.name].line,
                   label=style.wrapped(model.name)) for model in found.leads]  # fmt: skip
