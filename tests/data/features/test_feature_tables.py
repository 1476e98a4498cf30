"""Tables of slides as the field writes them: names of columns, labels, patients, tables that are joined, formats."""

import re
import zipfile

import feature_files as files
import h5py
import numpy as np
import pandas as pd
import pytest
from openpyxl import Workbook

from d2l_study.data import FeatureBags
from d2l_study.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def slides(tmp_path):
    """Ten slides in TRIDENT's layout in `features`, two of them of each patient."""
    found = files.cohort()
    for slide, _ in found:
        files.trident(tmp_path / "features", slide)
    return found


def write(path, rows):
    """A table of these rows, in the format of its name."""
    header, *values = [row.split(",") for row in rows]
    if path.suffix == ".xlsx":
        book = Workbook()
        for row in (header, *values):
            book.active.append([int(v) if v.isdecimal() else v for v in row])
        book.save(path)
    elif path.suffix == ".parquet":
        pd.DataFrame(values, columns=header).to_parquet(path)
    else:
        mark = "\t" if path.suffix == ".tsv" else ","
        path.write_text("".join(mark.join(row) + "\n" for row in (header, *values)))
    return path


def load(path, **keys):
    return FeatureBags(path=str(path), **keys).load_pool()


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.xlsx", "t.parquet"])
def test_every_format_of_a_table_gives_the_same_bags(name, slides, tmp_path):
    rows = ["case_id,slide_id,label", *(f"p{i // 2},{slide.name},{label}" for i, (slide, label) in enumerate(slides))]
    pool = load(write(tmp_path / name, rows))
    assert pool.names == tuple(slide.name for slide, _ in slides)
    assert [pool.group_names[g] for g in pool.group] == [f"p{i // 2}" for i in range(10)]
    assert pool.bags.label.tolist() == [i % 2 for i in range(10)]


@pytest.mark.parametrize("columns", ["case_id,slide_id", "PATIENT,FILENAME", "patient_id,slide_id", "Patient,WSI",
                                     "group,bag", "subject,slide"])  # fmt: skip
@pytest.mark.parametrize("ending", ["", ".h5", ".svs"])
def test_columns_by_the_names_of_the_tools_and_slides_with_or_without_ending(columns, ending, slides, tmp_path):
    rows = [f"{columns},label", *(f"p{i // 2},{slide.name}{ending},{label}" for i, (slide, label) in enumerate(slides))]
    pool = load(write(tmp_path / "t.csv", rows))
    assert len(set(pool.group.tolist())) == 5 and pool.bags.label.tolist() == [i % 2 for i in range(10)]
    assert pool.bags.sizes.tolist() == [len(slide.vectors) for slide, _ in slides]


def test_names_with_dots_as_those_of_tcga(tmp_path):
    names = [f"TCGA-3C-{i}-01Z-00-DX1.F6E9A5DF-D8FB-45CF" for i in range(6)]
    slides = [(files.make_slide(name, 4), i % 2) for i, name in enumerate(names)]
    for slide, _ in slides:
        files.clam_pt(tmp_path / "pt_files", slide)
    pool = load(files.table(tmp_path / "t.csv", slides))
    assert pool.names == tuple(names)


@pytest.mark.parametrize("labels, positive", [("normal tumor", "tumor"), ("MSS MSIH", "MSIH"), ("2 1", "2")])
def test_names_of_classes_and_which_is_positive(labels, positive, slides, tmp_path):
    named = labels.split()
    rows = ["slide_id,kind,label", *(f"{slide.name},{named[label]},7" for slide, label in slides)]
    pool = load(write(tmp_path / "t.csv", rows), label_column="kind", positive=positive)
    assert pool.bags.label.tolist() == [int(named[label] == positive) for _, label in slides]
    assert any(f"{positive} is positive" in note for note in pool.notes)


