"""Cells with the stored scores of their runs, and the validation labels that training saw."""

import io

import numpy as np
import pandas as pd
import pytest
from make_study import make_study

import analysis
from analysis.cells.scored_cells import scored_cells
from analysis.figures import roc
from analysis.figures.reliability import Reliability
from analysis.statistics.calibration import calibration_of
from d2l_study.learning.calibration import fit_temperature


def test_what_kept_no_predictions_is_counted(tmp_path):
    make_study(tmp_path, num_bags=(50,), bag_sizes=(10,), with_predictions=True)
    make_study(tmp_path, "bare", num_bags=(50,), bag_sizes=(10,), seed=1)
    both = analysis.load(["made", "bare"], tmp_path)
    for figure in (roc.draw_roc(both), Reliability.of(both).draw()):
        assert "without 2 configurations that kept no predictions" in " ".join(figure.get_supxlabel().split())
    alone = roc.draw_roc(analysis.load("made", tmp_path))
    assert "kept no predictions" not in " ".join(alone.get_supxlabel().split())


@pytest.mark.parametrize(("kept", "expected"), [("seen", "seen"), ("earlier", None), ("earlier, no noise", "true")])
def test_a_temperature_is_fitted_to_the_labels_that_training_saw(tmp_path, kept, expected):
    """A quarter of the validation labels is flipped; an earlier file of such a run has the true ones only."""
    folder = make_study(
        tmp_path, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=1, with_predictions=True
    )
    (entry,) = folder.plan()
    noise = 0.0 if kept == "earlier, no noise" else 0.25
    folder.write("", folder.resolved(), [{**entry, "values": {**entry["values"], "label_noise": noise}}])
    frame = pd.read_parquet(io.BytesIO(folder.ledger.read_file(entry["config_id"], 0, "predictions.parquet")))
    val = ((frame["split"] == "val") & (frame["level"] == "bag")).to_numpy()
    true, logit = frame.loc[val, "label"].to_numpy(int), frame.loc[val, "logit"].to_numpy(float)
    seen = np.where(np.arange(len(true)) % 4 == 0, 1 - true, true)
    if kept == "seen":
        frame["seen_label"] = pd.array([pd.NA] * len(frame), dtype="Int8")
        frame.loc[val, "seen_label"] = seen
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    record = folder.ledger.read(entry["config_id"], 0)
    make_again(folder, entry["config_id"], record["row"], out.getvalue())
    _, (cell,) = scored_cells(analysis.load("made", tmp_path), "bag", "reliability")
    if expected is None:
        assert not cell.validation
        return
    labels, scores = cell.validation[0]
    wanted = {"seen": seen, "true": true}[expected]
    assert labels.tolist() == wanted.tolist() and scores.tolist() == logit.tolist()
    other = fit_temperature(true if expected == "seen" else seen, logit)
    assert calibration_of(cell.test[0], cell.validation[0]).temperature != pytest.approx(other)
    test = frame[(frame["split"] == "test") & (frame["level"] == "bag")]
    assert cell.test[0][0].tolist() == test["label"].tolist()


def make_again(folder, config, row, predictions):
    """Commit the run with other predictions in the place of those it has."""
    folder.storage.delete(f"{folder.ledger.run_key(config, 0)}/commit.json")
    assert folder.ledger.commit(config, 0, row, {"predictions.parquet": predictions})
