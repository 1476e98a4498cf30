"""Feature files to label are found in every layout, and what cannot be labelled is said before anything is scored."""

import shutil

import feature_files as files
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from wrong_feature_files import changed_bit

from d2l_study.errors import UserError
from d2l_study.inference.feature_inputs import notes_on_inputs, open_feature_inputs
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.models import MilModel

WIDTH = 12


def model(encoder="", tiles="", **data):
    network = MilModel((WIDTH,), "attention", 8, 4, "mlp")
    card = ModelCard(
        "teacher", {"data": data}, (0.5,) * WIDTH, (2.0,) * WIDTH, "s", "ab" * 10, 0, 0.1, encoder, tiles
    )  # fmt: skip
    return StoredModel(network, network.init(np.random.default_rng(3)), card)


def slide(name="s1", count=9, **more):
    return files.make_slide(name, count, positive=True, **more)


def opened(*names, stored=None):
    return open_feature_inputs([str(name) for name in names], stored or model())


def vectors(entry):
    """All that the pieces of an input hold."""
    return np.concatenate([np.array(piece) for file in entry.files for piece in file.pieces()])


def said(*names, stored=None):
    with pytest.raises(UserError) as caught:
        opened(*names, stored=stored)
    return str(caught.value)


WRITERS = {name: getattr(files, name) for name in (
    "trident", "clam_h5", "clam_pt", "stamp", "nnmil", "slideflow", "npy", "npz", "dictionary_pt")}  # fmt: skip


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_of_each_layout_is_a_slide(tmp_path, writer):
    given = slide()
    path = WRITERS[writer](tmp_path / "features", given)
    for name in (path, tmp_path):  # the file, and a folder that holds its folder
        (entry,) = opened(name)
        assert (entry.slides, entry.bags, entry.count) == (("s1",), ("s1",), 9)
        np.testing.assert_array_equal(vectors(entry), given.vectors.astype(entry.files[0].dtype))


def test_folders_of_torchmil_bring_places_and_labels(tmp_path):
    given = slide()
    path = files.torchmil(tmp_path, given, 1)
    for name in (path, tmp_path, tmp_path / "features"):
        (entry,) = opened(name)
        assert entry.files[0].has_places
        np.testing.assert_array_equal(entry.truth_in(0), given.truth)


def test_a_folder_gives_its_slides_in_the_order_of_their_names(tmp_path):
    for name in ("b", "a.1", "C"):
        files.trident(tmp_path / "features_x", slide(name))
    assert [entry.slides for entry in opened(tmp_path)] == [("C",), ("a.1",), ("b",)]


def test_a_table_gives_its_slides_without_labels_and_names_them(tmp_path):
    for name in ("s1", "s2"):
        files.clam_h5(tmp_path / "h5_files", slide(name))
    (tmp_path / "t.csv").write_text("slide_id,case_id\ns2.svs,p\ns1.svs,p\n")
    assert [entry.slides for entry in opened(tmp_path / "t.csv")] == [("s2.svs",), ("s1.svs",)]
    pd.DataFrame({"slide_id": ["one"], "path": ["h5_files/s1.h5"]}).to_excel(tmp_path / "t.xlsx")
    (entry,) = opened(tmp_path / "t.xlsx")
    assert entry.slides == ("one",) and entry.files[0].path.name == "s1.h5"


def test_a_model_of_patients_takes_the_slides_of_a_patient_as_one_bag(tmp_path):
    for name, count in (("s1", 4), ("s2", 3), ("s3", 2)):
        files.trident(tmp_path / "features", slide(name, count))
    (tmp_path / "t.csv").write_text("slide_id,patient\ns1,p\ns2,q\ns3,p\n")
    found = opened(tmp_path / "t.csv", stored=model(bag="patient"))
    assert [(entry.bags, entry.slides, entry.count) for entry in found] == [
        (("p",), ("s1", "s3"), 6), (("q",), ("s2",), 3)]  # fmt: skip
    assert [len(entry.bags) for entry in opened(tmp_path / "t.csv")] == [1, 1, 1]


def test_slides_as_bags_of_a_model_of_patients_are_noted(tmp_path):
    """A table without patients gives slides, too; one of patients and a file of bags do not."""
    of_patients = model(bag="patient")
    for name in ("s1", "s2"):
        path = files.trident(tmp_path / "features", slide(name))
    (tmp_path / "patients.csv").write_text("slide_id,patient\ns1,p\ns2,p\n")
    (tmp_path / "slides.csv").write_text("slide_id\ns1\ns2\n")
    (tmp_path / "set").mkdir()
    whole = files.whole_set(tmp_path / "set" / "set.npz", [slide("a", 2), slide("b", 3)], [0, 1])
    for given, count in ((tmp_path / "features", 2), (path, 1), (tmp_path / "slides.csv", 2)):
        (note,) = notes_on_inputs(opened(given, stored=of_patients), of_patients)
        assert note.startswith(f"{count} slide") and "column patient" in note
        assert notes_on_inputs(opened(given), model()) == []
    for given in (tmp_path / "patients.csv", whole):
        assert notes_on_inputs(opened(given, stored=of_patients), of_patients) == []


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_a_file_of_a_whole_data_set_gives_its_bags(tmp_path, ending):
    given = [slide("a", 3), slide("b", 4), slide("c", 2)]
    path = files.whole_set(tmp_path / f"set{ending}", given, [1, 1, 1], bag_name=np.array([b"a", b"b", b"c"]))
    (entry,) = opened(path)  # of one class, which a study could not train on
    assert entry.bags == entry.slides == ("a", "b", "c")
    assert [positions.tolist() for _, positions in entry.slide_positions()] == [[0, 1, 2], [3, 4, 5, 6], [7, 8]]
    np.testing.assert_array_equal(entry.truth_in(0), np.concatenate([one.truth for one in given]))


