"""What is wrong with feature files and their tables is said before anything is trained, all of it at once."""

import feature_files as files
import h5py
import numpy as np
import pytest
from wrong_feature_files import PROBLEMS, changed_bit, gone, no_number, place, places_that_are_none, trident_pickle

from d2l_study.data import FeatureBags
from d2l_study.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def slides(tmp_path):
    found = files.cohort()
    for slide, _ in found:
        files.trident(tmp_path / "features", slide)
    files.table(tmp_path / "t.csv", found)
    return found


def load(tmp_path, **keys):
    return FeatureBags(path=str(tmp_path / "t.csv"), **keys).load_pool()


def said(tmp_path, **keys) -> str:
    with pytest.raises(UserError) as caught:
        load(tmp_path, **keys)
    return str(caught.value)


def add_row(tmp_path, row):
    with (tmp_path / "t.csv").open("a") as file:
        file.write(row + "\n")


@pytest.mark.parametrize("change", PROBLEMS, ids=lambda change: change.__name__)
def test_each_wrong_file_is_named_with_what_was_found(change, slides, tmp_path, capsys):
    files.trident(tmp_path / "features", files.make_slide("s3", 9, positive=True))
    change(tmp_path, files.make_slide("s3", 9, positive=True))
    assert PROBLEMS[change] in said(tmp_path)
    assert "code has run" not in capsys.readouterr().out


def test_what_is_wrong_with_table_and_files_is_said_at_once_with_row_and_column(slides, tmp_path):
    names = [slide.name for slide, _ in slides]
    place(tmp_path, names[1]).write_text("no HDF5 at all")
    place(tmp_path, names[2]).write_bytes(b"")
    with h5py.File(place(tmp_path, names[3]), "w") as file:
        file["else"] = [1]
    place(tmp_path, names[4]).unlink()
    lines = (tmp_path / "t.csv").read_text().splitlines()
    lines[6] = f"{names[5]},"  # without its label
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    first, *found = said(tmp_path).splitlines()
    assert first == f"{tmp_path / 't.csv'}: 5 problems"
    assert [line.split(":")[0].strip() for line in found] == [
        *(f"row {row}, column slide_id (taken as bag)" for row in (3, 4, 5, 6)), "row 7, column label",
    ]  # fmt: skip
    parts = (f"{names[1]}.h5: this is no file of features", f"{names[2]}.h5: an empty file of 0 bytes",
             f"{names[3]}.h5: no dataset features or feats (found: else)", "no feature file in", "empty")  # fmt: skip
    assert all(part in line for part, line in zip(parts, found, strict=True)), found


def test_contradictions_of_rows_are_said_with_the_files_and_others_counted(slides, tmp_path):
    names = [slide.name for slide, _ in slides]
    place(tmp_path, names[0]).write_text("no HDF5 at all")
    add_row(tmp_path, f"{names[1]},1")
    found = said(tmp_path)
    assert "2 problems" in found and "row 2, column slide_id" in found and "the same slide twice" in found
    for name in names:
        place(tmp_path, name).write_text("no HDF5 at all")
    many = files.cohort(30)
    files.table(tmp_path / "t.csv", many)
    for slide, _ in many:
        (tmp_path / "features" / f"{slide.name}.h5").write_text("no HDF5 at all")
    lines = said(tmp_path).splitlines()
    assert "30 problems" in lines[0] and len(lines) == 22 and lines[-1].strip() == "… and 10 more"
    assert lines[1].strip().startswith("row 2, column slide_id")


def test_several_are_said_at_once_and_the_others_counted(tmp_path):
    found = files.cohort(40)
    for i, (slide, _) in enumerate(found):
        files.trident(tmp_path / "features", slide, encoder="a" if i < 25 else "b", magnification=20 if i % 8 else 40)
    files.table(tmp_path / "t.csv", found)
    text = said(tmp_path)
    assert "20 problems" in text.splitlines()[0] and len(text.splitlines()) == 21
    assert "s25.h5: encoder 'b'" in text and "s8.h5: tiles of 256 px at 40×" in text
    for i, (slide, _) in enumerate(found):
        if i % 8 == 0 or i >= 25:
            files.trident(tmp_path / "features", slide, encoder="a")
    for name in ("s1", "s2", "s4"):
        no_number(tmp_path, files.make_slide(name, 9))
    text = said(tmp_path)
    assert "3 problems" in text and "s1.h5: 2 of 9 vectors" in text and "s4.h5: 2 of 5 vectors" in text


