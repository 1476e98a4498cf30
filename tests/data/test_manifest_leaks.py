"""What would let the same patient or image be trained and tested on is used or refused, whatever it is called."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_manifest import SIDE, folder, load, message, pixels, points, write  # noqa: F401

from d2l_study.data.manifest_columns import find_columns


def renamed(rows, **names):
    return [{names.get(key, key): value for key, value in row.items()} for row in rows]


def of_two(values):
    """Two bags (four rows) to a value."""
    return {n: values[(n - 2) // 4] for n in range(2, 22)}


PATIENTS = of_two(["p0", "p1", "p2", "p3", "p4"])


@pytest.mark.parametrize(
    "name", ["patient", "Patient ID", "PATIENT", "case_id", "case_submitter_id", "subject-no", "slide"]
)
def test_a_column_by_another_name_is_the_group(folder, name):  # noqa: F811
    expected = load(write(folder, points(group=PATIENTS)))
    found = load(write(folder, renamed(points(group=PATIENTS), group=name)))
    assert np.array_equal(found.group, expected.group) and found.group_names == ("p0", "p1", "p2", "p3", "p4")
    assert f"column {name} is taken as group" in found.notes


def test_every_needed_column_has_other_names(folder):  # noqa: F811
    split = {n: str((n - 2) // 2 % 3) for n in range(2, 22)}
    expected = load(write(folder, points(split=split)))
    names = {
        "bag": "slide_id",
        "label": "target",
        "path": "file_name",
        "x": "X_center",
        "y": "y center",
        "split": "Fold",
    }
    found = load(write(folder, renamed(points(split=split), **names)))
    assert np.array_equal(found.instances, expected.instances) and np.array_equal(found.fold, expected.fold)
    assert [note for note in found.notes if "taken as" in note] == [
        f"column {given} is taken as {name}" for name, given in names.items() if name not in ("x", "y", "split")
    ] + ["column Fold is taken as split", "column X_center is taken as x", "column y center is taken as y"]
    found = message(write(folder, renamed(points(label={3: "yes"}), label="class")))
    assert "row 3, column class (taken as label): 'yes' is not allowed" in found


def test_a_finer_column_must_not_cross_the_groups(folder):  # noqa: F811
    rows = points(group=PATIENTS, slide={n: f"s{(n - 2) // 2}" for n in range(2, 22)})
    assert "checked not to cross groups: slide" in load(write(folder, rows)).notes
    for row in rows[4:]:
        row["slide"] = "s0" if row["bag"] == "b4" else row["slide"]
    assert message(write(folder, rows)).endswith(
        "row 10, column slide: 's0' is in group 'p2' and in group 'p0' (row 2), so that it may be both trained and "
        "tested on; give them the same group, or rename the column, as in old_slide, if it does not say what belongs "
        "together"
    )
    load(write(folder, renamed(rows, slide="old_slide")))
    for row in rows:
        row["slide"] = ""  # nothing is said
    load(write(folder, rows))


def test_a_group_that_a_patient_is_in_two_of_is_refused(folder):  # noqa: F811
    rows = points(group={n: f"g{(n - 2) // 2}" for n in range(2, 22)}, patient=PATIENTS)
    found = message(write(folder, rows))
    assert "5 problems" in found and "row 4, column patient: 'p0' is in group 'g1' and in group 'g0' (row 2)" in found


@pytest.mark.parametrize("name", ["MRN", "pat_id", "PID", "animal", "mouse_id", "hospital_number", "accession"])
def test_other_names_of_patients_are_groups(folder, name):  # noqa: F811
    pool = load(write(folder, renamed(points(patient=PATIENTS), patient=name)))
    assert len(np.unique(pool.group)) < 10 and f"column {name} is taken as group" in pool.notes


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_ignored_column_that_may_name_patients_is_said(folder, form):  # noqa: F811
    rows = points(chart={n: f"c{(n - 2) // 4}" for n in range(2, 22)})
    for n, row in enumerate(rows):  # one for all bags, another in each row, one of each bag, one of two values
        row |= {"stain": "H&E", "nucleus": str(n), "serial": row["bag"], "sex": "fm"[n // 2 % 2]}
    path = write(folder, rows)
    if form == "parquet":
        frame = pd.read_csv(path)
        frame["area"] = 0.5
        frame.to_parquet(path := str(folder / "own.parquet"))
    said = "column chart is the same for several bags: if it names patients, call it group"
    assert load(path).notes[1:] == (said,)
    for row in rows:
        row["group"] = row["bag"]
    assert said not in load(write(folder, rows)).notes  # the group is named


def test_bags_without_a_patient_are_counted(folder):  # noqa: F811
    rows = points(patient=dict.fromkeys(range(2, 14), "p0"))
    assert "4 bags have no patient: each is taken for a group of its own" in load(write(folder, rows)).notes


@pytest.mark.parametrize("names", [("p1", "P1"), ("1", "1.0"), ("7", "007"), ("a b", "a  b")])
def test_patients_that_are_written_nearly_alike_are_named(names, folder):  # noqa: F811
    said = f"column patient: {names[0]!r} and {names[1]!r} differ in case, blanks or zeros only, and are taken for"
    rows = points(patient=of_two([*names, "q", "r", "s"]))
    assert any(note.startswith(said) for note in load(write(folder, rows)).notes)
    rows = points(patient=of_two([names[0], "10", "70", "1.5", "ab"]))
    assert not any("differ in case" in note for note in load(write(folder, rows)).notes)


def test_patients_that_are_not_known_are_not_one_without_a_word(folder):  # noqa: F811
    said = "column patient: all rows with 'NA' are taken for one patient: where it is not known, leave the cell empty"
    assert said in load(write(folder, points(patient=of_two(["p0", "p1", "NA", "NA", "p2"])))).notes
    assert said not in load(write(folder, points(patient=PATIENTS))).notes


def test_bags_of_one_patient_by_the_names_of_tcga_are_named(folder):  # noqa: F811
    slides = [f"TCGA-A2-A0T{i // 2}-01Z-00-DX{i % 2}" for i in range(10)]
    rows = points(bag={n: slides[(n - 2) // 2] for n in range(2, 22)})
    said = "by their names several bags are of one patient: TCGA-A2-A0T0, TCGA-A2-A0T1, TCGA-A2-A0T2, … (5 in all); "
    assert any(note.startswith(said) for note in load(write(folder, rows)).notes)
    for row in rows:
        row["patient"] = row["bag"][:12]
    assert not any("by their names" in note for note in load(write(folder, rows)).notes)


def test_a_column_of_cross_validation_is_the_split(folder):  # noqa: F811
    rows = points(cv={n: str((n - 2) // 2 % 3) for n in range(2, 22)})
    assert load(write(folder, rows)).fold.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]


def test_columns_that_are_left_alone_are_listed(folder):  # noqa: F811
    rows = points(stain={2: "H&E"}, scanner={3: "x"})
    assert load(write(folder, rows)).notes == ("columns left alone: stain, scanner",)
    assert load(write(folder, points())).notes == ()
    columns, wrong = find_columns(["bag", "label", "path", *(f"f{i:04}" for i in range(20_000))])
    assert columns.notes[0].endswith("… (20000 in all)") and not wrong


def test_an_image_is_told_by_its_content_not_by_its_path(folder):  # noqa: F811
    images = folder / "images"
    (images / "sub").mkdir()
    shutil.copy(images / "0.png", images / "copy.png")
    (images / "link.png").symlink_to(images / "0.png")
    os.link(images / "0.png", images / "hard.png")
    for other in ("images/copy.png", "images/link.png", "images/hard.png", "images/sub/../0.png"):
        found = message(write(folder, points(path=dict.fromkeys((4, 5), other))))
        assert f"row 4, column path: {other.rsplit('/', 1)[-1]} is in bag 'b1' and in bag 'b0' (row 2)" in found
        assert "have the same content); give both bags the same group" in found
        group = {n: "p" if n < 6 else "" for n in range(2, 22)}
        load(write(folder, points(path=dict.fromkeys((4, 5), other), group=group)))
        found = message(write(folder, points(path={3: other}, x={3: "10"})))
        assert "row 3: the same point of the same image as row 2 (" in found and "have the same content" in found


def test_patches_of_glass_may_be_alike(folder):  # noqa: F811
    rows = [{k: row[k] for k in ("bag", "label", "path")} for row in points()[::2]]
    for i in (1, 2, 3):
        Image.fromarray(np.full((SIDE, SIDE, 3), 240, np.uint8)).save(folder / "images" / f"{i}.png")
    assert len(load(write(folder, rows)).bags) == 10
    Image.fromarray(pixels(folder, 4)).save(folder / "images" / "3.png")
    Image.fromarray(pixels(folder, 4)).save(folder / "images" / "4.png")
    assert "row 6, column path: 4.png is in bag 'b4' and in bag 'b3' (row 5)" in message(write(folder, rows))