def test_the_embedded_set_is_known_by_its_name():
    network = MilModel((166,), "attention", 8, 4, "mlp")
    card = ModelCard("teacher", {}, (0.0,) * 166, (1.0,) * 166, "s", "ab" * 10, 0)
    (entry,) = opened("musk1", stored=StoredModel(network, {}, card))
    assert len(entry.bags) == 92 and entry.count == 476


def test_an_array_of_several_is_named_behind_a_colon(tmp_path):
    np.savez(tmp_path / "many.npz", left=slide().vectors, right=slide("s2", 4).vectors)
    left, right = opened(f"{tmp_path}/many.npz:left", f"{tmp_path}/many.npz:right")
    assert (left.slides, left.count, right.slides, right.count) == (("many:left",), 9, ("many:right",), 4)
    assert "no array 'lift'; did you mean 'left'?" in said(f"{tmp_path}/many.npz:lift")


# ---- notes
def test_what_a_user_should_know_is_noted(tmp_path):
    files.trident(tmp_path / "features", slide("s1"))
    files.trident(tmp_path / "features", slide("none", 0))
    assert notes_on_inputs(opened(tmp_path), model()) == ["1 slide without vectors: none"]
    (note,) = notes_on_inputs(opened(tmp_path / "features/s1.h5"), model(tiles="256 px at 40×"))
    assert note.startswith("tiles of 256 px at 20×; the model was trained on tiles of 256 px at 40×")
    assert notes_on_inputs(opened(tmp_path / "features/s1.h5"), model(tiles="256 px at 20×")) == []


def test_one_encoder_may_be_written_in_several_ways(tmp_path):
    path = files.trident(tmp_path, slide(), encoder="UNI-v1")
    assert opened(path, stored=model("uni_v1")) and opened(files.npy(tmp_path, slide()), stored=model("uni_v1"))


# ---- what cannot be labelled
def nan(folder, given):
    vectors = given.vectors.copy()
    vectors[4, 2], vectors[6] = np.nan, np.inf
    return files.clam_h5(folder, slide_of(vectors, given))


def slide_of(vectors, given):
    return files.Slide(given.name, vectors, given.coords[: len(vectors)], given.truth[: len(vectors)])


def cut(writer, share=0.8):
    def write(folder, given):
        path = writer(folder, given)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        return path

    return write


def fewer_places(folder, given):
    path = files.nnmil(folder, given)
    with h5py.File(path, "a") as file:
        del file["coords"]
        file["coords"] = given.coords[:-1]
    return path


def strange_labels(folder, given):
    np.savez(folder / "s1.npz", features=given.vectors, patch_labels=given.truth + 2)
    return folder / "s1.npz"


def patches(folder, given):
    np.save(folder / "s1.npy", np.zeros((5, 3, 27, 27), np.uint8))
    return folder / "s1.npy"


def image(folder, given):
    Image.new("RGB", (60, 60)).save(folder / "s1.png")
    return folder / "s1.png"


def images(folder, given):
    image(folder, given)
    return folder


def pickled(folder, given):
    np.save(folder / "s1.npy", np.array([{}, 1], object), allow_pickle=True)
    return folder / "s1.npy"


def another_width(folder, given):
    return files.trident(folder, files.make_slide("s1", 5, width=8))


