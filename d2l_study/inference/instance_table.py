"""Scores of instances that come as a table with a row for each: what our models in MLflow answer to a DataFrame.

    score_table(model, pandas.DataFrame({"bag": ["a", "a", "b"], "instance": [[0.1, …], [0.3, …], [0.2, …]]}))

The rows are those of `predict` (`prediction_file`), without the columns that an instance in a table has nothing for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from d2l_study.errors import UserError, listed, nearest
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.prediction_file import PredictedBag, Thresholds, prediction_rows

if TYPE_CHECKING:
    import pandas

BAG, INSTANCE = "bag", "instance"
COLUMNS = ("level", "bag", "index", "logit", "score", "predicted")
LEVELS = ("both", "bag", "instance")
ONE_BAG = "all"
"""The name of the bag where the table names none."""


def score_table(model: LoadedModel, table: pandas.DataFrame, level: str = "both") -> pandas.DataFrame:
    """The scores of the bags, in the order of their first rows, and of their instances, in the order of theirs.

    table: `instance`, the numbers of an instance: D of a vector, or C·H·W levels 0 to 255 of a patch, flat in C order
    or nested (C, H, W); `bag`, the name of its bag, without which all rows are one bag. level: `both`, or the rows of
    `bag` or `instance` only. Columns and their meaning: `COLUMNS`, as of `prediction_file`. `UserError` for a table
    that is none of these, with the row.
    """
    import pandas as pd
    import pyarrow as pa

    if level not in LEVELS:
        raise UserError(f"level: {level!r} is not allowed{nearest(level, LEVELS)}; expected {', '.join(LEVELS)}")
    names, values = _columns(table)
    thresholds = Thresholds.of(model)
    codes, bags = pd.factorize(names)
    parts = []
    for number, name in enumerate(bags):
        rows = np.flatnonzero(codes == number)
        scores = model.score_bag([_instances(model, values, rows)], pooled=level != INSTANCE)
        nowhere = np.full((len(rows), 2), math.nan)
        parts.append(prediction_rows(
            PredictedBag(str(name), (), np.zeros(len(rows), np.int64), nowhere, scores.instance_logits,
                         scores.bag_logit), thresholds,
        ))  # fmt: skip
    whole = pa.concat_tables(parts).select(list(COLUMNS))
    kinds = {pa.int64(): pd.Int64Dtype(), pa.int8(): pd.Int8Dtype()}
    frame = whole.to_pandas(types_mapper=kinds.get)
    return frame if level == "both" else frame[frame["level"] == level].reset_index(drop=True)


def _columns(table: pandas.DataFrame) -> tuple[np.ndarray, list[Any]]:
    """The names of the bags, and the values of the instances, of each row."""
    wrong = [str(name) for name in table.columns if name not in (BAG, INSTANCE)]
    if INSTANCE not in table.columns or wrong:
        found = f"the columns {listed(table.columns)}" if len(table.columns) else "no columns"
        raise UserError(f"table: {found}; expected {INSTANCE} (the numbers of an instance) and, if there are several "
                        f"bags, {BAG} (the name of its bag)")  # fmt: skip
    if not len(table):
        raise UserError("table: no rows; expected one for each instance")
    if BAG not in table.columns:
        return np.full(len(table), ONE_BAG, object), table[INSTANCE].tolist()
    names = table[BAG]
    if names.isna().any():
        raise UserError(f"{BAG}: row {int(np.flatnonzero(names.isna())[0])} has no name; expected the name of a bag in "
                        "each row, or no such column")  # fmt: skip
    return names.astype(str).to_numpy(object), table[INSTANCE].tolist()


def _instances(model: LoadedModel, values: list[Any], rows: np.ndarray) -> np.ndarray:
    """(n, D) float64, or (n, C, H, W) uint8, of the named rows."""
    patches, size = len(model.shape) == 3, math.prod(model.shape)
    found = np.empty((len(rows), size), np.float64)
    for at, row in enumerate(rows.tolist()):
        try:
            one = np.asarray(values[row])
        except ValueError:  # lists of unequal lengths
            one = np.empty(0, object)
        if one.dtype.kind not in "fiu" or one.size != size or one.shape not in _shapes(model.shape):
            raise UserError(f"{INSTANCE}: row {row} holds {_described(one)}; this model takes {_expected(model)}")
        found[at] = one.reshape(-1)
    if not patches:
        if (wrong := ~np.isfinite(found).all(axis=1)).any():
            raise UserError(f"{INSTANCE}: row {int(rows[np.flatnonzero(wrong)[0]])} holds NaN or infinity; expected "
                            "finite numbers")  # fmt: skip
        return found
    with np.errstate(invalid="ignore"):
        levels = found.astype(np.uint8)
    if (wrong := (levels != found).any(axis=1)).any():
        row = int(rows[np.flatnonzero(wrong)[0]])
        value = found[wrong][0][levels[wrong][0] != found[wrong][0]][0]
        raise UserError(f"{INSTANCE}: row {row} holds {value:g}; expected levels, whole numbers from 0 to 255, not "
                        "normalised")  # fmt: skip
    return levels.reshape(len(rows), *model.shape)


def _shapes(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The dimensions in which the numbers of an instance may come."""
    grey = (shape[1:],) if len(shape) == 3 and shape[0] == 1 else ()
    return (math.prod(shape),), shape, *grey


def _described(one: np.ndarray) -> str:
    if one.dtype.kind not in "fiu":
        return "something else than a list of numbers"
    return f"{one.size:,} numbers" + (f", {'×'.join(map(str, one.shape))}" if one.ndim != 1 else "")


def _expected(model: LoadedModel) -> str:
    size = math.prod(model.shape)
    if len(model.shape) == 1:
        encoder = model.stored.card.encoder
        return f"a vector of {size:,} numbers" + (f" of encoder {encoder!r}" if encoder else "")
    return f"a patch of {size:,} levels, channels × height × width {'×'.join(map(str, model.shape))}"
