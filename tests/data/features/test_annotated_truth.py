"""The truth of feature vectors by annotations of their slides, in a column of the table that `truth` names."""

import csv
import json

import feature_files as files
import numpy as np
import pytest

from d2l_study.data import FeatureBags
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
        (["", "s1.geojson", "", "mask.png"], "a mask says nothing without the size of its slide"),
    ],
)
def test_mistakes_are_answered_in_words(cohort, entries, words):
    annotate(cohort / "s1.geojson", 1000, 500, 900)
    (cohort / "text.xml").write_text("no annotation")
    (cohort / "mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (cohort / "more").mkdir()
    np.save(cohort / "more" / "labels.npy", np.zeros(40, np.int8))
    with pytest.raises(UserError) as caught:
        load(write(cohort, entries))
    assert words in str(caught.value)


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
