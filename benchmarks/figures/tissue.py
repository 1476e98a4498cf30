"""Synthetic tissue: images, and the scores of their nuclei by a teacher and by its student."""

from __future__ import annotations

from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from picture_bags import RECORD, SCALE, draw_tissue, levels, tissue_bags
from records import named, read_json

from analysis.figures import style

TICKS = (0.01, 0.1, 0.5, 0.9, 0.99)


def draw() -> Figure:
    """The first positive and the first negative test image, a row each."""
    import numpy as np

    bags = tissue_bags()
    shown = [next(bag for bag in bags if bag.label == label) for label in (1, 0)]
    measured = read_json(RECORD, "about.json")["tissue"]["test"]
    with style.use("page") as size:
        figure = style.new_figure()
        size.set_size_of(figure, 5.1)
        axes = figure.subplots(2, 3, squeeze=False)
        for row, bag, words in zip(axes, shown, ("positive", "negative"), strict=True):
            draw_tissue(row[0], bag, truth=True)
            draw_tissue(row[1], bag, bag.teacher, truth=True)
            draw_tissue(row[2], bag, bag.student, truth=True)
            row[0].set_title(f"{words}: {int(bag.truth.sum())} of {len(bag.truth)} epithelial", fontsize=8)
        for axis, name in zip(axes[0][1:], ("teacher", "student"), strict=True):
            axis.set_title(f"scores of the {name}", fontsize=8)
        bar = figure.colorbar(ScalarMappable(cmap=SCALE), ax=axes, shrink=0.6, pad=0.01)
        ticks = np.array(TICKS)
        bar.set_ticks(levels(np.log(ticks / (1 - ticks))), labels=[f"{tick:g}" for tick in TICKS])
        bar.set_label("score of a nucleus: probability of epithelial")
        nuclei = sum(len(bag.truth) for bag in bags)
        style.footnote(figure, (
            "Synthetic tissue, which says nothing of real tissue: the first test image of each class. Rings: truly "
            f"epithelial. Training saw labels of images alone. AUC over all {nuclei} nuclei of the {len(bags)} test "
            f"images: teacher {measured['teacher']['instance_auc']:.3f}, student "
            f"{measured['student']['instance_auc']:.3f}, one replicate; {named(RECORD)}."
        ))  # fmt: skip
    return figure