def test_the_sentence_on_pickles_makes_a_file_that_is_read(slides, tmp_path):
    import shlex
    import subprocess
    import sys

    trident_pickle(tmp_path, slides[3][0])
    text = said(tmp_path)
    line = text[text.index("python -c") :].split("; or let TRIDENT")[0]
    command = shlex.split(line)
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path / "features", check=True)
    pool = load(tmp_path)
    mine = pool.bags.instance[pool.bags.offsets[3] : pool.bags.offsets[4]]
    assert np.array_equal(pool.instances[mine], slides[3][0].vectors)


@pytest.mark.parametrize("shape", [(0, 12), (0,)])
def test_empty_slides_are_left_out_where_it_is_said(shape, slides, tmp_path):
    with h5py.File(place(tmp_path, "s4"), "w") as file:
        file["features"] = np.zeros(shape, np.float32)
        file["coords"] = np.zeros((0, 2))
        file["patch_labels"] = np.zeros((0, 1), np.int64)  # as torchmil has a column of them
    assert "data.skip_empty: true leaves it out" in said(tmp_path)
    pool = load(tmp_path, skip_empty=True)
    assert pool.names == tuple(slide.name for slide, _ in slides if slide.name != "s4")
    assert pool.bags.sizes.min() > 0 and any("1 slide without vectors: s4" in note for note in pool.notes)
    assert "data.skip_empty: true leaves it out" in said(tmp_path)  # though the vectors are in the cache now
    data = FeatureBags(path=str(tmp_path / "t.csv"), skip_empty=True, folds=3)
    replicate = data.replicate(pool, 0, base_seed=1)
    seen = pool.instances[replicate.train.instance].astype(float)
    assert np.allclose(replicate.mean, seen.mean(axis=0)) and np.allclose(replicate.std, seen.std(axis=0))


def test_each_of_several_files_is_named_also_where_vectors_are_read(slides, tmp_path):
    for i in (3, 5, 7):
        changed_bit(tmp_path, slides[i][0])
    no_number(tmp_path, slides[6][0])
    text = said(tmp_path)
    assert "4 problems" in text and "s6.h5: 2 of 30 vectors hold NaN" in text
    assert all(f"  s{i}.h5: cannot be read as features: " in text for i in (3, 5, 7))


def test_each_of_several_files_with_wrong_places_and_labels_is_named(slides, tmp_path):
    for name in ("s2", "s5"):
        slide = next(slide for slide, _ in slides if slide.name == name)
        places_that_are_none(tmp_path, slide)
    text = said(tmp_path)
    assert "2 problems" in text and "s5.h5: 1 of 9 rows in coords" in text
    for slide, _ in slides:
        path = files.trident(tmp_path / "features", slide)
        with h5py.File(path, "a") as file:
            file["patch_labels"] = slide.truth if slide.name not in ("s2", "s5") else slide.truth + 7
    text = said(tmp_path)
    assert "2 problems" in text and "s2.h5: patch_labels has 7; expected 0, 1, or -1" in text


@pytest.mark.parametrize("there, hint", [("s33", "; did you mean 's33'?"), (None, "")])
def test_a_missing_file_is_not_taken_for_that_of_another_slide(there, hint, slides, tmp_path):
    """s3 is like s1 and s2, which have files of their own."""
    gone(tmp_path, slides[3][0])
    if there:
        files.trident(tmp_path / "features", files.make_slide(there, 4))
    assert said(tmp_path).endswith(f"'s3': no feature file in {tmp_path / 'features'}{hint}")


def test_a_cell_that_can_be_no_path(slides, tmp_path):
    add_row(tmp_path, f"{'x' * 5000},1")
    assert "row 12, column slide_id (taken as bag): 'xxx" in said(tmp_path)


def test_files_without_a_slide_are_noted_only(slides, tmp_path):
    files.trident(tmp_path / "features", files.make_slide("extra", 4))
    assert any("1 file in" in note and "extra.h5" in note for note in load(tmp_path).notes)


