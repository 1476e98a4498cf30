"""The bags that the rows of a manifest make, before anything is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from d2l_study.data.cutting import BagSource, ImageCut
from d2l_study.data.manifest_checks import fold_number
from d2l_study.data.manifest_rows import PARTS, Rows
from d2l_study.errors import UserError

MOST_INSTANCES = 10_000_000
"""Of a manifest: with all that is kept of each, more would need many gigabytes of memory."""


def sources(
    rows: Rows, sizes: Sequence[tuple[int, int]], cut: str, patch: tuple[int, int], stride: int
) -> list[BagSource]:
    """The bags in the order in which the manifest first names them; of a bag its images likewise, and of an image its
    rows. sizes: (width, height) of each file. `UserError` for more than `MOST_INSTANCES`."""
    count = len(rows)
    if cut == "grid":
        columns, lines = (
            np.maximum(0, (np.array(sizes, np.int64)[:, i] - patch[1 - i]) // stride + 1)[rows.path] for i in (0, 1)
        )
        count = int((columns * lines).sum())
    if count > MOST_INSTANCES:
        key = f"data.stride: {stride} makes" if cut == "grid" else f"{rows.file}:"
        raise UserError(f"{key} {count:,} patches in all; at most {MOST_INSTANCES:,} are held"
                        + (" (a larger stride makes fewer)" if cut == "grid" else ""))  # fmt: skip
    cuts: dict[int, list[ImageCut]] = {}
    for mine in rows_of_images(rows, cut):
        if cut == "grid":
            xy = strided_centres(*sizes[int(rows.path[mine[0]])], patch=patch, stride=stride)
            label = np.full(len(xy), -1, np.int8)
        else:
            xy = np.stack([rows.x[mine], rows.y[mine]], axis=1) if cut == "points" else np.full((1, 2), np.nan)
            label = rows.instance_label[mine]
        cuts.setdefault(int(rows.bag.codes[mine[0]]), []).append(ImageCut(rows.files[rows.path[mine[0]]], xy, label))
    return bag_sources(rows, cuts)


def rows_of_images(rows: Rows, cut: str) -> Iterator[np.ndarray]:
    """The rows of each image of each bag, (k,) int64: bags in the order in which the manifest first names them, of a
    bag its images likewise, and of an image its rows. Under the cut `whole` each row is an image."""
    image = np.arange(len(rows)) if cut == "whole" else rows.bag.codes * len(rows.files) + rows.path
    _, first, inverse = np.unique(image, return_index=True, return_inverse=True)
    order = np.lexsort((np.arange(len(rows)), first[inverse], rows.bag.codes))
    bag, image = rows.bag.codes[order], image[order]
    begins = np.flatnonzero(np.concatenate([[True], (bag[1:] != bag[:-1]) | (image[1:] != image[:-1])]))
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True):
        yield order[begin:end]


def bag_sources(rows: Rows, cuts: Mapping[int, Sequence[ImageCut]]) -> list[BagSource]:
    """The bags in the order in which the manifest first names them. cuts: those of each, by its code in `rows.bag`."""
    found = []
    for i in rows.first_of_bag().tolist():
        split = rows.split.text(i)
        found.append(
            BagSource(
                rows.bag.text(i), int(rows.label[i]), rows.group_of(i), tuple(cuts[int(rows.bag.codes[i])]),
                None if split in PARTS else fold_number(split), PARTS.index(split) if split in PARTS else None,
            )
        )  # fmt: skip
    return found


def strided_centres(width: int, height: int, patch: tuple[int, int], stride: int) -> np.ndarray:
    """(k, 2) centres (column, row) of the patches that lie wholly in the image, every `stride` pixels from the upper
    left corner, row by row."""
    h, w = patch
    column, row = np.meshgrid(
        np.arange(0, width - w + 1, stride) + (w - 1) / 2, np.arange(0, height - h + 1, stride) + (h - 1) / 2
    )
    return np.stack([column.ravel(), row.ravel()], axis=1)
