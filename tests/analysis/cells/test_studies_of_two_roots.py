"""Studies of different roots, which may share a configuration, or a name: every run is read where it lies."""

import json

import pandas as pd
import pytest
from make_folds import make_folds
from make_study import make_study

import analysis
from analysis.cells.scored_cells import scored_cells
from analysis.cells.scored_instances import thresholds_of
from analysis.cli import main
from analysis.figures import learning_curves, roc
from analysis.rows.exported_files import export
from analysis.tables.comparison import compare
from analysis.tables.study_table import table
from d2l_study.errors import UserError

HOW = {"num_bags": (50,), "bag_sizes": (10,), "with_predictions": True}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Rows of `few` with 2 replicates of a configuration, and of `more` in another root with 4, each with curves."""
    home = tmp_path_factory.mktemp("roots")
    for root, name, replicates in (("one", "few", 2), ("two", "more", 4)):
        folder = make_study(home / root, name, replicates=0, **HOW)
        made = make_study(home / "made", name, replicates=replicates, **HOW)
        folder.write_plan(made.plan())
        for entry in made.plan():
            for r in entry["replicates"]:
                row = made.ledger.read(entry["config_id"], r)["row"]
                curve = [{"step": step, "val_bag_auc": 0.5 + (root == "two") / 10} for step in (100, 200)]
                files = {"predictions.parquet": made.read_file(entry["config_id"], r, "predictions.parquet"),
                         "curve.json": json.dumps(curve).encode()}  # fmt: skip
                folder.ledger.commit(entry["config_id"], r, row, files)
    return home


def rows_of(home):
    return analysis.load([home / "one/studies/few", home / "two/studies/more"])


def test_every_run_is_read_in_the_root_that_holds_it(shared):
    rows = rows_of(shared)
    layout, found = scored_cells(rows, "bag", "roc")
    assert [sorted(one.test) for one in found] == [[0, 1, 2, 3]] * 2
    assert {cell.interval.count for cell in layout.cells.values()} == {4}
    assert "without" not in roc.draw_roc(rows).get_supxlabel()
    assert len(compare(rows, {"method": "none"}, "bag_auc", test="delong").found) == 4
    read = learning_curves._read(rows, "val_bag_auc").curves.values()
    first = [{r: curve[0]["val_bag_auc"] for r, curve in one.by_replicate.items()} for mine in read for one in mine]
    assert first == [{0: 0.5, 1: 0.5, 2: 0.6, 3: 0.6}] * 2  # of a run in both, the first, as in the table


def test_runs_that_are_in_no_folder_are_counted_and_named(shared, tmp_path):
    file = export(analysis.load(shared / "two/studies/more"), tmp_path / "more.csv")
    rows = analysis.load([shared / "one/studies/few", file])
    note = " ".join(roc.draw_roc(rows).get_supxlabel().split())
    assert "without 4 of 8 runs, which kept no predictions" in note
    note = " ".join(learning_curves.draw_learning(rows).get_supxlabel().split())
    assert "without 4 of 8 runs, whose curves are not there or undefined" in note
    with pytest.raises(UserError, match=r"r002 came from a file or from MLflow.*name the folder of its study"):
        compare(rows, {"method": "none"}, "bag_auc", test="delong")
    assert len(compare(rows, {"method": "none"}, "bag_auc", test="delong", replicates=[0, 1]).found) == 2


def test_two_studies_of_one_name_are_told_apart_by_their_roots(tmp_path, capsys):
    make_study(tmp_path / "a/runs", "s", replicates=2, **HOW)
    make_study(tmp_path / "b/runs", "s", replicates=2, **{**HOW, "num_bags": (200,)})
    folders = [str(tmp_path / root / "runs/studies/s") for root in "ab"]
    rows = analysis.load(folders)
    assert set(rows["study"]) == {"a/runs/s", "b/runs/s"} and rows.attrs["study"] == "a/runs/s, b/runs/s"
    _, found = scored_cells(rows, "bag", "roc")
    assert [(one.column.value, len(one.test)) for one in found] == [(50, 2), (50, 2), (200, 2), (200, 2)]
    assert len(compare(rows, {"method": "none"}, "bag_auc", test="delong").found) == 4
    again = analysis.load(export(rows, tmp_path / "both.parquet"))
    assert set(again["study"]) == {"a/runs/s", "b/runs/s"}
    assert (
        main(["figure", *folders, "--kind", "roc", "--where", "study=b/runs/s", "--out", str(tmp_path / "f.png")]) == 0
    )
    capsys.readouterr()


def test_equal_settings_on_other_data_are_rows_of_their_own_study(tmp_path):
    for root in "ab":
        make_folds(tmp_path / root, "s", images=24, folds=3, repeats=1, data=root)
    rows = analysis.load([tmp_path / root / "studies/s" for root in "ab"])
    made = table(rows, pooled=analysis.pooled_rows(rows))
    assert {row.text for row in made.layout.rows} == {
        f"{arm} (study={root}/s)" for arm in ("none", "vat") for root in "ab"
    }
    assert made.pooled is not None and {row.study for row in made.pooled.rows} == {"a/s", "b/s"}


def test_one_folder_under_two_names_is_one_study(tmp_path):
    make_study(tmp_path / "runs", "s", replicates=2, **HOW)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    rows = analysis.load([tmp_path / "runs/studies/s", tmp_path / "link/studies/s"])
    assert set(rows["study"]) == {"s"}


def test_pooled_folds_of_several_roots_are_those_that_lie_in_folders(tmp_path):
    make_folds(tmp_path / "one", "part", images=24, folds=3, repeats=1, failed=((0, 1), (1, 1)))
    make_folds(tmp_path / "two", "whole", images=24, folds=3, repeats=1)
    folders = [tmp_path / "one/studies/part", tmp_path / "two/studies/whole"]
    both, alone = (analysis.pooled_rows(analysis.load(which)) for which in (folders, folders[1]))
    assert both["bag_auc"].tolist() == alone["bag_auc"].tolist()
    assert not both.attrs["not_pooled"]  # the fold that one lacks is in the other
    other = make_folds(tmp_path / "three", "other", images=24, folds=3, repeats=1, data="other")
    file = export(other.rows(), tmp_path / "other.csv")
    mixed = analysis.pooled_rows(analysis.load([folders[1], file]))
    assert len(mixed) == 2 and mixed.attrs["not_pooled"] == ["study other (not from its folder)"]


def test_images_of_several_roots_are_those_of_one_that_has_them_all(tmp_path):
    how = {"images": 24, "folds": 3, "repeats": 1, "tiles": True}
    make_folds(tmp_path / "one", "part", failed=((0, 1), (1, 1)), **how)
    make_folds(tmp_path / "two", "whole", **how)
    folders = [tmp_path / "one/studies/part", tmp_path / "two/studies/whole"]
    both, alone = (analysis.image_table(analysis.load(which)).frame() for which in (folders, folders[1]))
    assert both.drop(columns="study").equals(alone.drop(columns="study"))
    rows = analysis.load(folders)
    tests = compare(rows, {"method": "none"}, "instance_dice_tuned", test="clusters")
    assert [one.replicate for one in tests.found] == [0, 1, 2]


def test_what_a_run_has_is_of_the_study_that_is_shown():
    rows = pd.DataFrame({"config_id": "c", "replicate": 0, "study": ["a", "b", "d"],
                         "status": ["missing", "done", "done"], "instance_threshold": [0.9, 0.1, 0.2]})  # fmt: skip
    assert thresholds_of(rows) == {("c", 0, None): 0.1, ("c", 0, "b"): 0.1, ("c", 0, "d"): 0.2}


def test_cells_of_studies_that_are_told_apart_hold_the_runs_of_their_own(tmp_path):
    """`few` and `more` share both arms; those of a third study have the same settings on other data."""
    how = {"images": 24, "folds": 3, "tiles": True}
    make_folds(tmp_path / "one", "few", repeats=1, **how)
    make_folds(tmp_path / "two", "more", repeats=2, **how)
    make_folds(tmp_path / "three", "other", repeats=1, data="other", **how)
    places = (("one", "few"), ("two", "more"), ("three", "other"))
    rows = analysis.load([tmp_path / root / "studies" / name for root, name in places])
    counts = {"few": 3, "more": 6, "other": 3}
    layout, found = scored_cells(rows, "bag", "roc")
    assert {row.study for row in layout.rows} == {*counts}
    assert [len(one.test) for one in found] == [counts[one.row.study] for one in found] and len(found) == 6
    pooled = analysis.pooled_rows(rows)
    assert pooled.groupby("study")["repeat"].apply(list).to_dict() == {
        "few": [0] * 2,
        "more": [0, 1] * 2,
        "other": [0] * 2,
    }
    images = analysis.image_table(rows)
    assert {one.row.study: one.tested for one in images.found} == {"few": 1, "more": 2, "other": 1}
    tests = compare(rows, {"method": "none"}, "bag_auc", test="delong").found
    assert {study: sum(one.row.study == study for one in tests) for study in counts} == counts
