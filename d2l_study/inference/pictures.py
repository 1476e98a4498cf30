"""A picture of the instances that each model ranks highest and lowest: how a student differs from its teacher is seen
at a glance in what it puts first."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from d2l_study.learning.metrics import auc, probability

WRONG = "#D55E00"
"""Vermillion of Okabe and Ito's palette, told from grey and black by every common colour vision."""
WRONG_MEANING = "wrong: negative among the highest, positive among the lowest"
QUIET = "#BBBBBB"
CELL, ROW_GAP, BLOCK_GAP, HEAD, FOOT, LEFT, TEXT_GAP = 0.62, 0.26, 0.50, 0.62, 0.42, 0.95, 0.03
"""Inches: side of a patch, between rows, between blocks, above, below, on the left, and from a patch to its text."""


def ranking_picture(
    patches: np.ndarray,
    logits: Mapping[str, np.ndarray],
    labels: np.ndarray,
    k: int = 16,
    *,
    title: str = "",
    mistakes: bool = False,
) -> bytes:
    """A PNG with a block for each model: above the k instances of the highest logit, below the k of the lowest, the
    most extreme on the left, each with its probability; those that are wrong (a negative among the highest, a positive
    among the lowest) are framed.

    With `mistakes` two more rows, each instance with its rank from above: the negatives that stand highest and the
    positives that stand lowest, for models whose extremes are all right.

    patches: (N, C, H, W) uint8, C 1 (grey) or 3 (RGB); logits: model's name -> (N,); labels: (N,) 0, 1, or −1 for
    unknown, which is never framed as wrong; instances with equal logits stand in their own order. With fewer than 2k
    instances the rows share some, with fewer than k they are shorter. `ValueError` if the arrays do not fit together.
    """
    patches, labels = np.asarray(patches), np.asarray(labels)
    _check(patches, logits, labels, k)

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    blocks = {name: ranking_rows(np.asarray(logit), labels, k, mistakes) for name, logit in logits.items()}
    count = sum(len(rows) for rows in blocks.values())
    width = LEFT + max(min(k, len(patches)) * CELL, 5.2) + 0.15
    height = HEAD + count * (CELL + ROW_GAP) + (len(blocks) - 1) * (BLOCK_GAP - ROW_GAP) + FOOT
    figure = Figure(figsize=(width, height), dpi=130)
    FigureCanvasAgg(figure)
    if title:
        figure.text(LEFT / width, 1 - 0.16 / height, title, fontsize=10, weight="bold", va="top")
    canvas = figure.add_axes((0, 0, 1, 1), frame_on=False, xlim=(0, width), ylim=(0, height), autoscale_on=False)
    canvas.set_axis_off()
    top = height - HEAD
    for name, rows in blocks.items():
        logit = np.asarray(logits[name])
        figure.text(
            LEFT / width, (top + 0.06) / height, _heading(name, logit, labels, mistakes), fontsize=9, va="bottom"
        )
        for row in rows:
            bottom = top - CELL
            place = ((LEFT - 0.1) / width, (bottom + CELL / 2) / height)
            figure.text(*place, row.name, fontsize=8, ha="right", va="center", linespacing=1.3)
            for column, (index, text, wrong) in enumerate(zip(row.index, row.text, row.wrong, strict=True)):
                _show(canvas, (LEFT + column * CELL, bottom), patches[index], text, bool(wrong))
            top = bottom - ROW_GAP
        top -= BLOCK_GAP - ROW_GAP
    unknown = " or unknown" if (labels < 0).any() else ""
    figure.legend(
        handles=[
            Patch(facecolor="none", edgecolor=WRONG, linewidth=2.2, label=WRONG_MEANING),
            Patch(facecolor="none", edgecolor=QUIET, linewidth=0.8, label=f"right{unknown}"),
        ],
        loc="lower left", bbox_to_anchor=(LEFT / width, 0.1 / height), bbox_transform=figure.transFigure, ncols=2,
        fontsize=8, frameon=False, borderaxespad=0, handlelength=1.2,
    )  # fmt: skip
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