def test_one_class_against_several_others(slides, tmp_path):
    rows = ["slide_id,label", *(f"{slide.name},{'ABC'[i % 3]}" for i, (slide, _) in enumerate(slides))]
    pool = load(write(tmp_path / "t.csv", rows), positive="B")
    assert pool.bags.label.tolist() == [int(i % 3 == 1) for i in range(10)]
    assert any("A, C are negative" in note for note in pool.notes)


@pytest.mark.parametrize("labels, keys, expected", [
    (["normal", "tumor"], {}, "the labels are 'normal' and 'tumor'; say which is the positive class"),
    (["a", "b", "c"], {}, "3 labels: a, b, c; expected 0 and 1, or two names"),
    (["0", "1", "2"], {}, "3 labels: 0, 1, 2; expected 0 and 1"),
    (["normal", "tumor"], {"positive": "tumour"}, "no bag has the label 'tumour' (data.positive); did you mean"),
    (["0", "1"], {"label_column": "lable"}, "no column lable; did you mean 'label'?"),
    (["normal", "tumor"], {"positive": "Tumor"}, "(data.positive); case matters: did you mean 'tumor'?"),
    (["0", "1"], {"label_column": "lable"}, "); data.label_column names it"),
])  # fmt: skip
def test_labels_that_say_no_two_classes(labels, keys, expected, slides, tmp_path):
    rows = ["slide_id,label", *(f"{slide.name},{labels[i % len(labels)]}" for i, (slide, _) in enumerate(slides))]
    with pytest.raises(UserError) as caught:
        load(write(tmp_path / "t.csv", rows), **keys)
    assert expected in str(caught.value)


def test_a_patient_is_a_bag_of_all_its_slides(slides, tmp_path):
    label = {"p0": 0, "p1": 1, "p2": 1, "p3": 0, "p4": 1}
    rows = ["case_id,slide_id,label"]
    for i, (slide, _) in enumerate(slides):
        rows.append(f"p{i % 5},{slide.name},{label[f'p{i % 5}']}")
    pool = load(write(tmp_path / "t.csv", rows), bag="patient")
    assert dict(zip(pool.names, pool.bags.label.tolist(), strict=True)) == label
    for b in range(5):
        mine = slice(pool.bags.offsets[b], pool.bags.offsets[b + 1])
        first, second = slides[b][0], slides[b + 5][0]
        both = np.concatenate([first.vectors, second.vectors])
        assert np.array_equal(pool.instances[pool.bags.instance[mine]], both)
        assert [pool.slides[s] for s in pool.image[mine]] == [first.name] * len(first.vectors) + [second.name] * len(
            second.vectors
        )
        assert np.array_equal(pool.xy[mine], np.concatenate([first.coords, second.coords]))


@pytest.mark.parametrize("rows, expected", [
    (["case_id,slide_id,label", "p0,s0,0", "p0,s1,1", "p1,s2,1"], "bag 'p0' has 1 here and 0 in row 2"),
    (["slide_id,label", "s0,0", "s1,1"], "no column that names patients"),
    (["case_id,slide_id,label", ",s0,0", "p0,s1,1"], "row 2, column case_id (taken as group): empty"),
])  # fmt: skip
def test_patients_that_cannot_be_bags(rows, expected, slides, tmp_path):
    with pytest.raises(UserError) as caught:
        load(write(tmp_path / "t.csv", rows), bag="patient")
    assert expected in str(caught.value)


