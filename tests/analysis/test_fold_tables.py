"""Studies with folds: metrics as columns, corrected intervals, pooled figures, and what stands beside them."""

import csv
import io

import numpy as np
import pandas as pd
import pytest
from make_folds import make_folds
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.cells.out_of_fold import pooled_rows
from analysis.cli import main
from analysis.figures.paired import draw_pairs
from analysis.rows.published_results import published_results
from analysis.tables.study_table import render, table


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_folds(root, failed=((0, 3),), oracle=True)
    make_folds(root, "breasted", dataset="breast", images=40, repeats=2)
    return root


@pytest.fixture(scope="module")
def rows(root):
    return analysis.load("folded", root)


def test_methods_against_metrics_in_a_panel_for_bags_and_one_for_instances(rows):
    sheet = table(rows).sheet()
    bags, instances = sheet.panels
    assert bags.columns == ["accuracy", "precision", "recall", "F1", "AUC"]
    assert instances.columns == ["AUC", "AUC within images", "average precision"]
    assert [line.head.text for line in bags.groups[0].lines] == ["none", "vat"]  # the oracle knows no bags
    assert bags.groups[0].lines[0].entries[4].count == "(14 of 15)"
    text = " ".join(render(rows).split())
    assert "Patients are not identified in the colon data" in text
    assert "Nadeau and Bengio" in text


def test_fold_intervals_are_widened_by_the_ratio_of_test_to_training_bags(rows):
    own = rows[(rows["method"] == "vat")]["bag_accuracy"]
    layout = arrange(rows, "bag_accuracy", "method", METRICS, None)
    (cell,) = [c for c in layout.cells.values() if c.origin.stage == "teacher" and len(c.values) == 15]
    assert cell.test_train_ratio == pytest.approx(1 / 3)  # of five folds one tests, one validates, three train
    m = own.mean()
    half = stats.t.ppf(0.975, 14) * own.std() * np.sqrt(1 / 15 + 1 / 3) / (m * (1 - m))
    assert np.log(cell.interval.upper / (1 - cell.interval.upper)) == pytest.approx(np.log(m / (1 - m)) + half)
    given = arrange(rows, "bag_accuracy", "method", METRICS, None, test_train_ratio=0.1)
    assert {c.test_train_ratio for c in given.cells.values()} == {0.1}


def test_pooled_figures_are_those_of_all_predictions_of_a_repeat(rows, root):
    pooled = pooled_rows(rows)
    # The first repeat of `none` lacks a fold: it is not pooled.
    assert pooled[pooled["method"] == "none"]["repeat"].tolist() == [1, 2]
    stored = analysis.load_predictions("folded", root, split="test", level="bag", method="vat", repeat=2)
    assert len(stored) == stored["bag_index"].nunique() == 60
    label, logit = stored["label"].to_numpy(int), stored["logit"].to_numpy()
    (own,) = pooled[(pooled["method"] == "vat") & (pooled["repeat"] == 2)].to_dict("records")
    assert own["bag_auc"] == pytest.approx(roc_auc_score(label, logit))
    assert own["bag_f1"] == pytest.approx(f1_score(label, logit > 0))
    made = table(rows, pooled=pooled)
    (group,) = [g for g in made.sheet().panels[0].groups if g.heading.startswith("pooled")]
    values = pooled[pooled["method"] == "vat"]["bag_auc"]
    assert group.lines[1].entries[4].value == pytest.approx(values.mean())
    assert group.lines[1].entries[4].count == "(3)"
    lines = list(csv.DictReader(io.StringIO(made.text("csv"))))
    (line,) = [one for one in lines if (one["kind"], one["metric"], one["method"]) ==
               ("pooled_out_of_fold", "bag_auc", "vat")]  # fmt: skip
    assert float(line["mean"]) == pytest.approx(values.mean())


def test_several_data_sets_are_panels_and_studies_stay_apart(root):
    both = analysis.load(["folded", "breasted"], root)
    assert both.attrs["study"] == "folded, breasted"
    heads = [panel.head.text for panel in table(both).sheet().panels]
    assert heads == [
        f"dataset = {name}, {level} level" for name in ("colon", "breast") for level in ("bag", "instance")
    ]
    apart = table(analysis.load("breasted", root), "bag_auc", panel_key=None).layout
    together = table(both, "bag_auc").layout
    wanted = {row.text: cell.values for (_, row, _), cell in apart.cells.items()}
    found = {r.text: c.values for (panel, r, _), c in together.cells.items() if panel.value == "breast"}
    assert found == wanted


def test_published_figures_name_their_source_and_stand_only_beside_their_own_data(rows, root, capsys):
    made = table(rows, with_published=True)
    (group,) = [g for g in made.sheet().panels[0].groups if g.heading.startswith("published")]
    attention = next(line for line in group.lines if line.head == "attention")
    assert [e.text for e in attention.entries] == ["0.900", "0.946", "0.851", "0.902", "0.959"]
    assert "PMC10072016, Table 6" in made.text()
    assert "other splits" in made.text()
    assert not any(g.heading.startswith("published") for g in made.sheet().panels[1].groups)
    assert published_results(["mnist", "breast"]) == []
    assert main(["tables", "breasted", "--root", str(root), "--published"]) == 2
    assert "no published figures of breast" in capsys.readouterr().err


def test_the_command_shows_pooled_figures_and_can_leave_them(root, tmp_path, capsys):
    at = ["tables", "folded", "--root", str(root)]
    assert main(at) == 0
    assert "pooled out of fold" in capsys.readouterr().out
    assert main([*at, "--no-pooled"]) == 0
    assert "pooled out of fold" not in capsys.readouterr().out
    assert main([*at, "--out", str(tmp_path / "t.parquet")]) == 0
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert set(frame["kind"]) == {"value", "pooled_out_of_fold", "method_minus_none"}
    assert frame["best"].dtype == "boolean"


def test_students_of_folds_are_drawn_beside_their_teachers_with_the_corrected_interval(rows):
    rows = rows[rows["stage"] == "teacher"].copy()
    student, teacher = rows["method"] == "vat", rows["method"] == "none"
    rows.loc[student, "stage"] = "student"
    rows.loc[student, "teacher_id"] = rows.loc[teacher, "config_id"].iloc[0]
    rows.loc[student, "teacher_method"] = "none"
    (axis,) = draw_pairs(rows, "instance_auc").axes
    done = [frame.set_index("replicate")["instance_auc"] for frame in (rows[student], rows[teacher])]
    gain = (done[0] - done[1]).dropna()
    half = stats.t.ppf(0.975, len(gain) - 1) * gain.std() * np.sqrt(1 / len(gain) + 1 / 3)
    drawn = [line.get_xdata() for line in axis.lines if len(line.get_xdata()) == 2 and line.get_marker() == "None"]
    assert any(np.allclose(x, [gain.mean() - half, gain.mean() + half]) for x in drawn)
    assert len(gain) == 14 and any(text.get_text().endswith("(14)") for text in axis.texts)