def test_the_same_slide_twice(slides, tmp_path):
    add_row(tmp_path, "s3,1")
    assert "row 12: s3.h5 is in row 5, too: the same slide twice" in said(tmp_path)
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text().replace("\ns3,1\n", "\ns3.svs,1\n", 1))
    assert "the same slide twice" in said(tmp_path)


def test_the_same_vectors_under_two_names(slides, tmp_path):
    place(tmp_path, "copy").write_bytes(place(tmp_path, "s3").read_bytes())
    add_row(tmp_path, "copy,1")
    assert "row 12: 'copy' has the same vectors as 's3' (row 5): the same slide twice" in said(tmp_path)


def test_labels_of_instances_that_contradict_or_do_not_fit(slides, tmp_path):
    (tmp_path / "patch_labels").mkdir()
    for slide, _ in slides:
        np.save(tmp_path / "patch_labels" / f"{slide.name}.npy", slide.truth)
    np.save(tmp_path / "patch_labels" / "s4.npy", np.ones(5, np.int8))
    assert "bag 's4': 5 instances labelled 1, but the bag has label 0" in said(tmp_path)
    np.save(tmp_path / "patch_labels" / "s4.npy", np.full(5, 2))
    np.save(tmp_path / "patch_labels" / "s5.npy", np.ones(4))
    text = said(tmp_path)
    assert "2 problems" in text and "s4.npy: it has 2; expected 0, 1, or -1" in text
    assert "s5.npy: 4 labels in it, but 9 vectors" in text
    assert "no dataset 'tumour'" in said(tmp_path, truth="tumour")


