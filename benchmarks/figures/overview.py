"""The picture at the top of the README: bags with labels in, scores of instances and an AUC with intervals out."""

from __future__ import annotations

from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from picture_bags import RECORD, SCALE, Bag, DigitBag, TissueBag, digit_bags, draw_digits, draw_tissue, tissue_bags
from records import named, rows_of

from analysis.cells.arrange import arrange
from analysis.figures import style

STUDY = "2026-11-26-gpu-k10"
WIDTH, HEIGHT = 8.3, 3.55
"""Inches; 830 pixels wide at 100 a inch."""
DIGIT_ROWS = 4
POSITIVE, NEGATIVE = "#B2370A", "#666666"
ARMS = {"none": ("attention MIL", "#000000", "o"), "adv_low": ("with VAT", "#0072B2", "s")}


def draw() -> Figure:
    """Three parts beside each other."""
    digits = digit_bags()[:DIGIT_ROWS]
    tissue = tissue_bags()
    images = [next(bag for bag in tissue if bag.label == label) for label in (1, 0)]
    with style.use("page"):
        figure = style.new_figure()
        figure.set_layout_engine("none")
        figure.set_size_inches(WIDTH, HEIGHT)
        _bags(figure, 0.01, "In: bags, each with one label", digits, images, scored=False)
        _bags(figure, 0.375, "Out: a score for every instance", digits, images, scored=True)
        _auc(figure)
    return figure


def _bags(
    figure: Figure, left: float, title: str, digits: list[DigitBag], images: list[TissueBag], *, scored: bool
) -> None:
    """Bags of digits above images; scored: in the colours of their scores, else with the bags' labels."""
    chip = 0.0 if scored else 0.064
    figure.text(left, 0.94, title, fontsize=9.5, weight="bold")
    for number, bag in enumerate(digits):
        bottom = 0.815 - 0.095 * number
        axis = figure.add_axes((left + chip, bottom, 0.27, 0.085), anchor="W")
        draw_digits(axis, bag, bag.student if scored else None)
        if not scored:
            _label(figure, left, bottom + 0.042, bag)
    side = 0.13
    for number, image in enumerate(images):
        place = left + 0.14 * number
        place = place if scored else place + chip
        axis = figure.add_axes((place, 0.17, side, side * WIDTH / HEIGHT), anchor="NW")
        draw_tissue(axis, image, image.student if scored else None)
        if not scored:
            _label(figure, place, 0.125, image)
    if scored:
        _colour_bar(figure, left)


def _label(figure: Figure, x: float, y: float, bag: Bag) -> None:
    word, colour = ("positive", POSITIVE) if bag.label else ("negative", NEGATIVE)
    figure.text(x, y, word, fontsize=7.5, color=colour, va="center")


def _colour_bar(figure: Figure, left: float) -> None:
    bar = figure.colorbar(
        ScalarMappable(cmap=SCALE), cax=figure.add_axes((left + 0.04, 0.118, 0.19, 0.022)), orientation="horizontal"
    )
    bar.set_ticks([0, 0.5, 1], labels=["0.01\nnegative", "0.5", "0.99\npositive"])
    bar.ax.tick_params(length=2, pad=1.5, labelsize=6.5)
    bar.outline.set_visible(False)
    figure.text(left, 0.128, "score", fontsize=7.5, va="center")


def _auc(figure: Figure) -> None:
    layout = arrange(rows_of(STUDY), "instance_auc")
    (panel,) = layout.panels
    axis = figure.add_axes((0.755, 0.25, 0.24, 0.63))
    figure.text(0.705, 0.94, "Measured: AUC with intervals", fontsize=9.5, weight="bold")
    for arm, (name, colour, marker) in ARMS.items():
        (row,) = [row for row in layout.rows if row.value == arm]
        x: list[Any] = [column.value for column in layout.columns]
        found = [layout.cells[panel, row, column].interval for column in layout.columns]
        axis.fill_between(x, [i.lower for i in found], [i.upper for i in found], color=colour, alpha=0.15, lw=0)
        axis.plot(x, [i.mean for i in found], color=colour, marker=marker, label=name)
    axis.set_xscale("log")
    axis.set_xticks([50, 100, 200, 500], ["50", "100", "200", "500"])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("labelled training bags")
    axis.set_ylabel("AUC of single digits")
    axis.legend(loc="lower right")
    count = layout.cells[panel, layout.rows[0], layout.columns[0]].interval.count
    figure.text(0.705, 0.07, f"mean, 95 % interval, {count} replicates", fontsize=7, color=style.GREY)
    figure.text(
        0.01, 0.01, f"Scores: {named(RECORD)}; tissue is synthetic. AUC: {named(STUDY)}.", fontsize=6, color=style.GREY
    )