@dataclass(frozen=True)
class Row:
    """A row of the picture: its name, which instances, what stands below each, and which are framed as wrong."""

    name: str
    index: np.ndarray
    text: list[str]
    wrong: np.ndarray


def ranking_rows(logit: np.ndarray, labels: np.ndarray, k: int, mistakes: bool = False) -> list[Row]:
    """The rows of one model's block, top row first. logit, labels: (N,)."""
    falling = np.argsort(-logit, kind="stable")
    rising = np.argsort(logit, kind="stable")
    rank = np.empty(len(logit), np.int64)
    rank[falling] = np.arange(1, len(logit) + 1)
    rows = [
        Row(name, index, [_probability(float(logit[i])) for i in index], labels[index] == wrong)
        for name, index, wrong in (("highest", falling[:k], 0), ("lowest", rising[:k], 1))
    ]
    if mistakes:
        parts = (("highest\nnegatives", falling, 0), ("lowest\npositives", rising, 1))
        for name, order, label in parts:
            index = order[labels[order] == label][:k]
            rows.append(Row(name, index, [f"#{rank[i]}" for i in index], np.zeros(len(index), bool)))
    return rows


def _check(patches: np.ndarray, logits: Mapping[str, np.ndarray], labels: np.ndarray, k: int) -> None:
    if patches.ndim != 4 or patches.shape[1] not in (1, 3) or patches.dtype != np.uint8:
        raise ValueError(f"patches {patches.dtype} {patches.shape}: expected uint8 (N, 1 or 3, H, W)")
    shapes = {"labels": labels.shape, **{name: np.shape(logit) for name, logit in logits.items()}}
    if any(shape != (len(patches),) for shape in shapes.values()):
        raise ValueError(f"{shapes}: expected ({len(patches)},), one value for each patch")
    if k < 1 or not logits or not len(patches):
        raise ValueError(f"k {k}, {len(logits)} models, {len(patches)} patches: expected at least one of each")


def _heading(name: str, logit: np.ndarray, labels: np.ndarray, ranks: bool) -> str:
    known = labels >= 0
    area = auc(labels[known], logit[known])
    notes = [f"instance AUC {area:.4f}"] * (not np.isnan(area)) + [f"#: rank among {len(logit):,}"] * ranks
    return f"{name}   ({'; '.join(notes)})" if notes else name


def _show(canvas: Any, corner: tuple[float, float], patch: np.ndarray, text: str, wrong: bool) -> None:
    """Draw a patch, its frame and the text below it. canvas: axes in inches, one for all patches, since to make axes
    for each takes most of the time; corner: the lower left one of the cell, in the middle of which the patch lies."""
    from matplotlib.patches import Rectangle

    scale = 0.92 * CELL / max(patch.shape[1:])
    wide, high = patch.shape[2] * scale, patch.shape[1] * scale
    left, bottom = corner[0] + (0.92 * CELL - wide) / 2, corner[1] + (0.92 * CELL - high) / 2
    pixels = patch[0] if len(patch) == 1 else patch.transpose(1, 2, 0)
    extent = (left, left + wide, bottom, bottom + high)
    canvas.imshow(pixels, "gray", vmin=0, vmax=255, interpolation="nearest", aspect="auto", extent=extent)
    canvas.add_patch(Rectangle((left, bottom), wide, high, fill=False, edgecolor=WRONG if wrong else QUIET,
                               linewidth=2.2 if wrong else 0.8))  # fmt: skip
    canvas.text(left + wide / 2, bottom - TEXT_GAP, text, fontsize=6, ha="center", va="top",
                color=WRONG if wrong else "#444444", weight="bold" if wrong else "normal")  # fmt: skip


def _probability(logit: float) -> str:
    """The probability with as many digits as tell it from 0 and 1."""
    p, rest = (float(probability(np.array(value))) for value in (logit, -logit))
    if min(p, rest) >= 0.001:
        return f"{p:.3f}"
    small = f"{min(p, rest):.0e}".replace("e-0", "e-")
    return small if p < rest else f"1−{small}"
