"""Whether validation bags chose the snapshots of runs: not under `select: last`, nor of a single validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.rows.frame_records import records

if TYPE_CHECKING:
    import pandas


def snapshots_are_chosen(rows: pandas.DataFrame) -> bool | None:
    """Whether they chose that of some finished run; None where no row says how its snapshot was chosen."""
    from d2l_study.learning.labels_used import snapshot_is_chosen
    from d2l_study.study.space.keys import sections_of  # `--help` needs no data sets

    first: dict[str, int] = {}
    for i, (config, status) in enumerate(zip(rows["config_id"], rows["status"], strict=True)):
        if status == "done":
            first.setdefault(config, i)
    found = set()
    for one in records(rows.iloc[[*first.values()]]):
        values = {str(key): value for key, value in one.items() if value is not None and value == value}
        sections = {name: own for name, own in sections_of(values).items() if "select" in own}
        try:
            found |= {snapshot_is_chosen(str(one["stage"]), sections)} if sections else set()
        except KeyError:
            continue
    return None if not found else True in found
