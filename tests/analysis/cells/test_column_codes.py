"""Which columns vary within which, by numbers: as pandas answers it, group by group."""

import numpy as np
import pandas as pd
import pytest

from analysis.cells.column_codes import Codes
from analysis.rows.frame_records import records


def made_frame(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 30))
    return pd.DataFrame({
        "number": rng.choice([1.0, 2.0, np.nan], count), "text": pd.Series(rng.choice(["a", "b"], count)),
        "some": pd.Series(rng.choice(["x", None], count), dtype="str"), "same": 7,
        "truth": pd.array(rng.choice([True, False, None], count), dtype="boolean"),
        "id": rng.integers(0, 4, count), "mixed": pd.Series([np.int64(3), None, "a"] * count, dtype=object)[:count],
    })  # fmt: skip


def several(frame, key, within):
    """(n,) whether a row's group has several values of the key, by groups of pandas."""
    if not within:
        return np.full(len(frame), frame[key].nunique(dropna=False) > 1)
    found = np.zeros(len(frame), bool)
    for _, rows in frame.reset_index().groupby(within, dropna=False):
        found[rows["index"]] = rows[key].nunique(dropna=False) > 1
    return found


@pytest.mark.parametrize("seed", range(6))
def test_what_varies_is_what_pandas_finds(seed):
    frame = made_frame(seed)
    codes = Codes(frame)
    for key in frame:
        for within in ([], ["text"], ["number", "some"], ["id", "truth"], ["same"], [key]):
            expected = several(frame, key, within)
            assert codes.vary(key, within) == expected.any(), (key, within)
            chosen = codes.where_it_varies(key, within)
            assert chosen.rows.tolist() == (np.flatnonzero(expected).tolist() if within else [*range(len(frame))])
            assert chosen.vary("number") == (frame.iloc[chosen.rows]["number"].nunique(dropna=False) > 1)


@pytest.mark.parametrize("seed", range(3))
def test_groups_come_in_the_order_in_which_they_appear(seed):
    frame = made_frame(seed)
    expected = [rows.index.tolist() for _, rows in frame.groupby(["some", "number"], dropna=False, sort=False)]
    assert [group.rows.tolist() for group in Codes(frame).groups(["some", "number"])] == expected


def test_none_and_nan_are_one_missing_value():
    frame = pd.DataFrame({"key": pd.Series([None, np.nan, None], dtype=object)})
    assert not Codes(frame).vary("key")


@pytest.mark.parametrize("seed", range(3))
def test_records_are_those_of_pandas(seed):
    frame = made_frame(seed)
    found, expected = [*records(frame)], frame.to_dict("records")
    assert repr(found) == repr(expected)
    assert [[type(value) for value in row.values()] for row in found] == [
        [type(value) for value in row.values()] for row in expected
    ]
    assert [*records(frame[:0])] == []