def test_the_labels_of_a_clinical_table_are_joined_by_patient(slides, tmp_path):
    """As STAMP has it: PATIENT and FILENAME in one table, PATIENT and the label in another."""
    write(tmp_path / "slides.csv", ["PATIENT,FILENAME", *(f"p{i % 5},{s.name}.h5" for i, (s, _) in enumerate(slides))])
    write(tmp_path / "clinical.xlsx", ["PATIENT,AGE,isMSIH", *(f"p{i},6{i},{('no', 'yes')[i % 2]}" for i in range(6))])
    keys = {"label_table": str(tmp_path / "clinical.xlsx"), "label_column": "isMSIH", "positive": "yes"}
    pool = load(tmp_path / "slides.csv", **keys)
    assert pool.bags.label.tolist() == [0, 1, 0, 1, 0] * 2
    assert any("1 of clinical.xlsx is in no row of the slides: p5" in note for note in pool.notes)
    assert load(tmp_path / "slides.csv", bag="patient", **keys).bags.label.tolist() == [0, 1, 0, 1, 0]
    write(tmp_path / "clinical.xlsx", ["PATIENT,isMSIH", *(f"p{i},{('no', 'yes')[i % 2]}" for i in range(4))])
    with pytest.raises(UserError, match=r"column patient: 'p4' has no label in clinical.xlsx.*and so in 1 more row"):
        load(tmp_path / "slides.csv", **keys)


def test_the_table_may_lie_in_the_folder_or_be_named_beside_it(slides, tmp_path):
    table = files.table(tmp_path / "elsewhere.csv", slides)
    alone = load(table)
    assert load(tmp_path).checksum == alone.checksum
    table.rename(tmp_path / "features" / "labels.csv")
    assert load(tmp_path / "features").checksum == alone.checksum
    moved = (tmp_path / "features" / "labels.csv").rename(tmp_path.parent / f"{tmp_path.name}.csv")
    assert load(tmp_path, label_table=str(moved)).checksum == alone.checksum
    assert load(moved, root=str(tmp_path)).checksum == alone.checksum
    with pytest.raises(UserError, match="no table with slides and labels in it"):
        load(tmp_path)


def test_clams_two_folders_of_the_same_slides_are_no_question(tmp_path):
    slides = files.cohort()
    for slide, _ in slides:
        files.clam_h5(tmp_path / "h5_files", slide)
        files.clam_pt(tmp_path / "pt_files", slide)
    pool = load(files.table(tmp_path / "t.csv", slides))
    assert pool.files[0].parent.name == "h5_files" and np.isfinite(pool.xy).all()


def test_several_folders_of_features_are_listed(slides, tmp_path):
    for slide, _ in slides:
        files.trident(tmp_path / "20x_256px_0px_overlap" / "features_conch", slide)
    table = files.table(tmp_path / "t.csv", slides)
    with pytest.raises(UserError) as caught:
        load(table)
    text = str(caught.value)
    assert "name one of them as data.root" in text and "features_conch (10 files)" in text
    assert load(table, root=str(tmp_path / "features")).extractor == "uni_v1"


def test_a_column_of_paths_and_one_of_files_with_labels_of_instances(slides, tmp_path):
    (tmp_path / "truth").mkdir()
    rows = ["slide_id,label,path,patch_labels"]
    for slide, label in slides:
        np.save(tmp_path / "truth" / f"{slide.name}.npy", slide.truth)
        rows.append(f"name of {slide.name},{label},features/{slide.name}.h5,truth/{slide.name}.npy")
    rows[2] = rows[2].replace("/", "\\")  # written on Windows
    pool = load(write(tmp_path / "t.csv", rows), root=str(tmp_path))
    assert pool.names[3] == "name of s3"
    assert np.array_equal(pool.bags.instance_label, np.concatenate([slide.truth for slide, _ in slides]))


def test_labels_of_some_slides_instances_in_a_folder_of_their_own(slides, tmp_path):
    for folder in ("patch_labels", "other"):
        (tmp_path / folder).mkdir()
    for i, (slide, _) in enumerate(slides):
        np.save(tmp_path / "patch_labels" / f"{slide.name}.npy", slide.truth)
        if i % 2:
            np.save(tmp_path / "other" / f"{slide.name}.npy", slide.truth.astype(float))
    table = files.table(tmp_path / "t.csv", slides)
    known = np.concatenate([slide.truth for slide, _ in slides])
    assert np.array_equal(load(table).bags.instance_label, known)
    some = load(table, truth="other")
    odd = some.bags.bag_of % 2 == 1
    assert np.array_equal(some.bags.instance_label, np.where(odd, known, -1))
    assert some.checksum != load(table).checksum


