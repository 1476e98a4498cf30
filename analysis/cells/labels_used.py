"""The sentences that say how many labels stand behind a number of training bags n, since validation bags have labels
too, and how many unlabelled bags were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis.cells.layout import Layout, value_text
from analysis.rows.labels_used import COLUMN
from d2l_study.errors import listed

if TYPE_CHECKING:
    import pandas

KEY = "num_bags"
UNLABELLED = "unlabelled_bags"
MOST = 8
"""Numbers of bags that are named one by one."""


def labels_by_bags(rows: pandas.DataFrame) -> dict[Any, tuple[int, int]]:
    """Number of training bags -> the least and the most labels that finished runs with it used, where known. None
    stands for runs that train on all bags that their fold or split has."""
    if COLUMN not in rows:
        return {}
    known = rows[rows["status"].eq("done") & rows[COLUMN].notna()]
    drawn = known[KEY].notna() if KEY in known else known[COLUMN].isna()
    found: dict[Any, tuple[int, int]] = {}
    if drawn.any():
        found |= {n: _extent(used) for n, used in known[drawn].groupby(KEY)[COLUMN]}
    if not drawn.all():
        found[None] = _extent(known.loc[~drawn, COLUMN])
    return found


def _extent(used: pandas.Series) -> tuple[int, int]:
    return int(used.min()), int(used.max())


def thinned_datasets(rows: pandas.DataFrame) -> dict[str, tuple[int, ...]]:
    """Data set of given bags -> its numbers of training bags, where no run trained on all that its fold has."""
    if not {KEY, "dataset", "fold"} <= set(rows.columns):
        return {}
    given = rows.loc[rows["fold"].notna(), ["dataset", KEY]]
    return {
        str(name): tuple(sorted(map(int, numbers.unique())))
        for name, numbers in given.groupby("dataset")[KEY]
        if numbers.notna().all()
    }


def unlabelled_bags(rows: pandas.DataFrame) -> dict[int, tuple[str, ...]]:
    """Number of unlabelled training bags, above 0 -> the methods that have it."""
    if UNLABELLED not in rows or "method" not in rows:
        return {}
    found = rows.loc[rows[UNLABELLED].gt(0), [UNLABELLED, "method"]].groupby(UNLABELLED)["method"].unique()
    return {int(m): tuple(map(str, methods)) for m, methods in found.items()}


def labels_used_sentences(layout: Layout) -> list[str]:
    """A sentence on the labels that were used, or that the rows do not say it where the number of training bags is
    shown; and one where there are unlabelled bags."""
    labels = (*layout.rows, *layout.columns, *layout.panels)
    named = {key for label in labels for key in (label.key, *dict(label.keys))}
    found = []
    if KEY in named and (drawn := _of_drawn_bags(layout)):
        found.append(_sentence(drawn, layout.names.key(KEY)))
    elif layout.labels_used:
        found.append(_sentence_without_bags(layout.labels_used))
    elif KEY in named:
        found.append("Whether labels of validation bags were used besides, these rows do not say.")
    return found + ([_unlabelled_sentence(layout)] if layout.unlabelled else [])


def on_axis(layout: Layout, key: str) -> str:
    """What the label of an axis of training bags adds where labels of validation bags were used besides; else ""."""
    alone = key != KEY or of_training_bags_alone(_of_drawn_bags(layout))
    return "" if alone else "\n(+ validation labels)"


def _of_drawn_bags(layout: Layout) -> dict[Any, tuple[int, int]]:
    """The labels used at each number of training bags, without those of folds that train on all they have."""
    return {n: used for n, used in layout.labels_used.items() if n is not None}


def _sentence_without_bags(used: Mapping[Any, tuple[int, int]]) -> str:
    """Where no number of training bags is shown: it is one, or that of a fold."""
    of = ", those of training bags alone" if of_training_bags_alone(used) else ""
    counts = [count for extent in used.values() for count in extent]
    return f"Labels of bags that a run used in all: {_range(min(counts), max(counts))}{of}."


def _unlabelled_sentence(layout: Layout) -> str:
    name = layout.names.key(UNLABELLED)
    each = [f"{name} = {value_text(m)} ({listed(map(layout.names.arm, methods), MOST)})"
            for m, methods in sorted(layout.unlabelled.items())]  # fmt: skip
    return f"Unlabelled training bags beside the labelled ones: {listed(each, MOST)}."


def of_training_bags_alone(used: Mapping[Any, tuple[int, int]]) -> bool:
    """Whether the labels of `labels_by_bags` are those of training bags, and none of validation bags."""
    return all(count == (n, n) for n, count in used.items())


def _sentence(used: Mapping[Any, tuple[int, int]], name: str) -> str:
    if of_training_bags_alone(used):
        return f"Labels used in all: those of training bags ({name}) alone."
    each = [f"{_range(*count)} at {name} = {value_text(n)}" for n, count in sorted(used.items())]
    return f"Labels used in all, of training bags ({name}) and validation bags: {listed(each, MOST)}."


def _range(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"
