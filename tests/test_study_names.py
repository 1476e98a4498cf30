"""What a study may be called: whatever is accepted works in everything that is done with it later."""

from __future__ import annotations

import csv
import itertools
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from empty_store import empty_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_study import make_study
from rights import without_override

import analysis
from analysis.cli import main as analyse
from analysis.rows.exported_files import export
from d2l_study import study_names
from d2l_study.cli import main
from d2l_study.errors import UserError
from d2l_study.study.commands.sync import sync_mlflow
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.studies import find_study, list_studies
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study_names import arm_name_problem, check_study_name, study_name_problem

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""With what a cell begins that a spreadsheet computes."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A root with one small study and an MLflow store, to be copied."""
    root = tmp_path_factory.mktemp("made")
    make_study(root, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=2, with_predictions=True)
    shutil.copy(empty_store(tmp_path_factory), root / "mlflow.db")
    return root


@pytest.fixture(scope="module")
def rows(made):
    return analysis.load("made", made)


def renamed(made: Path, root: Path, name: str) -> StudyFolder:
    """The study under another name, under a new root."""
    shutil.copytree(made, root)
    (root / "studies" / "made").rename(root / "studies" / name)
    return StudyFolder(LocalStorage(root), name)


LETTERS = st.one_of(
    st.sampled_from(study_names.SIGNS + " "),
    st.characters(codec="utf-8"),
    st.sampled_from("aZ09éöß漢字أबि'\"#%?:/\\;`"),
)


COUNT = itertools.count()


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.text(LETTERS, min_size=1, max_size=12).filter(lambda name: study_name_problem(name) is None))
def test_an_accepted_name_works_in_files_and_tables(rows, tmp_path, name):
    folder = StudyFolder(LocalStorage(tmp_path / f"root{next(COUNT)}"), name)
    folder.write("", {}, [])
    assert list_studies(folder.storage) == [name] and find_study(name, str(folder.storage.root)).name == name
    out = tmp_path / "rows.csv"
    export(rows.assign(study=name), out)
    assert analysis.load(out)["study"].unique().tolist() == [name]
    with out.open(newline="") as file:
        assert not any(row["study"].startswith(FORMULAS) for row in csv.DictReader(file))


@pytest.mark.parametrize("name", [f"a {study_names.SIGNS} b", "a" * 100, "漢" * 22], ids=["signs", "long", "wide"])
def test_an_accepted_name_works_in_mlflow(made, tmp_path, name):
    folder = renamed(made, tmp_path / "root", name)
    uri = f"sqlite:///{folder.storage.root}/mlflow.db"
    assert sync_mlflow(folder, uri).created == 1 and sync_mlflow(folder, uri).unchanged == 1
    found = analysis.load(f"mlflow:{uri}#{name}")
    assert found["study"].unique().tolist() == [name] and len(found) == 2


@pytest.mark.parametrize("name", ["a" * 100, "é" * 33, "Ω" * 33, "漢" * 22, "𝔸" * 16])
def test_the_longest_names_fit_in_the_names_of_files_and_no_longer_ones_are_taken(tmp_path, name):
    storage = LocalStorage(tmp_path)
    storage.put(f"results/00/checkpoint-{name}.pt", b"")
    (tmp_path / quote(name, safe="")).mkdir()  # as MLflow's folder of artifacts is called
    assert study_name_problem(name) is None and study_name_problem(name + name[0]) is not None


