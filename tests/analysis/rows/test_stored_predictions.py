"""Stored predictions belong to the runs asked for."""

import pytest
from scipy.special import expit

import analysis
from d2l_study.errors import UserError


def test_predictions_of_one_run_and_of_a_cell(stored_root):
    run = analysis.load_predictions(
        "made", stored_root, method="vat", num_bags=50, replicate=2, split="test", level="bag"
    )
    assert len(run) == 200
    assert set(run["replicate"]) == {2}
    assert set(run["method"]) == {"vat"}
    cell = analysis.load_predictions("made", stored_root, method="none", num_bags=50)
    assert sorted(cell["replicate"].unique()) == [0, 2]  # replicate 1 is missing
    assert set(cell["split"]) == {"val", "test"}
    assert set(cell["level"]) == {"bag", "instance"}
    assert cell["config_id"].nunique() == 1
    rows = analysis.load("made", stored_root)
    assert cell["config_id"][0] == rows[(rows["method"] == "none") & (rows["num_bags"] == 50)]["config_id"].iloc[0]


def test_predictions_are_logits_that_go_with_their_labels(stored_root):
    bags = analysis.load_predictions("made", stored_root, split="test", level="bag")
    probability = expit(bags["logit"].to_numpy())
    assert probability[bags["label"] == 1].mean() > 0.7 > 0.3 > probability[bags["label"] == 0].mean()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"metod": "vat"}, "did you mean 'method'"),
        ({"method": "dropout"}, "no finished run with method=dropout"),
        ({"split": "train"}, "expected val or test"),
    ],
)
def test_predictions_that_cannot_be(stored_root, where, message):
    with pytest.raises(UserError, match=message):
        analysis.load_predictions("made", stored_root, **where)


def test_a_run_without_predictions_is_named(stored_root):
    with pytest.raises(UserError, match=r"r000 kept no predictions\.parquet"):
        analysis.load_predictions("bare", stored_root)
