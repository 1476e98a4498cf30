"""CSV without formula injection. A spreadsheet takes a cell that begins with = + - @ (or a tab or line break) for a
formula and runs it. Such a text is written with a ' in front, which means "this is text" there, and is read back
without it. Numbers stay numbers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

_FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""What begins with ' before such a sign is guarded too, so that reading gives it back."""


def guarded(value: Any) -> Any:
    """A text that would be run with a ' in front; all else, numbers too, as it is."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def unguarded(value: Any) -> Any:
    """What `guarded` was given."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and _FORMULA.match(value) else value


def to_csv(frame: pandas.DataFrame) -> str:
    """The frame as CSV without its index, texts guarded."""
    return _mapped(frame, guarded).to_csv(index=False)


def unguarded_frame(frame: pandas.DataFrame) -> pandas.DataFrame:
    """A frame that was read from CSV, its texts as they were."""
    return _mapped(frame, unguarded)


def _mapped(frame: pandas.DataFrame, function: Any) -> pandas.DataFrame:
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    made = frame.copy(deep=False)
    for column in frame:
        if not is_numeric_dtype(frame[column]) and not is_bool_dtype(frame[column]):
            made[column] = frame[column].map(function)
    return made
