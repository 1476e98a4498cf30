"""Validation chooses among configurations; the oracle takes no part, and ties are counted."""

import pandas as pd
from make_study import make_distillation

from analysis.cells.model_selection import ranked_by_validation, ties_for_first


def test_the_oracle_is_never_among_the_best(tmp_path):
    order = ranked_by_validation(make_distillation(tmp_path, replicates=3).rows())
    assert "oracle" not in set(order["stage"])
    assert {"teacher", "student"} <= set(order["stage"])


def test_an_empty_ranking_ties_nothing():
    assert ties_for_first(pd.DataFrame()) == 0
