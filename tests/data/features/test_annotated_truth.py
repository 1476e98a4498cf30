"""The truth of feature vectors by annotations of their slides, in a column of the table that `truth` names."""

import csv
import json

import feature_files as files
import h5py
import numpy as np
import pytest
from PIL import Image

from d2l_study.data import FeatureBags
from d2l_study.data.features.hdf5 import slide_size
from d2l_study.errors import UserError


def annotate(path, left, top, side, name="Tumor"):
    ring = [[left, top], [left + side, top], [left + side, top + side], [left, top + side], [left, top]]
    feature = {
        "type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }  # fmt: skip
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path.name


@pytest.fixture
def cohort(tmp_path, cache):
    """Four slides of 40 tiles, of 512 pixels of level 0 each, 256 apart; the upper left one at (1024, 512)."""
    for i in range(4):
        files.trident(tmp_path / "features", files.make_slide(f"s{i}", 40))
    return tmp_path


def write(folder, annotations, labels=(0, 1, 0, 1), column="annotation", bags=None):
    path = folder / "slides.csv"
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["bag", "slide", "label", column])
        for i, (label, entry) in enumerate(zip(labels, annotations, strict=True)):
            table.writerow([(bags or [f"b{k}" for k in range(4)])[i], f"s{i}", label, entry])
    return str(path)


def load(path, **keys):
    return FeatureBags(path=path, **{"folds": 3, "truth": "annotation"} | keys).load_pool()


def refusal(path):
    """What is said of a table that is refused."""
    with pytest.raises(UserError) as caught:
        load(path)
    return str(caught.value)


def truth_of(pool, slide):
    return pool.bags.instance_label[pool.image == slide]


def test_tiles_are_positive_where_enough_of_them_is(cohort):
    name = annotate(cohort / "s1.geojson", 1200, 600, 700)
    path = write(cohort, ["negative", name, "", "none"])
    for coverage in (0.2, 0.5, 0.9):
        pool = load(path, coverage=coverage)
        places = pool.xy[pool.image == 1]
        inside = np.clip(np.minimum(places + 512, (1900, 1300)) - np.maximum(places, (1200, 600)), 0, 512)
        expected = (inside.prod(axis=1) / 512**2 >= coverage).astype(np.int8)
        assert np.array_equal(truth_of(pool, 1), expected)
        assert (truth_of(pool, 0) == 0).all() and (truth_of(pool, 2) == -1).all() and (truth_of(pool, 3) == -1).all()
    assert expected.sum() < truth_of(load(path, coverage=0.2), 1).sum()


def test_what_was_read_is_kept_until_an_annotation_changes(cohort, cache):
    name = annotate(cohort / "s1.geojson", 1200, 600, 700)
    path = write(cohort, ["negative", name, "", ""])
    first = load(path)
    assert load(path).checksum == first.checksum and len(list(cache.glob("annotations-????????????????????????"))) == 1
    annotate(cohort / "s1.geojson", 1200, 600, 1400)
    assert truth_of(load(path), 1).sum() > truth_of(first, 1).sum()


