"""A small space, and a space loaded from its text, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from d2l_study.study.space.load import load_space
from d2l_study.study.space.space import Space

EXAMPLE = """\
description: a space for tests
data: {num_bags: [50, 100], mean_bag_size: 10}
teacher: {steps: 100}
methods:
  none: {}
  vat: {teacher: {lambda_adv: 1.0, epsilon: [1, 2]}}
replicates: 3
"""
"""Two arms on two sizes; the second arm has an axis of its own: six configurations."""


def load_text(
    folder: Path, text: str | bytes = EXAMPLE, *overrides: str, name: str = "mine.yaml", **kwargs: Any
) -> Space:
    """The space that `load_space` makes of a text, as the file `folder/name`."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_space(path, overrides, **kwargs)