WRONG = {
    "width": (another_width, "s1.h5: vectors of 8 dimensions; the model takes 12, of encoder 'uni_v1'"),
    "encoder": (lambda folder, given: files.trident(folder, given, "conch_v15"),
                "s1.h5: encoder 'conch_v15'; the model was trained on vectors of encoder 'uni_v1'"),
    "coordinates": (files.clam_patches, "s1.h5: coordinates of tiles, but no features"),
    "nan": (nan, "s1.h5: 2 of 9 vectors hold NaN or infinity, the first of them row 4 (from 0)"),
    "pickled_pt": (files.trident_pt, "s1.pt: an array of numpy as a pickle, not a tensor"),
    "pickled_npy": (pickled, "s1.npy: the array holds Python objects (a pickle)"),
    "short_h5": (cut(files.stamp), "s1.h5: cut short"),
    "short_pt": (cut(files.clam_pt), "s1.pt: cannot be read as a file of torch"),
    "short_npz": (cut(files.npz), "s1.npz: cannot be read as"),
    "short_npy": (cut(files.npy), "s1.npy: cut short: "),
    "slide_vector": (lambda folder, given: files.stamp(folder, given, "slide"), "one vector for a whole slide"),
    "places": (fewer_places, "s1.h5: 8 rows in coords, but 9 vectors"),
    "labels": (strange_labels, "s1.npz: patch_labels has 2, 3; expected 0, 1"),
    "patches": (patches, "s1.npy: the array is of type uint8 (pixels? features of them are needed)"),
    "image": (image, "s1.png: this is a PNG image; extract features first"),
    "images": (images, "no feature files in"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_files_are_named_with_what_was_found(tmp_path, case):
    write, words = WRONG[case]
    folder = tmp_path / "in"
    folder.mkdir()
    assert words in said(write(folder, slide()), stored=model("uni_v1"))


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    right = files.trident(tmp_path / "a", slide("right"))
    wrong = [another_width(tmp_path / "b", None), files.stamp(tmp_path / "c", slide("um")), nan(tmp_path, slide("n")),
             cut(files.npy)(tmp_path, slide("m"))]  # fmt: skip
    text = said(right, *wrong, tmp_path / "rihgt.h5", tmp_path / "a" / "rihgt.h5")
    assert text.startswith("2 inputs cannot be used:") and "did you mean 'right.h5'?" in text
    text = said(right, files.trident(tmp_path / "d", slide("too")), *wrong)
    assert "vectors of 8 dimensions" in text and "um.h5: places in µm; 3 of 5 files have places in level-0" in text
    assert "m.npy: cut short: " in said(*wrong[2:])
    (tmp_path / "features").mkdir()
    changed_bit(tmp_path, slide("bit"))
    text = said(wrong[2], tmp_path / "features" / "bit.h5")
    assert "2 of 9 vectors" in text and "bit.h5: cannot be read as features: " in text


def test_encoders_are_not_mixed_where_the_model_names_none(tmp_path):
    paths = [files.trident(tmp_path, slide(name), encoder) for name, encoder in zip("abc", "xxy", strict=True)]
    assert "c.h5: encoder 'y'; 2 of 3 files have encoder 'x' (a.h5)" in said(*paths)


def test_a_slide_is_labelled_once(tmp_path):
    path = files.trident(tmp_path / "features", slide())
    assert "s1.h5: given twice" in said(path, tmp_path)
    other = files.npy(tmp_path / "other", slide())
    assert "a slide 's1' is" in said(path, other)
    shutil.copy(other, tmp_path / "features")
    assert "s1.h5, s1.npy are files of one slide" in said(tmp_path / "features")
    (tmp_path / "t.csv").write_text("slide_id,path\na,features/s1.h5\nb,features/s1.h5\n")
    assert "row 3: s1.h5 is in row 2 already: the same slide twice" in said(tmp_path / "t.csv")


def test_a_bag_is_labelled_once_in_either_order(tmp_path):
    """A patient of a table who is named as a file, and one in two tables."""
    for name in ("s1", "s2"):
        files.trident(tmp_path / "features", slide(name))
    alone = files.trident(tmp_path / "other", slide("p"))
    (tmp_path / "t.csv").write_text("slide_id,patient,path\ns1,p,features/s1.h5\n")
    (tmp_path / "u.csv").write_text("slide_id,patient,path\ns2,p,features/s2.h5\n")
    for one, other in ((tmp_path / "t.csv", alone), (tmp_path / "t.csv", tmp_path / "u.csv")):
        for given in ((one, other), (other, one)):
            text = said(*given, stored=model(bag="patient"))
            assert "a bag 'p' is " in text and "\n" not in text


@pytest.mark.parametrize(
    ("rows", "words"),
    [("slide_id\ns1\ns9\n", "row 3, column slide_id (taken as bag): 's9': no feature file in"),
     ("slide_id,path\na,nope.h5\n", "'nope.h5': no feature file in"), ("x,y\n1,2\n", "no column bag"),
     ("slide_id\n", "no rows below the header")],
)  # fmt: skip
def test_a_table_that_names_no_files_is_answered(tmp_path, rows, words):
    files.trident(tmp_path / "features", slide())
    (tmp_path / "t.csv").write_text(rows)
    assert words in said(tmp_path / "t.csv")


def test_a_set_whose_numbers_do_not_fit_is_answered(tmp_path):
    np.savez(tmp_path / "a.npz", features=slide().vectors, bag_index=np.arange(8))
    assert "8 numbers in bag_index, but 9 vectors" in said(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", features=slide().vectors, bag_index=np.arange(9), bag_label=np.zeros(3))
    assert "numbers from 0 to 8; bag_label has 3 bags" in said(tmp_path / "a.npz")


def test_files_are_counted_as_they_are_checked(tmp_path):
    for i in range(3):
        files.trident(tmp_path, slide(f"s{i}"))
    heard = []
    open_feature_inputs([tmp_path], model(), lambda done, count: heard.append((done, count)))
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_tensors_of_bfloat16_are_read(tmp_path):
    torch.save(torch.from_numpy(slide().vectors).bfloat16(), tmp_path / "s1.pt")
    (entry,) = opened(tmp_path / "s1.pt")
    np.testing.assert_allclose(vectors(entry), slide().vectors, rtol=0.01)
