"""Runs that stand in several rows. Where their metrics are equal one row stands for all; where they are not, as of two
versions of the code, neither may hide the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.rows.metrics import metric_of_column

if TYPE_CHECKING:
    import pandas

RUN = ["config_id", "method", "stage", "replicate"]
"""The columns that name a run, but for its study."""
ROUNDING = 1e-9
"""Relative to the value or to 1, whichever is larger: a CSV file of another program may have fewer digits."""


@dataclass(frozen=True)
class UnlikeRows:
    """Two finished rows of one run. places: which rows of the frame they are, from 0."""

    run: str
    """`4f1c2a90b3 r003`."""
    places: tuple[int, int]
    metric: str
    values: tuple[float, float]

    @property
    def text(self) -> str:
        """What differs: `bag_auc 0.91 and 0.89`."""
        return f"{self.metric} {self.values[0]!r} and {self.values[1]!r}"


def unlike_rows(rows: pandas.DataFrame, by_study: bool = False) -> UnlikeRows | None:
    """The first run of which finished rows have different values of a metric, or `by_study` those of one study; None
    without one. Times are no metrics of the model, and a value that one of the rows lacks is no difference."""
    import pandas as pd

    keys = [*RUN, *["study"] * (by_study and "study" in rows)]
    done = (rows["status"] == "done").to_numpy().nonzero()[0]
    finished = rows.iloc[done]
    repeated = finished.duplicated(keys, keep=False).to_numpy()
    if not repeated.any():
        return None
    found, places = finished[repeated], done[repeated]
    group = found.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()
    for column in map(str, found.columns):
        metric = metric_of_column(column)
        if metric is None or not metric.split:
            continue
        values = pd.Series(pd.to_numeric(found[column], errors="coerce").to_numpy(float, na_value=float("nan")))
        extent = values.groupby(group).agg(["min", "max"])
        wide = extent["max"] - extent["min"] > ROUNDING * extent["max"].abs().clip(1.0, 1e300)
        if wide.any():
            own = values[group == wide.index[wide][0]]
            first, other = sorted((int(own.idxmin()), int(own.idxmax())))
            run = found.iloc[first]
            pair = (int(places[first]), int(places[other]))
            name = f"{str(run['config_id'])[:10]} r{int(run['replicate']):03d}"
            return UnlikeRows(name, pair, column, (float(values[first]), float(values[other])))
    return None