def test_labels_inside_the_files_count_where_a_slide_has_none_of_its_own(slides, tmp_path):
    table = files.table(tmp_path / "t.csv", slides)
    for slide, _ in slides:
        with h5py.File(tmp_path / "features" / f"{slide.name}.h5", "a") as file:
            file["patch_labels"] = slide.truth
    known = np.concatenate([slide.truth for slide, _ in slides])
    inside = load(table)
    assert np.array_equal(inside.bags.instance_label, known)
    (tmp_path / "patch_labels").mkdir()
    np.save(tmp_path / "patch_labels" / "s1.npy", slides[1][0].truth)
    assert load(table).checksum == inside.checksum
    np.save(tmp_path / "patch_labels" / "s1.npy", 1 - slides[1][0].truth)
    pool = load(table)
    changed = pool.bags.bag_of == 1
    assert np.array_equal(pool.bags.instance_label, np.where(changed, 1 - known, known))
    # A column of the table goes before the folder, and the folder before what is inside.
    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own" / "s3.npy", 1 - slides[3][0].truth)
    rows = [f"{slide.name},{label},{'own/s3.npy' if slide.name == 's3' else ''}" for slide, label in slides]
    pool = load(write(tmp_path / "t.csv", ["slide_id,label,patch_labels", *rows]))
    changed = np.isin(pool.bags.bag_of, (1, 3))
    assert np.array_equal(pool.bags.instance_label, np.where(changed, 1 - known, known))
    # A folder that the user names is alone what counts.
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "s1.npy", slides[1][0].truth)
    pool = load(files.table(tmp_path / "t.csv", slides), truth="other")
    assert np.array_equal(pool.bags.instance_label, np.where(pool.bags.bag_of == 1, known, -1))


def test_checksums_follow_the_content_and_nothing_else(slides, tmp_path):
    table = files.table(tmp_path / "t.csv", slides)
    first = load(table)
    other = files.table(tmp_path / "t2.tsv", slides, "WSI,target")
    other.write_text(other.read_text().replace(",", "\t"))
    assert load(other).checksum == first.checksum
    table.write_text(table.read_text().replace("s3,1", "s3,0"))
    changed = load(table)
    assert changed.checksum != first.checksum
    assert changed.instances.filename == first.instances.filename  # other labels need no other copy of the vectors


@pytest.mark.parametrize("said", ["NA", "nan", "#N/A", "[Not Available]", "null"])
@pytest.mark.parametrize("classes, keys", [(("MSS", "MSI"), {"positive": "MSI"}), (("0", "1"), {})])
def test_a_label_that_is_not_known_is_no_negative_one(said, classes, keys, slides, tmp_path):
    labels = [said if i in (3, 6) else classes[label] for i, (_, label) in enumerate(slides)]
    rows = ["slide_id,label", *(f"{slide.name},{label}" for (slide, _), label in zip(slides, labels, strict=True))]
    with pytest.raises(UserError) as caught:
        load(write(tmp_path / "t.csv", rows), **keys)
    assert f"row 5, column label: '{said}': the label is not known" in str(caught.value)
    assert "and so in 1 more row" in str(caught.value)


def test_the_positive_class_in_other_letters_is_no_negative_one(slides, tmp_path):
    rows = ["slide_id,label", *(f"{s.name},{('MSS', 'MSI-H')[y] if i != 3 else 'msi-h'}" for i, (s, y) in
                                enumerate(slides))]  # fmt: skip
    with pytest.raises(UserError, match=r"row 5, column label: 'msi-h' and 'MSI-H' .* differ in case only"):
        load(write(tmp_path / "t.csv", rows), positive="MSI-H")


