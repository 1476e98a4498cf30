"""The intervals on a model's card are those of the study's tables, whatever its replicates are."""

import csv
import io

import pytest
from make_folds import make_folds
from make_study import make_study

from analysis import render
from d2l_study.study.commands.metric_intervals import summary_of


@pytest.mark.parametrize("partition", ["dealt folds", "given folds", "given split", None])
def test_a_card_has_the_intervals_of_the_table(tmp_path, partition):
    folder = make_study(tmp_path) if partition is None else make_folds(tmp_path, partition=partition)
    rows = folder.rows()
    rows = rows[rows["config_id"] == rows["config_id"].iloc[0]]
    (cell,) = [line for line in csv.DictReader(io.StringIO(render(rows, metric="bag_auc", format="csv")))
               if line["kind"] == "value"]  # fmt: skip
    config = {key: rows[key].iloc[0] for key in ("config_id", "dataset", "folds") if key in rows}
    of_ledger = [{**config, "replicate": r, **folder.ledger.row(config["config_id"], r)} for r in rows["replicate"]]
    mean, lower, upper, count = summary_of(of_ledger)("bag_auc")
    shown = tuple(float(cell[key] or "nan") for key in ("mean", "lower", "upper"))
    assert (mean, lower, upper) == pytest.approx(shown, nan_ok=True)
    assert (cell["lower"] == "") is (partition == "given folds")  # whose interval would be too wide to say anything
    assert count == int(cell["count"])
