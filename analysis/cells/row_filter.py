"""Rows chosen by the values of their keys, as `--where KEY=VALUE` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.cells.layout import value_text
from analysis.rows.display_names import Names
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas


def rows_where(rows: pandas.DataFrame, wanted: Mapping[str, str | Sequence[str]]) -> pandas.DataFrame:
    """The rows that have these values, as texts; of several values of a key any. UserError for a key that is not there,
    or a value that no row has."""
    kept = rows
    for key, values in wanted.items():
        several = [values] if isinstance(values, str) else [*values]
        if key not in rows:
            raise UserError(f"--where {key}={several[0]}: the study has no such key{nearest(key, map(str, rows))}")
        texts = kept[key].map(lambda v: value_text(v))
        chosen = [_has(kept, key, texts, value) for value in several]
        kept = kept[[any(of_row) for of_row in zip(*chosen, strict=True)]]
    return kept


def _has(rows: pandas.DataFrame, key: str, texts: pandas.Series, value: str) -> list[bool]:
    """Whether each row has the value, as the space has it or, where no row does, as tables show it. texts: the row's
    own. UserError if none has."""
    has = [text == value for text in texts]
    if not any(has):
        has = [
            value in Names.of_studies(rows, [str(study)]).accepted_texts(key, text)
            for study, text in zip(rows["study"], texts, strict=True)
        ]
    if not any(has):
        there = list(dict.fromkeys(texts))
        raise UserError(f"--where {key}={value}: no run has it{nearest(value, there)} (there: {listed(there[:12])})")
    return has