def test_only_labels_that_are_joined_must_be_right(slides, tmp_path):
    """A clinical table has patients without slides, or without a label."""
    write(tmp_path / "slides.csv", ["PATIENT,FILENAME", *(f"p{i % 5},{s.name}.h5" for i, (s, _) in enumerate(slides))])
    known = [f"p{i},{('no', 'yes')[i % 2]}" for i in range(5)]
    keys = {"label_table": str(tmp_path / "c.csv"), "label_column": "msi", "positive": "yes"}
    write(tmp_path / "c.csv", ["PATIENT,msi", *known, "p7,", "p8,NA", "p9,yes", "p9,no"])
    assert load(tmp_path / "slides.csv", **keys).bags.label.tolist() == [0, 1, 0, 1, 0] * 2
    write(tmp_path / "c.csv", ["PATIENT,msi", *known, "p3,no"])
    with pytest.raises(UserError, match=r"c.csv: row 7, column msi: 'p3' has another label in row 5"):
        load(tmp_path / "slides.csv", **keys)
    write(tmp_path / "c.csv", ["PATIENT,msi", *known[:4], "p4,"])
    with pytest.raises(UserError, match=r"c.csv: row 6, column msi: empty"):
        load(tmp_path / "slides.csv", **keys)
    write(tmp_path / "c.csv", ["PATIENT,msi", "q1,yes", "q2,no"])
    with pytest.raises(UserError, match=r"slides.csv: 5 problems\n.*column patient: 'p0' has no label in c.csv"):
        load(tmp_path / "slides.csv", **keys)


@pytest.mark.parametrize("mine, theirs", [("", ".svs"), (".svs", ""), (".h5", ".svs")])
def test_labels_are_joined_by_slide_with_or_without_ending(mine, theirs, slides, tmp_path):
    write(tmp_path / "slides.csv", ["slide_id", *(f"{slide.name}{mine}" for slide, _ in slides)])
    write(tmp_path / "c.csv", ["slide,label", *(f"{slide.name}{theirs},{y}" for slide, y in slides)])
    pool = load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))
    assert pool.bags.label.tolist() == [y for _, y in slides]


def test_each_slide_has_the_label_of_its_own_row_where_the_table_of_labels_names_slides(slides, tmp_path):
    """Not that of another slide of its patient: of a patient one slide may be positive, and one may lack a label."""
    names = [slide.name for slide, _ in slides]
    label = [int(i % 4 in (1, 2)) for i in range(len(names))]  # both in each patient of two slides
    write(tmp_path / "slides.csv", ["patient,slide_id", *(f"p{i // 2},{name}" for i, name in enumerate(names))])
    lines = [f"p{i // 2},{name}.svs,{y}" for i, (name, y) in enumerate(zip(names, label, strict=True))]
    write(tmp_path / "c.csv", ["patient,slide_id,label", *lines])
    pool = load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))
    assert pool.bags.label.tolist() == label
    with pytest.raises(UserError, match="'p0' has another label in row 2"):  # of patients as bags there is one label
        load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"), bag="patient")
    write(tmp_path / "c.csv", ["patient,slide_id,label", *lines[:-1]])
    with pytest.raises(UserError, match=rf"'{names[-1]}' has no label in c.csv"):
        load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))


def test_patients_that_only_the_table_of_labels_names_are_patients(slides, tmp_path):
    names = [slide.name for slide, _ in slides]
    write(tmp_path / "slides.csv", ["slide_id", *names])
    lines = [f"P{i // 2},{name},{i // 2 % 2},9" for i, name in enumerate(names)]
    write(tmp_path / "c.csv", ["case_id,slide_id,class,target", *lines])
    pool = load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))
    assert pool.group_names == load(tmp_path / "c.csv").group_names == tuple(f"P{i}" for i in range(len(names) // 2))
    said = " ".join(pool.notes)
    assert "c.csv: column class is taken as label" in said and "c.csv: columns left alone: target" in said
    of_patients = load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"), bag="patient")
    assert of_patients.names == pool.group_names
    write(tmp_path / "c.csv", ["case_id,slide_id,class", *(line[:-2] for line in lines), f"P9,{names[0]},0"])
    with pytest.raises(UserError, match=rf"column case_id .*'{names[0]}' has another patient in row 2"):
        load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))


