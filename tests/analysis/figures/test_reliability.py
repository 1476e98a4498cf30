"""The reliability figure and its table; temperatures are of validation bags alone."""

import numpy as np
import pytest
from make_scores import stored_scores
from make_study import make_study
from sklearn import metrics

import analysis
from analysis.figures.reliability import Reliability
from analysis.statistics.calibration import reliability_bins
from d2l_study.errors import UserError
from d2l_study.learning.calibration import fit_temperature


def test_no_test_label_sets_a_temperature(scored):
    """Fitted to the validation bags of the same run, and only those."""
    frame = Reliability.of(scored, "instance").frame()
    one = frame[(frame["row"] == "vat") & (frame["column"] == "n = 50")].sort_values("replicate")
    for (labels, logits), (_, found) in zip(stored_scores(scored, "vat", 50, "val"), one.iterrows(), strict=True):
        assert found["temperature"] == pytest.approx(fit_temperature(labels, logits))
    for (labels, logits), (_, found) in zip(
        stored_scores(scored, "vat", 50, "test", "instance"), one.iterrows(), strict=True
    ):
        scaled = 1 / (1 + np.exp(-logits / found["temperature"]))
        assert found["brier_scaled"] == pytest.approx(metrics.brier_score_loss(labels, scaled))


def test_attention_is_no_probability_and_is_in_no_reliability(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=3, with_predictions=True)
    rows = analysis.load("made", tmp_path)
    rows.loc[rows["method"] == "vat", "stage"] = "attention"
    found = Reliability.of(rows, "instance")
    assert set(found.frame()["row"]) == {"none"}
    text = found.sheet().caption.text
    assert "Attention scores rank instances and are no probabilities" in text
    assert "attention, which is no probability, is left out" in " ".join(found.draw().get_supxlabel().split())
    assert "kept no predictions" not in found.draw().get_supxlabel()
    heads = found.sheet().panels[0].columns
    assert len(heads) == len(set(heads))
    rows["stage"] = "attention"
    with pytest.raises(UserError, match="which is no probability"):
        Reliability.of(rows, "instance")


def test_the_reliability_figure_shows_shares_of_positives(scored):
    figure = Reliability.of(scored, "bag").draw()
    axis = next(a for a in figure.axes if a.get_title() == "K = 10, n = 50, as trained")
    labels, logits = (np.concatenate(part) for part in zip(*stored_scores(scored, "none", 50), strict=True))
    count, score, share = reliability_bins(labels, 1 / (1 + np.exp(-logits)))
    line = next(one for one in axis.get_lines() if one.get_color() == "#000000" and one.get_marker() == "o")
    assert line.get_xdata() == pytest.approx(score[count >= 5])
    assert line.get_ydata() == pytest.approx(share[count >= 5])


@pytest.mark.parametrize(
    ("case", "said", "barred"),
    [
        ("both", "; bars: from the least to the greatest run with at least 5 scores in the bin; dotted", [True, True]),
        ("none", "together; no bars, since more than 4 would hide each other; dotted", [False, False]),
        ("one", "in the bin; no bars in panels of more than 4 curves, where they would hide each", [False, True]),
        ("single", "together; dotted: perfect", [False, False]),
    ],
)
def test_the_note_speaks_of_bars_where_there_are_some(spread_cases, case, said, barred):
    figure = Reliability.of(spread_cases[case]).draw()
    assert said in " ".join(figure.get_supxlabel().split())
    axes = [axis for axis in figure.axes if axis.get_title().endswith("as trained")]
    found = [any(len({*line.get_xdata()}) == 1 < len(line.get_xdata()) for line in axis.get_lines()) for axis in axes]
    assert found == barred


def test_a_temperature_is_no_wider_than_it_can_be(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), replicates=2, with_predictions=True)
    made = Reliability.of(analysis.load("made", tmp_path))
    own = made.frame().query("row == 'vat'")["temperature"]
    (entry,) = [line.entries[0] for line in made.sheet().panels[0].groups[0].lines if line.head.text == "vat"]
    assert entry.mean == f"{np.exp(np.log(own).mean()):.2f}"
    half = 12.706 * np.log(own).std() / np.sqrt(2)
    beyond = np.exp(np.log(own).mean() - half) < 0.05 and np.exp(np.log(own).mean() + half) > 20
    assert (entry.interval_text == "[–]") == beyond and "e+" not in entry.interval_text
