"""A root that version 1 wrote (three small studies, in `version_1_root/`) is read, tabulated and gone on with.

The studies: `teachers`, one trial of which is still to be run; `students`, whole; `search`, with two of four trials to
ask. The tables beside it are what version 1 printed of them.
"""

import csv
import io
import math
import zipfile
from pathlib import Path

import pytest
from few_digits import digits
from whole_root import command, without_ray

import analysis
from analysis.cli import main as analysis_main
from analysis.statistics.intervals import WIDEST
from d2l_study import cli
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.search.restore_configurations import read_config
from d2l_study.study.space.keys import section_class

HERE = Path(__file__).parent / "version_1_root"


@pytest.fixture
def root(tmp_path):
    with zipfile.ZipFile(HERE / "root.zip") as archive:
        archive.extractall(tmp_path / "root")
    return tmp_path / "root"


def numbers(text):
    """The cells of a table: (row label, kind) -> its numbers."""
    rows = csv.DictReader(io.StringIO(text))
    names = ("mean", "lower", "upper", "count", "planned")
    return {(r["row"], r["kind"]): [float(r[n]) if r[n] else math.nan for n in names] for r in rows}


def table(study, root):
    command = ["tables", study, "--root", str(root), "--metric", "bag_auc", "--format", "csv"]
    assert analysis_main(command) == 0


def as_shown_since(cell, values):
    """The numbers of a cell of version 1: since then, without the bounds of an interval that says nothing."""
    mean, lower, upper, *counts = values
    too_wide = upper - lower > WIDEST * (1 if cell[1] == "value" else 2)
    return [mean, math.nan, math.nan, *counts] if too_wide or lower == upper else values


@pytest.mark.parametrize("study", ["teachers", "students", "search"])
def test_its_tables_are_what_version_1_printed(root, study, capsys):
    table(study, root)
    said = capsys.readouterr()
    assert not said.err
    now, then = numbers(said.out), numbers((HERE / f"{study}.csv").read_text())
    assert now.keys() == then.keys()
    for cell, values in then.items():
        assert now[cell] == pytest.approx(as_shown_since(cell, values), nan_ok=True), cell


def test_a_study_of_it_goes_on_with_what_is_missing_and_trains_nothing_again(root, tmp_path, capsys):
    """Its data are those that version 1 had: the first 400 test digits."""
    space = tmp_path / "teachers.yaml"
    space.write_bytes((root / "studies" / "teachers" / "space.yaml").read_bytes())
    before = {path: path.read_bytes() for path in root.glob("results/**/*") if path.is_file()}
    with without_ray():
        said = command(cli.main, "run", "--space", space, "--root", root, "--set", f"data.root={digits()}")
    assert said.code == 0, said.text
    assert "damaged" not in said.err and "Traceback" not in said.err

    assert {path: path.read_bytes() for path in before} == before
    new = {path.parent for path in root.glob("results/**/commit.json")} - {path.parent for path in before}
    folder = StudyFolder(LocalStorage(root), "teachers")
    (entry,) = [entry for entry in folder.plan() if entry["label"] == "vat epsilon=2"]
    assert new == {root / folder.ledger.run_key(entry["config_id"], r) for r in range(3)}
    rows = folder.rows()
    assert set(rows["status"]) == {"done"} and len(rows) == 9

    table("teachers", root)
    now, then = numbers(capsys.readouterr().out), numbers((HERE / "teachers.csv").read_text())
    there = {cell: values for cell, values in then.items() if "epsilon=2" not in cell[0]}
    assert len(there) >= 2 and now.keys() >= then.keys()
    for cell, values in there.items():
        assert now[cell] == pytest.approx(as_shown_since(cell, values), nan_ok=True), cell
    assert now["vat (epsilon=2)", "value"][3:] == [3, 3]


def test_its_studies_are_listed_with_how_far_they_are(root, capsys):
    assert cli.main(["list", "--root", str(root)]) == 0
    said = capsys.readouterr()
    assert not said.err
    counts = {line.split()[0]: line.split()[1:4] for line in said.out.splitlines()}
    assert counts == {"search": ["4", "of", "4"], "students": ["8", "of", "8"], "teachers": ["6", "of", "9"]}
    assert cli.main(["status", "search", "--root", str(root)]) == 0
    assert "2 trials still to ask for" in capsys.readouterr().out


def test_its_runs_are_found_with_their_files_and_weights(root):
    folder = StudyFolder(LocalStorage(root), "students")
    teacher = next(entry["config_id"] for entry in folder.plan() if entry["stage"] == "teacher")
    for replicate in (0, 1):
        assert folder.ledger.has_weights(teacher, replicate)
        assert len(folder.ledger.read_file(teacher, replicate, WEIGHTS)) == 130_612
    assert set(analysis.load("students", root)["status"]) == {"done"}
    assert len(analysis.load_predictions("students", root))
    folder.compact()
    assert folder.rows().equals(StudyFolder(folder.storage, "students").rows())


@pytest.mark.parametrize("study", ["teachers", "students", "search"])
def test_what_its_ids_stand_for_is_made_again_from_the_space_and_from_no_data(root, study):
    folder = StudyFolder(LocalStorage(root), study)
    ids = [
        entry["config_id"] for entry in folder.plan() if any(row["status"] == "done" for row in folder.rows_of(entry))
    ]
    before = {identity: folder.ledger.read_config(identity) for identity in ids}
    for identity in ids:
        folder.storage.delete(f"{folder.ledger.config_key(identity)}/config.json")
    for identity in ids:
        found = read_config(folder, identity)
        assert found == folder.ledger.read_config(identity)
        assert checked(found["sections"]) == checked(before[identity]["sections"])
        assert {k: v for k, v in found.items() if k not in ("study", "sections")} == {
            k: v for k, v in before[identity].items() if k not in ("study", "sections")
        }


def checked(sections):
    """The sections as their classes: a key that has been added since then stands at its default, which does nothing."""
    return {name: section_class(name, values.get("dataset"))(**values) for name, values in sections.items()}
