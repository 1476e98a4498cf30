"""The picture at the top of the README: bags with labels in, scores of instances and an AUC with intervals out."""

from __future__ import annotations

from typing import Any

from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from picture_bags import RECORD, SCALE, Bag, DigitBag, TissueBag, digit_bags, draw_digits, draw_tissue, tissue_bags
from records import named, rows_of

from analysis.cells.arrange import arrange
from analysis.cells.layout import Label
from analysis.figures import style
from analysis.statistics.intervals import Interval

STUDY = "2026-11-27-vat-robust-confirm"
WIDTH, HEIGHT = 6.8, 3.9
"""Inches. Letters of 9 points are 9 pixels high where the picture is shrunk to 500 pixels, as on a phone."""
LETTERS, SMALL = 9.0, 7.6
DIGIT_ROWS = 4
LEFT, MIDDLE, RIGHT = 0.012, 0.4, 0.788
"""Where the three parts begin, in shares of the width."""
DIGITS, LABELS = 0.268, 0.104
"""Widths of a row of ten digits and of a bag's label before it."""
POSITIVE, NEGATIVE = "#B2370A", "#666666"
ARMS = {"none": ("plain", "#000000", "o"), "vat": ("with VAT", "#0072B2", "s")}


def draw() -> Figure:
    """Three parts beside each other."""
    digits = digit_bags()[:DIGIT_ROWS]
    tissue = tissue_bags()
    images = [next(bag for bag in tissue if bag.label == label) for label in (1, 0)]
    with style.use("page"):
        figure = style.new_figure()
        figure.set_layout_engine("none")
        figure.set_size_inches(WIDTH, HEIGHT)
        _bags(figure, LEFT, "In: bags with\none label each", digits, images, scored=False)
        _bags(figure, MIDDLE, "Out: a score for\nevery instance", digits, images, scored=True)
        _auc(figure)
    return figure


def curves() -> dict[str, list[tuple[Label, Interval]]]:
    """Of each arm of the record the instance AUC at each number of bags n."""
    layout = arrange(rows_of(STUDY), "instance_auc")
    (panel,) = layout.panels
    rows = {str(row.value): row for row in layout.rows}
    return {
        arm: [(column, layout.cells[panel, rows[arm], column].interval) for column in layout.columns] for arm in ARMS
    }


def _title(figure: Figure, left: float, text: str) -> None:
    for number, line in enumerate(text.split("\n")):
        figure.text(left, 0.945 - 0.05 * number, line, fontsize=10.5, weight="bold")


def _bags(
    figure: Figure, left: float, title: str, digits: list[DigitBag], images: list[TissueBag], *, scored: bool
) -> None:
    """Bags of digits above images; scored: in the colours of their scores, else with the bags' labels."""
    start = left if scored else left + LABELS
    _title(figure, left, title)
    for number, bag in enumerate(digits):
        bottom = 0.765 - 0.085 * number
        axis = figure.add_axes((start, bottom, DIGITS, 0.075), anchor="W")
        draw_digits(axis, bag, bag.student if scored else None)
        if not scored:
            _label(figure, left, bottom + 0.037, bag)
    side = 0.13
    for number, image in enumerate(images):
        place = start + (DIGITS - side) * number
        axis = figure.add_axes((place, 0.235, side, side * WIDTH / HEIGHT), anchor="NW")
        draw_tissue(axis, image, image.student if scored else None)
        if not scored:
            _label(figure, place, 0.2, image)
    if scored:
        _colour_bar(figure, left)


def _label(figure: Figure, x: float, y: float, bag: Bag) -> None:
    word, colour = ("positive", POSITIVE) if bag.label else ("negative", NEGATIVE)
    figure.text(x, y, word, fontsize=LETTERS, color=colour, va="center")


def _colour_bar(figure: Figure, left: float) -> None:
    bar = figure.colorbar(
        ScalarMappable(cmap=SCALE), cax=figure.add_axes((left + 0.085, 0.19, 0.16, 0.022)), orientation="horizontal"
    )
    bar.set_ticks([0, 0.5, 1], labels=["0.01\nnegative", "0.5", "0.99\npositive"])
    bar.ax.tick_params(length=2, pad=1.5, labelsize=SMALL)
    bar.outline.set_visible(False)
    figure.text(left, 0.2, "score", fontsize=LETTERS, va="center")


def _auc(figure: Figure) -> None:
    axis = figure.add_axes((RIGHT, 0.235, 0.195, 0.605))
    _title(figure, RIGHT - 0.1, "Measured: AUC\nwith intervals")
    found = curves()
    for arm, (name, colour, marker) in ARMS.items():
        x: list[Any] = [column.value for column, _ in found[arm]]
        intervals = [interval for _, interval in found[arm]]
        lower, upper = ([getattr(one, end) for one in intervals] for end in ("lower", "upper"))
        axis.fill_between(x, lower, upper, color=colour, alpha=0.15, lw=0)
        axis.plot(x, [one.mean for one in intervals], color=colour, marker=marker, label=name)
    axis.set_xscale("log")
    axis.set_xticks(x, [f"{value:g}" for value in x])
    axis.set_xticks([], minor=True)
    axis.set_yticks([0.96, 0.97, 0.98, 0.99, 1.0])
    axis.tick_params(labelsize=LETTERS - 0.5)
    axis.set_xlabel("labelled bags of ten", fontsize=LETTERS)
    axis.set_ylabel("AUC of single digits", fontsize=LETTERS)
    axis.legend(loc="lower right", fontsize=LETTERS, handlelength=1.4, borderaxespad=0.2)
    count = intervals[0].count
    note = f"Scores: {named(RECORD)}; tissue is synthetic.\n"
    note += f"AUC: mean and 95 % interval of {count} replicates, equal steps, {named(STUDY)}."
    figure.text(LEFT, 0.015, note, fontsize=SMALL, color=style.GREY)
