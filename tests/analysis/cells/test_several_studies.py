"""Several studies in one table: told apart by name, compared each within itself, each with its own labels."""

import pytest
from make_folds import make_folds
from make_study import make_distillation, make_study

import analysis
from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS
from analysis.cells.out_of_fold import pooled_rows
from analysis.cells.row_filter import rows_where
from analysis.cells.student_controls import StudentControls
from analysis.cli import main
from analysis.rows.exported_files import export
from analysis.tables.comparison import compare
from analysis.tables.study_table import table
from d2l_study.errors import UserError
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two manifests whose settings are the same: A with labels, of whose arms B has one and another one."""
    root = tmp_path_factory.mktemp("runs")
    how = {"dataset": "manifest", "images": 24, "folds": 3, "repeats": 1, "partition": "given folds"}
    folder = make_folds(root, name="A", data="one", **how)
    folder.write("d\n", {"space": {"description": "d", "labels": {"none": "Attention MIL"}}}, folder.plan())
    make_folds(root, name="B", data="two", **how)
    make_folds(root, name="C", data="three", methods=("vat",), **how)
    make_folds(root, name="S", seed=4, **{**how, "folds": 2, "partition": "given split"})
    make_study(root, name="drawn", num_bags=(50,), bag_sizes=(10,), replicates=2)
    return root


def heads(made):
    return [line.split("|")[1].strip() for line in made.text().splitlines() if line.startswith("|")]


def test_rows_are_told_apart_by_study_and_compared_within_it(root):
    made = table(analysis.load(["A", "B"], root))
    found = heads(made)
    for wanted in ("Attention MIL (study=A)", "vat (study=A)", "none (study=B)", "vat (study=B)",
                   "vat (study=A) − Attention MIL (study=A)", "vat (study=B) − none (study=B)"):  # fmt: skip
        assert wanted in found, found
    assert not any("trial_id" in one for one in found)
    own = table(analysis.load("A", root))
    (mine,) = [d for d in made.differences[made.layout.panels[0]] if d.row.study == "A"]
    (alone,) = own.differences[own.layout.panels[0]]
    assert [*mine.by_column.values()] == [*alone.by_column.values()]
    assert "Studies are compared each within itself" in " ".join(made.text().split())
    assert set(made.frame()["study"]) == {"A", "B"}
    # A best mean for each of them.
    bold = {place[1].study for place in made.best}
    assert bold == {"A", "B"}


def test_tests_are_within_each_study_and_one_without_a_baseline_is_named(root):
    rows = analysis.load(["A", "B", "C"], root)
    made = compare(rows, {"method": "none"}, "bag_accuracy")
    assert {(one.row.study, one.baseline.study) for one in made.found} == {("A", "A"), ("B", "B")}
    assert "no baseline of their own study answers to them: vat (study=C)." in " ".join(made.text().split())
    assert set(made.frame()["study"]) == {"A", "B"}
    one = compare(rows, {"method": "none", "study": "A"}, "bag_accuracy")
    assert {pair.row.study for pair in one.found} == {"A"}


def test_labels_of_one_study_stand_on_no_row_of_another(root, tmp_path):
    rows = analysis.load(["A", "drawn"], root)
    rows_of = {row.study: row.text for row in table(rows, "bag_auc").layout.rows if row.value == "none"}
    assert rows_of == {"A": "Attention MIL (study=A)", "drawn": "none (study=drawn)"}
    again = analysis.load(export(rows, tmp_path / "both.parquet"))
    assert table(again).text() == table(rows).text()
    # What is given for all is for all; what both say stands where both share it.
    both = analysis.load(["A", "B"], root, labels={"none": "Plain", "bag_auc": "AUROC"})
    text = table(both, "bag_auc").text()
    assert "Plain (study=A)" in text and "Plain (study=B)" in text and "AUROC" in text
    # A study beside itself is one study.
    same = table(analysis.load(["A", export(analysis.load("A", root), tmp_path / "a.csv")], root))
    assert {row.text for row in same.layout.rows} == {"Attention MIL", "vat"}


def test_counts_of_several_designs_keep_their_words(root):
    text = " ".join(table(analysis.load(["drawn", "A", "S"], root), "bag_auc").text().split())
    assert "2 replicates or 3 folds (of all repeats) or 2 trainings on the given split planned" in text


def test_a_method_without_a_difference_is_named_with_the_reason(root):
    rows = analysis.load("drawn", root)
    more = rows[rows["method"] == "none"].assign(epsilon=9.0)
    more["config_id"] += "2"
    import pandas as pd

    joined = pd.concat([rows, more], ignore_index=True)
    joined.loc[joined["method"] == "vat", "epsilon"] = 5.0
    joined.attrs = rows.attrs | {"varied": ["epsilon"]}
    assert "Not compared with none, since several of its rows answer to them: vat" not in " ".join(
        table(rows).text().split()
    )
    assert "Not compared with none, since several of its rows answer to them: vat" in " ".join(
        table(joined).text().split()
    )


# ---- names that are typed
def test_examples_are_of_the_option_and_shown_names_are_taken(root, capsys):
    at = ["A", "--root", str(root)]
    for wrong in ("none", "none="):
        assert main(["tables", *at, "--label", wrong]) == 2
        assert f"--label {wrong}: expected NAME=TEXT, for example none='Attention MIL'" in capsys.readouterr().err
    assert main(["figure", *at, "--where", "num_bags", "--out", "f.png"]) == 2
    assert "--where num_bags: expected KEY=VALUE, for example num_bags=50" in capsys.readouterr().err
    rows = analysis.load("A", root)
    shown, plain = (compare(rows, {"method": name}) for name in ("Attention MIL", "none"))
    assert shown.frame().equals(plain.frame())
    assert analysis.figure(rows_where(rows, {"method": "Attention MIL"}))
    with pytest.raises(UserError, match="no row has it"):
        compare(rows, {"method": "Attention"})
    with pytest.raises(UserError, match=r"^format 'docx': not known"):
        table(rows).text("docx")


def test_exports_keep_labels_or_say_that_they_do_not(root, tmp_path, capsys):
    for suffix in ("parquet", "csv"):
        assert main(["export", "A", "--root", str(root), "--out", str(tmp_path / f"a.{suffix}")]) == 0
        assert ("names are plain" in capsys.readouterr().out) == (suffix == "csv")
    assert "Attention MIL" in table(analysis.load(tmp_path / "a.parquet")).text()
    assert main(["export", "B", "--root", str(root), "--out", str(tmp_path / "b.csv")]) == 0
    assert "plain" not in capsys.readouterr().out


def test_what_studies_share_stands_in_each_of_them(tmp_path):
    """Two studies share `none` and `vat`, and call different arms by one name: each keeps its plain arm."""
    make_study(tmp_path, "a", num_bags=(50,), bag_sizes=(10,), methods=("none", "vat"))
    make_study(tmp_path, "c", num_bags=(50,), bag_sizes=(10,), methods=("none", "adv", "vat"))
    for name, labels in (("a", {"vat": "X"}), ("c", {"adv": "X"})):
        folder = StudyFolder(LocalStorage(tmp_path), name)
        folder.write("d\n", {"space": {"description": "d", "labels": labels}}, folder.plan())
    rows = analysis.load(["a", "c"], tmp_path)
    assert rows.groupby("config_id")["study"].nunique().max() == 2
    made = table(rows)
    found = heads(made)
    for wanted in ("none (study=a)", "none (study=c)", "X (study=a)", "vat (study=c)", "X (study=c)",
                   "X (study=a) − none (study=a)", "vat (study=c) − none (study=c)",
                   "X (study=c) − none (study=c)"):  # fmt: skip
        assert found.count(wanted) == 1, found
    assert "Not compared" not in compare(rows, {"method": "none"}).text()
    alone = {d.row.value: [*d.by_column.values()] for one in ("a", "c")
             for d in table(analysis.load(one, tmp_path)).all_differences}  # fmt: skip
    assert all([*d.by_column.values()] == alone[d.row.value] for d in made.all_differences)


def test_students_are_paired_within_their_study(tmp_path):
    make_distillation(tmp_path, "one", num_bags=(50,), references=())
    make_distillation(tmp_path, "two", num_bags=(50,), references=())
    rows = analysis.load(["one", "two"], tmp_path)
    made = arrange(rows, by_study=True)
    controls = StudentControls(made)
    students = [(key, cell) for key, cell in made.cells.items() if cell.origin.stage == "student"]
    assert {key[1].study for key, _ in students} == {"one", "two"}
    for key, cell in students:
        assert controls.key_of(controls.teacher(cell))[1].study == key[1].study


def test_pooled_rows_say_their_study_too(tmp_path):
    make_folds(tmp_path, "f", repeats=2, tiles=True)
    make_folds(tmp_path, "g", partition="given split", folds=5, repeats=1, data="another", tiles=True)
    rows = analysis.load(["f", "g"], tmp_path)
    made = table(rows, ["bag_auc"], column_key=METRICS, pooled=pooled_rows(rows))
    assert {row.study for row in made.pooled.rows} == {"f"} and made.layout.by_study


def test_a_metric_that_all_studies_leave_empty_is_there_as_in_one(root):
    rows = analysis.load("S", root)
    rows["instance_auc"] = float("nan")
    empty = analysis.load([export(rows, root / f"empty_{i}.parquet") for i in range(2)])
    assert empty["instance_auc"].isna().all()
    assert arrange(empty, "instance_auc", column_key=METRICS).metric.name == "instance_auc"
