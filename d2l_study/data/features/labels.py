"""Labels of bags: 0 and 1, or names of which one is the positive class."""

from __future__ import annotations

import numpy as np

from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_table import CategoricalColumn
from d2l_study.errors import listed, nearest

_MISSING = ("na", "n/a", "#n/a", "nan", "null", "[not available]", "not available", "[unknown]", "[not evaluated]")
"""What tables have where a label is not known, in lower case; tables of TCGA use those in brackets."""

_NUMBERS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "true": 1, "false": 0}


def classes(
    column: CategoricalColumn, number: np.ndarray, shown: str, positive: str | None, problems: Problems
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(n,) int8 labels of a column's rows, and what a user should know of them. positive: the name of the positive
    class, None where the column has 0 and 1. What is wrong is noted in `problems`."""
    unknown = {code: f"{value!r}: the label is not known; leave such rows out" if value else "empty"
               for code, value in enumerate(column.values) if not value or value.lower() in _MISSING}  # fmt: skip
    problems.add_values(number, column.codes, unknown, lambda code: (shown, unknown[code]))
    named = [value for code, value in enumerate(column.values) if code not in unknown]
    if positive is not None:
        if positive not in named:
            hint = nearest(positive, named) or f" (found: {listed(named)})"
            problems.add(f"column {shown}", f"no bag has the label {positive!r} (data.positive){hint}")
        others = [value for value in named if value != positive]
        alike = [code for code, v in enumerate(column.values) if v != positive and v.lower() == positive.lower()]
        problems.add_values(number, column.codes, alike, lambda code: (
            shown, f"{column.values[code]!r} and {positive!r} (data.positive) differ in case only; write one of them"
        ))  # fmt: skip
        note = f"labels: {positive} is positive"
        if others:
            note += f", {listed(others)} {'is' if len(others) == 1 else 'are'} negative"
        return np.array([value == positive for value in column.values], np.int8)[column.codes], (note,)
    numbers = [_NUMBERS.get(value.lower(), -1) for value in column.values]
    wrong = [code for code, value in enumerate(numbers) if value < 0 and code not in unknown]
    if len(named) == 2 and len(wrong) == 2:
        first, second = sorted(named)
        problems.add(f"column {shown}", f"the labels are {first!r} and {second!r}; say which is the positive class: "
                     f"data.positive: {second}, or {first}")  # fmt: skip
    elif (len(wrong) > 2 and len(wrong) <= 20) or (wrong and len(named) > 2 and len(named) <= 20):
        problems.add(f"column {shown}", f"{len(named)} labels: {listed(named)}; expected 0 and 1, or two names. With "
                     "data.positive: NAME that one is positive, and all others are negative")  # fmt: skip
    else:
        problems.add_values(number, column.codes, wrong, lambda code: (
            shown, f"{column.values[code][:60]!r} is not allowed; expected 0 or 1 (or names of classes, and "
            "data.positive: NAME)"))  # fmt: skip
    return np.array(numbers, np.int8)[column.codes], ()
