"""Validation chooses among configurations; the oracle takes no part, and ties are counted."""

import pandas as pd
import pytest
from make_rows import make_rows
from make_study import make_distillation

from analysis.cells.model_selection import ranked_by_validation, selected_rows, ties_for_first


def test_the_oracle_is_never_among_the_best(tmp_path):
    order = ranked_by_validation(make_distillation(tmp_path, replicates=3).rows())
    assert "oracle" not in set(order["stage"])
    assert {"teacher", "student"} <= set(order["stage"])


def test_an_empty_ranking_ties_nothing():
    assert ties_for_first(pd.DataFrame()) == 0


@pytest.mark.parametrize("easier", [0.3, None])
def test_each_problem_has_a_choice_of_its_own(easier):
    """The natural rate is another one, too."""
    rows = make_rows([({"method": "vat", "witness_rate": w, "epsilon": e, "positive_digit": 9}, [mean, mean])
                      for w, of in ((0.1, (0.6, 0.7)), (easier, (0.9, 0.8)))
                      for e, mean in zip((1, 2), of, strict=True)], replicates=2)  # fmt: skip
    rows["val_bag_auc"] = rows["bag_auc"]
    rows.attrs["varied"] = ["epsilon", "witness_rate"]
    order = ranked_by_validation(rows)
    assert "positive_digit" not in order
    assert order["validation"].tolist() == pytest.approx([0.7, 0.6, 0.9, 0.8])
    kept = selected_rows(rows)
    assert kept.drop_duplicates("config_id")[["bag_auc", "epsilon"]].to_numpy().tolist() == [[0.7, 2], [0.9, 1]]
    assert kept.attrs["varied"] == ["witness_rate"]
