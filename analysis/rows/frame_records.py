"""Rows of a frame without what pandas does for each value, or for each column."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


def records(frame: pandas.DataFrame) -> Iterator[dict[str, Any]]:
    """What `frame.to_dict("records")` lists: column -> value of Python, for each row. What a masked column lacks is
    None. A column at a time: pandas looks each value up on its own."""
    columns = {str(name): _values(column) for name, column in frame.items()}
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))


def _values(column: pandas.Series[Any]) -> list[Any]:
    import numpy as np  # `--help` needs none of them
    from pandas import NA

    found = column.tolist()
    if column.dtype == object:
        return [value.item() if isinstance(value, np.generic) else value for value in found]
    masked = getattr(column.dtype, "na_value", None) is NA
    return [None if value is NA else value for value in found] if masked else found


def without_attrs(frame: pandas.DataFrame) -> pandas.DataFrame:
    """The same values without `attrs`, of which pandas makes a deep copy for every column that is looked at."""
    found = frame.copy(deep=False)
    found.attrs = {}
    return found