REFUSED = [
    ("", "empty"), ("  ", "empty"), ("a/b", "'/'"), ("..", "begins with '.'"), (".x", "begins with '.'"),
    ("o'brien", "\"'\""), ("é" * 50, "300 letters"), ("x.csv", "'.csv'"), ("X.Parquet", "'.parquet'"),
    ("x.part", "'.part'"), ("mlflow:x#y", "':'"), ("a#b", "'#'"), ("=1+1", "begins with '='"), ("+x", "begins"),
    ("-x", "begins with '-'"), ("--", "begins with '-'"), ("@x", "begins with '@'"), ("a\nb", "invisible"),
    ("a\u200bb", "invisible"), ("a  b", "spaces"), (" a", "begins with ' '"), ("a ", "spaces"),
    ("Default", "MLflow's own"), ("a" * 101, "101 letters"), ("e\u0301", "in parts"), ("a\udcff", "invisible"),
    ("x.", "'.'"), ("`x`", "'`'"), ('a"b', "'\"'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "told"), REFUSED)
def test_a_name_that_would_not_work_later_is_refused_with_the_reason(name, told):
    with pytest.raises(UserError) as caught:
        check_study_name(name)
    assert told in str(caught.value) and "expected letters" in str(caught.value) and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 330


@pytest.mark.parametrize("name", ["--", "x.csv", "o'brien", "a" * 300, "~nobody-here"])
@pytest.mark.parametrize("command", ["plan", "status", "stop", "sync", "tables", "report"])
def test_no_command_has_a_traceback_for_a_name(command, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command == "plan":
        code = main(["plan", "--space", "smoke", f"--study={name}"])
    else:
        code = (analyse if command in ("tables", "report") else main)([command, "--", name])
    said = capsys.readouterr().err
    assert code == 2 and said.startswith("error: ") and said.count("\n") == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["o'brien", "x.csv", "a\"'b", "mlflow#y", "=1+1"])
def test_a_study_that_has_such_a_name_already_is_read_and_goes_on(made, tmp_path, name, capsys):
    folder = renamed(made, tmp_path / "root", name)
    root = str(folder.storage.root)
    for words in (["status", name], ["sync", name], ["list"]):
        assert main([*words, "--root", root]) == 0
    assert name in capsys.readouterr().out
    for words in (["tables", name], ["tables", f"{root}/studies/{name}"], ["tables", name, "--format", "csv"]):
        assert analyse([*words, "--root", root]) == 0
    assert len(analysis.load_predictions(name, root, level="bag")) > 0
    # Its space is another one than smoke: the name itself is no reason any more.
    assert main(["plan", "--space", "smoke", "--study", name, "--root", root]) == 2
    assert "is not allowed" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["none", "vat-0.5+x", "_x", "8", "a" * 60])
def test_arms_that_may_be(name):
    assert arm_name_problem(name) is None


@pytest.mark.parametrize("name", ["", "a" * 61, "+1", "-x", "=x", ".x", "a b", "é", "a/b"])
def test_arms_that_a_file_or_a_spreadsheet_would_take_for_something_else(name, tmp_path, capsys):
    assert arm_name_problem(name) is not None
    space = tmp_path / "space.yaml"
    space.write_text(f"description: x\nmethods:\n  none: {{}}\n  '{name}': {{teacher: {{lambda_adv: 1}}}}\n")
    assert main(["plan", "--space", str(space)]) == 2
    assert "not a method's name" in capsys.readouterr().err


def test_ids_and_names_of_an_exported_csv_stay_texts(tmp_path):
    rows = make_study(tmp_path, methods=("None", "007"), num_bags=(50,), bag_sizes=(10,), replicates=1).rows()
    rows["study"], rows["config_id"], rows["trial_id"] = "1e5", ["1" * 20, "12e45"], ["1234567890", "12e45"]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    read = analysis.load(tmp_path / "rows.csv")
    for column in ("study", "config_id", "trial_id", "method"):
        assert read[column].tolist() == rows[column].tolist(), column
    assert read["teacher_id"].isna().all()


@pytest.mark.parametrize("column", ["bag_auc", "replicate", "when"])
def test_dates_beyond_what_python_knows_are_refused_by_column(tmp_path, column, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = make_study(tmp_path, num_bags=(50,), replicates=2).rows()
    rows["when"] = 0
    table = pa.Table.from_pandas(rows)
    dates = pa.array([2**62] * len(rows), pa.timestamp("us"))
    pq.write_table(table.set_column(table.column_names.index(column), column, dates), tmp_path / "x.parquet")
    assert analyse(["tables", str(tmp_path / "x.parquet")]) == 2
    assert f"column {column}: found timestamp[us], expected numbers or texts" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["list"], ["status", "made"], ["plan", "--space", "smoke"], ["tables", "made"]])
@pytest.mark.parametrize("inner", ["", "studies"])
def test_a_root_without_the_right_to_read_is_a_line(tmp_path, words, inner, capsys):
    root = tmp_path / "closed"
    make_study(root, num_bags=(50,), replicates=1)
    (root / inner).chmod(0)
    with without_override():
        code = (analyse if words[0] == "tables" else main)([*words, "--root", str(root)])
    (root / inner).chmod(0o755)
    said = capsys.readouterr().err
    assert code in (1, 2) and "Permission denied" in said and said.count("\n") == 1


@pytest.mark.parametrize("command", [main, analyse])
def test_what_the_system_refuses_unforeseen_is_a_line(command, monkeypatch, capsys, tmp_path):
    make_study(tmp_path, num_bags=(50,), replicates=1)

    def broken(*words, **more):
        raise OSError(5, "Input/output error", "/disk/file")

    monkeypatch.setattr("d2l_study.study.ledger.study_folder.StudyFolder.plan", broken)
    words = ["status", "made"] if command is main else ["tables", "made"]
    assert command([*words, "--root", str(tmp_path)]) in (1, 2)
    said = capsys.readouterr().err
    assert said.startswith("error: /disk/file: Input/output error") and said.count("\n") == 1
