"""Whether images are in colour, and whether a model was trained on such: a model of grey images would score colours
turned to grey like its own images, a model of colours what has none, and nothing in the scores would show it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from d2l_study.errors import UserError, counted, listed
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.tissue_image import open_tissue


def check_grey(path: Path, channels: int) -> None:
    """`UserError` for an image in colour where a model reads one channel. RGB whose channels are the same in every
    pixel is grey."""
    if channels == 1 and has_colour(path):
        raise UserError(f"{path}: is in colour; this model was trained on grey images (save it as greyscale if its "
                        "greys are meant)")  # fmt: skip


def has_colour(path: Path) -> bool:
    """Whether the channels of an image differ in some pixel. Decodes it as far as the first of these; False for one
    that cannot be read as RGB: whoever reads it says what is wrong."""
    with suppress(UserError):
        image = open_tissue(path, 3)
        step = max(1, 2**22 // image.width)
        bands = (image.rows(first, min(image.height, first + step)) for first in range(0, image.height, step))
        return any(in_colour(band, axis=-1) for band in bands)
    return False


def in_colour(pixels: np.ndarray, axis: int) -> bool:
    """Whether the channels, along this axis, differ in some pixel."""
    return bool((pixels != pixels.take([0], axis=axis)).any())


def trained_in_colour(stored: StoredModel) -> bool:
    """Whether the instances that a model was trained on were patches in colour. Grey ones that were saved as RGB have
    the same mean in every channel."""
    return len(stored.model.shape) == 3 and len(set(stored.card.mean)) > 1


def colourless_text(sources: Sequence[str]) -> str:
    """What there is to say of files without colour that a model of colours has scored."""
    have = "has" if len(sources) == 1 else "have"
    return (f"{counted(len(sources), 'file')} {have} no colour, and this model was trained on images in colour: "
            f"{listed(sources, 3)}")  # fmt: skip
