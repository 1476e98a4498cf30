"""The column `labels_used` of rows that were written before there was one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from analysis.rows.frame_records import records, without_attrs

if TYPE_CHECKING:
    import pandas

COLUMN = "labels_used"


def with_labels_used(rows: pandas.DataFrame) -> pandas.DataFrame:
    """The rows with that column, filled in for finished runs where their keys say it; else it stays empty.

    Keys say it of bags that were drawn. Of given bags rows have no number of validation bags, so that only what used
    none of their labels is known.
    """
    import numpy as np

    column = rows.get(COLUMN)
    found = np.full(len(rows), np.nan) if column is None else column.astype(float).to_numpy(copy=True)
    lacking = np.flatnonzero(rows["status"].eq("done").to_numpy() & np.isnan(found))
    if column is not None and not len(lacking):
        return rows
    places_of: dict[Any, list[int]] = {}
    for place, config in zip(lacking.tolist(), rows["config_id"].iloc[lacking], strict=True):
        if config == config:
            places_of.setdefault(config, []).append(place)
    firsts = records(without_attrs(rows.iloc[[places[0] for places in places_of.values()]]))
    trains = {name: rows[name].tolist() for name in ("num_bags", "train_bags") if name in rows}
    for places, first in zip(places_of.values(), firsts, strict=True):
        for place, count in zip(places, _derived(first, trains, places), strict=True):
            found[place] = np.nan if count is None else count
    made = rows.assign(**{COLUMN: found})
    made.attrs = rows.attrs
    return made


def validation_labels_are_used(rows: pandas.DataFrame) -> bool | None:
    """Whether some run used more labels than it has training bags (`train_bags` of folds and splits, else `num_bags`);
    None where no row says how many these are. rows: with the column `labels_used`."""
    given = rows["train_bags"] if "train_bags" in rows else rows[COLUMN] * float("nan")
    given = given.where(given.notna(), rows["num_bags"]) if "num_bags" in rows else given
    known = given.notna() & rows[COLUMN].notna()  # of all bags of a data set `num_bags` is None
    return bool((rows[COLUMN][known] > given[known]).any()) if known.any() else None


def _derived(first: Mapping[str, Any], trains: Mapping[str, list[Any]], places: list[int]) -> list[int | None]:
    """Of each run of one configuration. first: the row of its first run; trains: column -> the number of training bags
    of every row; places: of the runs among the rows."""
    from d2l_study.study.space.keys import sections_of  # `--help` needs no data sets

    values = {str(key): value for key, value in first.items() if value is not None and value == value}
    sections, drawn = sections_of(values), "fold" not in values
    val = values.get("val_bags") if drawn else None
    train = trains.get("num_bags" if drawn else "train_bags")
    return [_count(values, sections, None if train is None else train[place], val) for place in places]


def _count(values: Mapping[str, Any], sections: Mapping[str, Mapping[str, Any]], train: Any, val: Any) -> int | None:
    from d2l_study.learning.labels_used import labels_used

    try:
        return labels_used(str(values["stage"]), sections, int(train), None if val is None else int(val))
    except (KeyError, TypeError, ValueError):  # a row of a table that lacks keys of its configuration
        return None
