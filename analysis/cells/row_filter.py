"""Rows chosen by the values of their keys, as `--where KEY=VALUE` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from analysis.cells.layout import value_text
from analysis.rows.display_names import Names
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas


def rows_where(rows: pandas.DataFrame, wanted: Mapping[str, str]) -> pandas.DataFrame:
    """The rows that have these values, as texts. UserError for a key that is not there, or a value that no row has."""
    kept = rows
    for key, value in wanted.items():
        if key not in rows:
            raise UserError(f"--where {key}={value}: the study has no such key{nearest(key, [str(c) for c in rows])}")
        texts = kept[key].map(lambda v: value_text(v))
        if not (texts == value).any():  # the name that tables show
            printed = [
                Names.of_studies(kept, [str(study)]).accepted_texts(key, text)
                for study, text in zip(kept["study"], texts, strict=True)
            ]
            texts = texts.where([value not in names for names in printed], value)
        if not (texts == value).any():
            there = list(dict.fromkeys(texts))
            raise UserError(
                f"--where {key}={value}: no run has it{nearest(value, there)} (there: {listed(there[:12])})"
            )
        kept = kept[texts == value]
    return kept
