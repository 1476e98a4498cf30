"""The names that the columns of tables of slides have in the tools of the field, and that a column may not be empty."""

from __future__ import annotations

import re

from d2l_study.data.manifest_columns import OTHER_NAMES
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_table import Table

_SLIDE = ("slide", "wsi")
OWN = "slide name"
"""The column that names slides beside one that names bags."""

OTHER = {
    **OTHER_NAMES,
    "bag": (*_SLIDE, "bag", "filename", "image", "imagefile"),
    OWN: (*_SLIDE, "filename"),
    "path": ("file", "filepath", "feature", "features", "featurefile", "featurepath", "featurespath", "h5path",
             "ptpath"),
    "truth": ("patchlabels", "instancelabels"),
    "group": tuple(name for name in OTHER_NAMES["group"] if name not in _SLIDE),
}  # fmt: skip

TAKEN = ("bag", OWN, "label", "path", "split", "truth", "group")

FOLDS = re.compile(r"(?:fold|split)[_-]?\d{1,4}")
"""Columns that are each a split of their own, as Patho-Bench has them."""


def no_blanks(problems: Problems, table: Table, *names: str) -> None:
    """Notes the rows in which one of these columns is empty, where the table has it."""
    for name in names:
        if name in table.texts:
            column = table.texts[name]
            blank = [code for code, value in enumerate(column.values) if not value]
            shown = table.columns.shown[name]
            problems.add_values(table.number, column.codes, blank, lambda _, shown=shown: (shown, "empty"))  # type: ignore[misc]
