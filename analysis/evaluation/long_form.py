"""An evaluation as one long table, a row for each number (`metrics.csv`).

kind      `value`, `difference` (of `model` minus `minus`), or `members` (mean and `sd` over those of an ensemble)
at        `model threshold`, `0.5`, `as trained` or `temperature`; empty of what ranks
interval  how lower and upper were made: `DeLong`, `bootstrap over patients`; of a difference the test, too
resamples of the bootstrap in which the metric was defined
tests     how many tests `p_holm` is corrected for
units     bags or instances of known label, in `bags`, of `patients`; positives of them
reason    why there is no value or no interval
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from typing import Any

from analysis.evaluation.evaluation import Evaluation, Key
from analysis.evaluation.metrics import Level
from analysis.evaluation.text_table import mean_sd

COLUMNS = ("kind", "model", "minus", "level", "metric", "at", "value", "lower", "upper", "interval", "resamples", "sd",
           "members", "p", "p_holm", "tests", "units", "positives", "bags", "patients", "reason")  # fmt: skip


def csv_text(found: Evaluation) -> str:
    """The table with its header; a number without value is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for row in _rows(found):
        writer.writerow({key: _plain(value) for key, value in row.items()})
    return out.getvalue()


def _rows(found: Evaluation) -> Iterator[dict[str, Any]]:
    for (model, key), one in found.values.items():
        yield {"kind": "value", "model": model, **_counts(found, key), "value": one.value, "lower": one.lower,
               "upper": one.upper, "interval": one.interval, "resamples": one.resamples or "",
               "reason": one.reason}  # fmt: skip
    for name in found.ensembles:
        for key in found.keys:
            values = found.members_of(name, key)
            mean, sd = mean_sd(values)
            yield {"kind": "members", "model": name, **_counts(found, key), "value": mean, "sd": sd,
                   "members": int((values == values).sum())}  # fmt: skip
    for difference in found.differences:
        yield {"kind": "difference", "model": difference.first, "minus": difference.second,
               **_counts(found, difference.key), "value": difference.value, "lower": difference.lower,
               "upper": difference.upper, "interval": difference.test, "resamples": difference.resamples or "",
               "p": difference.p, "p_holm": difference.p_holm, "tests": found.tests,
               "reason": difference.reason}  # fmt: skip


def _counts(found: Evaluation, key: Key) -> dict[str, Any]:
    level, name, at = key
    of: Level = found.levels[level]
    return {"level": level, "metric": name, "at": at, "units": of.units, "positives": of.positives, "bags": of.bags,
            "patients": of.patients}  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    return value
