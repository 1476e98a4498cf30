"""What MLflow takes: lengths of texts, names, numbers, and sizes of requests."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

TAG_LENGTH, PARAM_LENGTH, KEY_LENGTH = 5000, 6000, 250
BATCH_BYTES = 300_000
"""Bytes of metrics, of params and of tags in a request, which may have 1 MB in all; the other limits of `log_batch` are
1000 metrics, 100 params, 100 tags."""


def short_texts(values: Mapping[str, Any], most: int) -> dict[str, str]:
    """Values as texts of at most `most` characters, under names that MLflow allows; None is left out."""
    return {allowed_name(k): str(v)[:most] for k, v in values.items() if v is not None}


def allowed_name(key: str) -> str:
    """A name of a metric, param or tag in the characters and length that MLflow allows."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:KEY_LENGTH]


def finite_or_nan(value: float) -> float:
    """A value that charts can show: NaN for infinity, which MLflow would store as 1.8e308."""
    value = float(value)
    return value if math.isfinite(value) else math.nan


def batches(items: list[Any], most: int) -> Iterator[list[Any]]:
    """The items in parts of at most `most` items and `BATCH_BYTES` bytes."""
    part: list[Any] = []
    size = 0
    for item in items:
        length = 60 + sum(len(str(x).encode()) for x in item)
        if part and (len(part) == most or size + length > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
