"""Columns that hold one kind of values each. A key may be the number 1 in one study, since neither CSV nor MLflow tells
it from the text, and `MSI-H` in another. Such values share no order, equal ones would be two, and Parquet has no column
of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

OF_ONE_KIND = frozenset({"string", "boolean", "integer", "floating", "mixed-integer-float", "empty"})
"""What pandas calls columns that stay as they are."""


def without_mixed_columns(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The frame in which columns of several kinds of values (texts, truth values, numbers) hold texts, and lists are
    texts too, `[64, 32]`. A missing value stays missing; other columns stay as they are."""
    from pandas.api.types import infer_dtype  # `--help` needs no pandas

    made = frame
    for column in frame:
        own = frame[column]
        if own.dtype == object and infer_dtype(own, skipna=True) not in OF_ONE_KIND:
            made = frame.copy(deep=False) if made is frame else made
            made[column] = [_text(value) for value in own]
    return made


def _text(value: Any) -> str | None:
    """As a person writes it, a whole number without a decimal point; None for a missing value."""
    value = value.tolist() if hasattr(value, "tolist") else value  # of NumPy
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    listed = isinstance(value, list | tuple | dict | set)
    return None if not listed and _is_missing(value) else str(value)


def _is_missing(value: Any) -> bool:
    from pandas import NA

    return value is None or value is NA or value != value