@pytest.mark.parametrize("keys, expected", [
    ({"path": None}, "data.path: missing; name the table of slides"),
    ({"path": "t.cvs"}, "t.cvs: no such file or folder; did you mean 't.csv'?"),
    ({"path": "musk"}, "musk: no such file or folder; did you mean 'musk1'?"),
    ({"path": "features/s3.h5"}, "neither a table (.csv, .tsv, .parquet, .pq, .xlsx, .xlsm) nor a file of"),
    ({"path": "t.csv", "root": "nowhere"}, "data.root: 'nowhere' is not a folder"),
    ({"path": "t.csv", "root": "t.csv"}, "data.root: 't.csv' is a file, not a folder"),
    ({"path": "features"}, "no table with slides and labels in it"),
    ({"path": "t.csv", "label_table": "gone.csv"}, "data.label_table: "),
    ({"path": "musk1", "positive": "yes"}, "data.positive: 'yes' does nothing: data.path is a file of a whole"),
    ({"path": "musk1", "bag": "patient"}, "data.bag: 'patient' does nothing"),
    ({"path": "musk1", "truth": "y"}, "data.truth: no array 'y'"),
])  # fmt: skip
def test_paths_that_lead_nowhere_and_keys_that_do_nothing(keys, expected, slides, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        FeatureBags(**keys).load_pool()
    assert expected in str(caught.value)


@pytest.fixture
def parallel(tmp_path):
    """torchmil's folders of six slides."""
    for slide, label in files.cohort(6):
        files.torchmil(tmp_path / "mil", slide, label)
    return tmp_path / "mil"


def test_torchmils_folders_must_hold_each_slide_once(parallel):
    (parallel / "features" / "s3.npy").unlink()
    files.clam_pt(parallel / "features", files.make_slide("s4", 5))
    (parallel / "labels" / "s5.npy").unlink()
    with pytest.raises(UserError) as caught:
        FeatureBags(path=str(parallel)).load_pool()
    text = str(caught.value)
    assert "3 problems" in text and f"s3.npy: no feature file of this slide in {parallel / 'features'}" in text
    assert "s4: s4.npy, s4.pt are feature files of it; leave one" in text and "s5: no label file of this slide" in text


@pytest.mark.parametrize("keys", [{"bag": "patient"}, {"label_column": "label"}, {"positive": "tumor"}])
def test_keys_of_tables_do_nothing_for_torchmils_folders(keys, parallel):
    key, value = next(iter(keys.items()))
    with pytest.raises(UserError, match=f"data.{key}: '{value}' does nothing: data.path is a folder of torchmil"):
        FeatureBags(path=str(parallel), **keys).load_pool()


def test_slides_without_places_are_noted_where_others_have_some(parallel):
    (parallel / "coords" / "s2.npy").unlink()
    assert "no places of tiles: 1 slide: s2" in FeatureBags(path=str(parallel)).load_pool().notes


@pytest.mark.parametrize("name", ["set.npz", "set.h5"])
@pytest.mark.parametrize("more, expected", [
    ({"bag_index": np.zeros(3, int)}, "3 numbers in bag_index, but "),
    ({"bag_index": np.zeros(0, "S1")}, "bag_index: values of type |S1; expected whole numbers"),
    ({"bag_index": np.full(84, np.inf)}, "bag_index: values of type float64, such as inf; expected whole numbers"),
    ({"bag_index": np.append(np.zeros(83), 0.5)}, "bag_index: values of type float64, such as 0.5; expected whole"),
    ({"bag_label": np.array([0, 1, 2, 0, 1, 0])}, "bag_label: 2; expected 0 and 1"),
    ({"bag_label": np.zeros(6, int)}, "bag_label: all 6 bags have label 0"),
    ({"bag_label": np.array([0, 1])}, "bag_index: numbers from 0 to 5; bag_label has 2 bags, 0 to 1"),
    ({"bag_label": np.array([0, 1] * 5)}, "bags without a vector: 6, 7, 8, 9"),
    ({"test_fold": np.zeros((2, 5), int)}, "test_fold: the shape (2, 5)"),
    ({"test_fold": np.array([[0, 1, 2, 0, 1, 2], [0, 1, 1, 0, 1, 1]])}, "no bag is in fold 2 of repeat 1"),
    ({"test_fold": np.array([0, 1, 0, 1, 0, 1])}, "at least 3 folds"),
    ({"instance_label": np.ones(84, int)}, "instance_label: 1 in bags of label 0: 0, 2, 4"),
    ({"features": np.full((84, 3), np.nan, np.float32)}, "bag 0: 5 of 5 vectors hold NaN"),
])  # fmt: skip
def test_files_of_whole_data_sets_that_contradict_themselves(more, expected, name, tmp_path):
    slides = files.cohort(6, sizes=(5, 9, 30, 10, 20, 10))
    kept = {"instance_label": more["instance_label"]} if "instance_label" in more else {
        "instance_label": np.full(84, -1)}  # fmt: skip
    path = files.whole_set(tmp_path / name, [s for s, _ in slides], [y for _, y in slides], **{**kept, **more})
    with pytest.raises(UserError) as caught:
        FeatureBags(path=str(path)).load_pool()
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    "layout", [files.trident, files.stamp, files.clam_pt, files.dictionary_pt, files.npz, files.npy],
    ids=lambda write: write.__name__,
)  # fmt: skip
def test_a_damaged_file_is_read_or_refused_in_words(layout, tmp_path):
    """Bytes flipped or overwritten at random, or an end that is missing."""
    rng = np.random.default_rng(20261126)
    found = files.cohort(6)
    for slide, _ in found:
        path = layout(tmp_path / "features", slide)
    files.table(tmp_path / "t.csv", found)
    whole, refused = path.read_bytes(), 0
    for trial in range(20):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: rng.integers(len(data))]
        else:
            begin = int(rng.integers(min(len(data), 2000)))
            data[begin : begin + 9] = rng.integers(0, 256, 9, np.uint8).tobytes()
        path.write_bytes(bytes(data))
        try:
            load(tmp_path)
        except UserError as error:
            refused += 1
            assert path.name in str(error)
    assert refused >= 5


def test_an_error_of_torch_without_words_is_named(tmp_path, monkeypatch):
    """As some damaged files get from some versions."""
    found = files.cohort(1)
    path = files.clam_pt(tmp_path / "features", found[0][0])
    files.table(tmp_path / "t.csv", found)

    def wordless(*arguments, **options):
        raise EOFError

    monkeypatch.setattr("torch.load", wordless)
    with pytest.raises(UserError, match=rf"{path.name}: cannot be read as a file of torch \(cut short\?\): EOFError"):
        load(tmp_path)
