"""Studies with folds: metrics as columns, corrected intervals, pooled figures, and what stands beside them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.cli import main
from analysis.rows.published_results import published_results
from analysis.tables.study_table import render, table
from d2l_study.errors import UserError


def test_methods_against_metrics_in_a_panel_for_bags_and_one_for_instances(fold_rows):
    sheet = table(fold_rows).sheet()
    bags, instances = sheet.panels
    assert bags.columns == ["accuracy", "precision", "recall", "F1", "AUC"]
    assert instances.columns == ["AUC", "AUC within images", "average precision"]
    assert [line.head.text for line in bags.groups[0].lines] == ["none", "vat"]  # the oracle knows no bags
    assert bags.groups[0].lines[0].entries[4].count == "(14 of 15)"
    text = " ".join(render(fold_rows).split())
    assert "Patients are not identified in the colon data" in text
    assert "Nadeau and Bengio" in text


def test_fold_intervals_are_widened_by_the_ratio_of_test_to_training_bags(fold_rows):
    own = fold_rows[(fold_rows["method"] == "vat")]["bag_accuracy"]
    layout = arrange(fold_rows, "bag_accuracy", "method", METRICS, None)
    (cell,) = [c for c in layout.cells.values() if c.origin.stage == "teacher" and len(c.values) == 15]
    assert cell.test_train_ratio == pytest.approx(1 / 3)  # of five folds one tests, one validates, three train
    m = own.mean()
    half = stats.t.ppf(0.975, 14) * own.std() * np.sqrt(1 / 15 + 1 / 3) / (m * (1 - m))
    assert np.log(cell.interval.upper / (1 - cell.interval.upper)) == pytest.approx(np.log(m / (1 - m)) + half)
    given = arrange(fold_rows, "bag_accuracy", "method", METRICS, None, test_train_ratio=0.1)
    assert {c.test_train_ratio for c in given.cells.values()} == {0.1}
    for ratio in (0.0, -1.0, float("nan")):  # 0 would be the ratio of the rows
        with pytest.raises(UserError, match=r"test_train_ratio: .* expected a number above 0"):
            arrange(fold_rows, "bag_accuracy", "method", METRICS, None, test_train_ratio=ratio)


def test_several_data_sets_are_panels_and_studies_stay_apart(folds_root):
    both = analysis.load(["folded", "breasted"], folds_root)
    assert both.attrs["study"] == "folded, breasted"
    heads = [panel.head.text for panel in table(both).sheet().panels]
    assert heads == [
        f"dataset = {name}, {level} level" for name in ("colon", "breast") for level in ("bag", "instance")
    ]
    apart = table(analysis.load("breasted", folds_root), "bag_auc", panel_key=None).layout
    together = table(both, "bag_auc").layout
    wanted = {row.text: cell.values for (_, row, _), cell in apart.cells.items()}
    found = {r.text: c.values for (panel, r, _), c in together.cells.items() if panel.value == "breast"}
    assert found == wanted


def test_published_figures_name_their_source_and_stand_only_beside_their_own_data(fold_rows, folds_root, capsys):
    made = table(fold_rows, with_published=True)
    (group,) = [g for g in made.sheet().panels[0].groups if g.heading.startswith("published")]
    attention = next(line for line in group.lines if line.head == "attention")
    assert [e.text for e in attention.entries] == ["0.900", "0.946", "0.851", "0.902", "0.959"]
    assert "PMC10072016, Table 6" in made.text()
    assert "other splits" in made.text()
    assert not any(g.heading.startswith("published") for g in made.sheet().panels[1].groups)
    assert published_results(["mnist", "breast"]) == []
    assert main(["tables", "breasted", "--root", str(folds_root), "--published"]) == 2
    assert "no published figures of breast" in capsys.readouterr().err


def test_the_command_shows_pooled_figures_and_can_leave_them(folds_root, tmp_path, capsys):
    at = ["tables", "folded", "--root", str(folds_root)]
    assert main(at) == 0
    assert "all folds of a repeat together" in capsys.readouterr().out
    assert main([*at, "--no-pooled"]) == 0
    assert "all folds of a repeat together" not in capsys.readouterr().out
    assert main([*at, "--out", str(tmp_path / "t.parquet")]) == 0
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert set(frame["kind"]) == {"value", "pooled_out_of_fold", "method_minus_none"}
    assert frame["best"].dtype == "boolean"


def test_data_without_instance_labels_are_called_so(fold_rows):
    names = [name for name in fold_rows if name.startswith("instance_")]
    bare = fold_rows.assign(**dict.fromkeys(names, np.nan))
    bare.attrs = fold_rows.attrs
    text = table(bare, ["bag_auc", "instance_auc"]).text()
    assert "no instance labels |" in text
    assert "undefined" not in text and "No instance labels: the data have none" in " ".join(text.split())
    asked = [
        lambda: analysis.compare(bare, None, "instance_auc"), lambda: analysis.figure(bare, "roc", level="instance"),
        lambda: analysis.figure(bare, "curves", metric="instance_auc"),
    ]  # fmt: skip
    for ask in asked:
        with pytest.raises(UserError, match="no instance labels"):
            ask()
    one_class = bare.assign(instance_accuracy=0.9)
    one_class.attrs = fold_rows.attrs
    assert "undefined" in table(one_class, "instance_auc").text()