def test_without_the_key_the_column_is_left_alone(cohort):
    path = write(cohort, ["by Dr X", "", "", ""])
    pool = load(path, truth=None)
    assert (pool.bags.instance_label == -1).all() and any("left alone: annotation" in note for note in pool.notes)
    assert not {"coverage", "positive_classes", "negative_classes"} & set(FeatureBags(path=path).identity())


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (["nowhere.xml", "", "", ""], "row 2, column annotation: 'nowhere.xml': no such file"),
        (["s1.geojson", "", "", ""], "bag 'b0': 9 instances labelled 1, but the bag has label 0"),
        (["", "text.xml", "", ""], "text.xml"),
        (["", "s1.geojson", "more/labels.npy", ""], "annotations and files of labels, such as labels.npy"),
        (["", "s1.geojson", "", "mask.png"], "row 5, column annotation: "),
        (["", "s1.geojson", "", "mask.png"], "mask.png: cannot be read as an image"),
        (
            ["", "s1.geojson", "", "negative"],
            "row 5, column annotation: 'negative', but bag 'b3' has label 1, and no other slide",
        ),
        (["", "text.xml", "", "negative"], "slides.csv: 2 problems"),
        (
            ["", "", "", ""],
            "slides.csv: column annotation (data.truth) is empty in all rows, and no feature file has "
            "labels of that name",
        ),
        (["", "none", "", ""], "is empty in all rows"),
    ],
)
def test_mistakes_are_answered_in_words(cohort, entries, words):
    annotate(cohort / "s1.geojson", 1000, 500, 900)
    (cohort / "text.xml").write_text("no annotation")
    (cohort / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (cohort / "more").mkdir()
    np.save(cohort / "more" / "labels.npy", np.zeros(40, np.int8))
    assert words in refusal(write(cohort, entries))


def without_size(folder):
    """The feature files as of tools that do not say how large the slides are."""
    for path in (folder / "features").iterdir():
        with h5py.File(path, "a") as file:
            del file["coords"].attrs["level0_width"]


def test_an_annotation_of_another_slide_is_refused(cohort):
    name = annotate(cohort / "s1.geojson", 100_000, 100_000, 900)
    path = write(cohort, ["", name, "", ""])
    said = refusal(path)
    assert said.endswith(
        "s1.geojson: a shape reaches to x 100,000, y 100,000, but the slide has 40,000×30,000 pixels (drawn on another "
        "slide, or not in level-0 pixels?)"
    )
    assert "row 3, column annotation: " in said
    without_size(cohort)
    assert refusal(path).endswith(
        "s1.geojson: no shape is where the slide's tiles are, x 1,024 to 3,072, y 512 to 2,304 (drawn on another "
        "slide, or not in level-0 pixels?)"
    )


def test_without_the_size_of_a_slide_an_annotation_beside_its_tiles_may_be_of_it(cohort):
    without_size(cohort)
    small = annotate(cohort / "s1.geojson", 1200, 600, 10)  # where tiles are, and too small for any
    far = annotate(cohort / "s3.geojson", 9000, 9000, 900)
    pool = load(write(cohort, ["", small, "", ""]))
    assert (truth_of(pool, 1) == 0).all()
    pool = load(write(cohort, ["", small, "", far], bags=["a", "b", "c", "b"]))  # of several slides
    assert (truth_of(pool, 3) == 0).all()
    path = write(cohort, ["", small, "", ""])
    for places in ([[9000, 9000]], [[9000, 9000], [3000, 2200]]):  # the second among the tiles, and in none
        (cohort / "s1.geojson").write_text(json.dumps({"type": "MultiPoint", "coordinates": places}))
        if len(places) == 1:
            with pytest.raises(UserError, match="no shape is where the slide's tiles are"):
                load(path)
    assert (truth_of(load(path), 1) == -1).all()


def test_a_file_of_clam_says_the_size_of_its_level(tmp_path):
    path = files.clam_patches(tmp_path, files.make_slide("s0", 5))
    assert slide_size(path) == (40000, 30000)
    with h5py.File(path, "a") as file:
        file["coords"].attrs["patch_level"] = 1
    assert slide_size(path) is None
    assert slide_size(files.clam_h5(tmp_path / "h5_files", files.make_slide("s0", 5))) is None
    trident = files.trident(tmp_path / "t", files.make_slide("s0", 5))
    assert slide_size(trident) == (40000, 30000)
    with h5py.File(trident, "a") as file:
        file["coords"].attrs["level0_height"] = 0  # not known
    assert slide_size(trident) is None


def test_masks_are_read_where_the_size_of_the_slide_is_said(cohort):
    mask = np.zeros((1875, 2500), np.uint8)  # a sixteenth of 40,000 × 30,000
    mask[32 : 32 + 64, 64 : 64 + 48] = 1  # from (1024, 512) on, 768 × 1024
    Image.fromarray(mask).save(cohort / "m.png")
    path = write(cohort, ["negative", "m.png", "", ""])
    pool = load(path)
    places = pool.xy[pool.image == 1]
    inside = np.clip(np.minimum(places + 512, (1024 + 768, 512 + 1024)) - places, 0, 512)
    expected = inside.prod(axis=1) / 512**2 >= 0.5
    assert np.array_equal(truth_of(pool, 1), expected) and 0 < expected.sum() < 40
    without_size(cohort)
    assert refusal(path).endswith(
        "m.png: a mask says nothing without the size of its slide, which s1.h5 does not say (attributes level0_width "
        "and level0_height of its coordinates, as TRIDENT writes them)"
    )


def test_masks_beside_the_tensors_of_clam(tmp_path, cache):
    (tmp_path / "patches").mkdir()
    for i in range(4):
        files.clam_pt(tmp_path / "pt_files", slide := files.make_slide(f"s{i}", 40))
        files.clam_patches(tmp_path / "patches", slide)
    Image.fromarray(np.ones((1875, 2500), np.uint8)).save(tmp_path / "m.png")
    assert (truth_of(load(write(tmp_path, ["", "m.png", "", ""])), 1) == 1).all()


def test_the_only_class_is_that_of_all_slides(cohort):
    tumour = annotate(cohort / "s1.geojson", 1200, 600, 700)
    healthy = annotate(cohort / "s3.geojson", 1200, 600, 700, "Normal")
    path = write(cohort, ["", tumour, "", healthy])
    assert refusal(path).endswith(
        "slides.csv: column annotation: 2 classes, each alone on its slide (Tumor in s1.geojson, Normal in "
        "s3.geojson); say which are positive (data.positive_classes)"
    )
    both = load(path, positive_classes="Tumor, Normal")
    assert truth_of(both, 1).sum() == truth_of(both, 3).sum() > 0


def test_a_positive_bag_of_negative_slides_alone_is_refused(cohort):
    name = annotate(cohort / "s1.geojson", 1200, 600, 700)
    bags = ["a", "b", "c", "b"]
    with pytest.raises(
        UserError, match=r"row 3, column annotation: 'negative', but bag 'b' has label 1, and the same is"
    ):
        load(write(cohort, ["", "negative", "", "negative"], bags=bags))
    pool = load(write(cohort, ["", name, "", "negative"], bags=bags))
    assert truth_of(pool, 1).sum() > 0 and (truth_of(pool, 3) == 0).all()


def test_labels_in_the_files_under_the_name_of_an_empty_column_are_found(cohort):
    for i in range(4):
        with h5py.File(cohort / "features" / f"s{i}.h5", "a") as file:
            file["annotation"] = np.arange(40) % 3 == 0 if i % 2 else np.zeros(40, int)
    pool = load(write(cohort, ["", "", "", ""]))
    assert truth_of(pool, 1).sum() == 14


def test_places_in_microns_are_refused(tmp_path, cache):
    for i in range(4):
        files.stamp(tmp_path / "features", files.make_slide(f"s{i}", 40))
    name = annotate(tmp_path / "s1.geojson", 1000, 500, 900)
    with pytest.raises(UserError, match="in level-0 pixels; found the top-left in µm"):
        load(write(tmp_path, ["", name, "", ""]))


def test_a_slide_of_several_may_hold_nothing_positive(cohort):
    name = annotate(cohort / "s1.geojson", 1200, 600, 700)
    other = annotate(cohort / "s3.geojson", 1200, 600, 700, "Stroma")
    path = write(cohort, ["", name, "", other], bags=["a", "b", "c", "b"])
    pool = load(path, positive_classes="Tumor")
    assert truth_of(pool, 1).sum() > 0 and (truth_of(pool, 3) == 0).all()
    with pytest.raises(UserError, match=r"s3.geojson: no annotation of 'Tumor'"):
        load(write(cohort, ["", name, "", other]), positive_classes="Tumor")
