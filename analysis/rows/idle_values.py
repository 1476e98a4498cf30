"""Rows without the values that nothing reads in their configuration, such as ε of a plain teacher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.rows.frame_records import records, without_attrs

if TYPE_CHECKING:
    import pandas


def without_idle_values(rows: pandas.DataFrame, keys: Sequence[str]) -> pandas.DataFrame:
    """A copy of the rows in which those of the keys are empty that their configuration does not read. keys: columns."""
    from d2l_study.study.space.idle_values import idle_names  # `--help` needs no data sets

    made = rows.copy()
    idle: dict[str, list[str]] = {key: [] for key in keys}
    for one in records(without_attrs(rows.drop_duplicates("config_id"))):
        values = {str(key): value for key, value in one.items() if value is not None and value == value}
        for key in idle_names(values) & idle.keys():
            idle[key].append(str(one["config_id"]))
    for key, configs in idle.items():
        if configs:
            made[key] = made[key].mask(made["config_id"].isin(configs))
    return made