def test_a_table_of_labels_whose_slides_are_others_is_joined_by_patient(slides, tmp_path):
    write(tmp_path / "slides.csv", ["patient,slide_id", *(f"p{i},{slide.name}" for i, (slide, _) in enumerate(slides))])
    write(tmp_path / "c.csv", ["patient,slide,label", *(f"p{i},scan{i},{y}" for i, (_, y) in enumerate(slides))])
    pool = load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))
    assert pool.bags.label.tolist() == [y for _, y in slides]
    assert any("slide names none of these slides, so labels are joined by patient" in note for note in pool.notes)


def test_the_tables_own_labels_are_said_to_be_left_alone(slides, tmp_path):
    write(tmp_path / "slides.csv", ["patient,slide_id,label", *(f"p{i},{s.name},{1 - y}" for i, (s, y) in
                                                                enumerate(slides))])  # fmt: skip
    write(tmp_path / "c.csv", ["patient,label", *(f"p{i},{y}" for i, (_, y) in enumerate(slides))])
    pool = load(tmp_path / "slides.csv", label_table=str(tmp_path / "c.csv"))
    assert pool.bags.label.tolist() == [y for _, y in slides]
    assert "its own column label is left alone: data.label_table has the labels" in pool.notes


def test_the_column_that_the_user_names_is_said_to_be_that_of_labels(slides, tmp_path):
    write(tmp_path / "t.csv", ["slide_id,msi", *(f"{slide.name},{y}" for slide, y in slides)])
    assert "column msi is taken as label" in load(tmp_path / "t.csv", label_column="msi").notes


def test_a_spreadsheet_that_openpyxl_cannot_take(tmp_path):
    book = Workbook()
    book.create_chartsheet()
    book.save(tmp_path / "t.xlsx")
    with pytest.raises(UserError, match=r"t.xlsx: cannot be read as a spreadsheet"):
        load(tmp_path / "t.xlsx")


@pytest.mark.parametrize("said", [b"A1", b"A1:C5"])
def test_a_spreadsheet_is_read_to_its_end_whatever_size_it_says(said, slides, tmp_path):
    rows = ["slide_id,label,case_id", *(f"{slide.name},{label},p{i // 2}" for i, (slide, label) in enumerate(slides))]
    whole = write(tmp_path / "whole.xlsx", rows)
    with zipfile.ZipFile(whole) as before, zipfile.ZipFile(tmp_path / "t.xlsx", "w") as after:
        for name in before.namelist():
            data = re.sub(rb'(?<=<dimension ref=")[^"]*', said, before.read(name))
            after.writestr(name, data)
    whole.unlink()
    assert len(load(tmp_path / "t.xlsx").names) == len(slides) == 10


def test_patients_that_may_be_the_same_are_named(slides, tmp_path):
    def notes(*patients, **keys):
        head = "slide_id,label" + ",patient" * bool(patients)
        rows = [f"{slide.name},{label}" for slide, label in slides]
        rows = [",".join([row, patient]) for row, patient in zip(rows, patients, strict=True)] if patients else rows
        return load(write(tmp_path / "t.csv", [head, *rows]), **keys).notes

    assert any("'p0' and 'P0', " in note for note in notes(*(f"{'pP'[i // 5]}{i % 5}" for i in range(10))))
    labels = [label for _, label in slides]
    unknown = [f"p{i}" if label else "NA" for i, label in enumerate(labels)]
    assert any("all rows with 'NA' are taken for one patient" in note for note in notes(*unknown, bag="patient"))
    assert not any("patient" in note for note in notes())
