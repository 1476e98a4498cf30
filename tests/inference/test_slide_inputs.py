"""What slides are called, which names their files and finds what belongs to them."""

import json
from types import SimpleNamespace

import pytest
from slides.make_slides import openslide_file

from d2l_study.errors import UserError
from d2l_study.inference import slide_label
from d2l_study.inference.slide_inputs import SlideInput, slide_inputs
from d2l_study.inference.slide_label import SlideOptions, plan_slides
from d2l_study.study.commands.label_slides import Annotations

UIDS = ["1.2.840.113.1", "1.2.840.113.2"]


@pytest.fixture
def cohort(tmp_path):
    """Two DICOM slides, each in a folder called by its UID, as archives give them."""
    for uid in UIDS:
        (tmp_path / "cohort" / uid).mkdir(parents=True)
        openslide_file(tmp_path / "cohort" / uid, "boxes_0.dcm")
    return tmp_path / "cohort"


def test_folders_of_dicom_slides_are_called_by_their_whole_names(cohort, tmp_path, monkeypatch):
    inputs = slide_inputs([str(cohort)])
    assert [one.name for one in inputs] == UIDS
    with inputs[1].open() as slide:
        assert slide.name == UIDS[1]
    monkeypatch.setattr(slide_label, "check_model", lambda stored: 27)
    planned = plan_slides(SimpleNamespace(), inputs, tmp_path / "out", SlideOptions())
    assert [one.file(".json").name for one in planned] == [f"{uid}.json" for uid in UIDS]


def test_a_table_and_annotations_find_them_by_that_name(cohort, tmp_path):
    (cohort / "slides.csv").write_text(f"slide\n{UIDS[1]}\n")
    inputs = slide_inputs([str(cohort / "slides.csv")])
    assert [one.path for one in inputs] == [cohort / UIDS[1]]
    (tmp_path / "truth").mkdir()
    for name in (UIDS[1], "1.2.840.113"):  # the second of another slide
        (tmp_path / "truth" / f"{name}.geojson").write_text("{}")
    found = Annotations.of(str(tmp_path / "truth"), (), inputs)
    assert found.file_of(inputs[0].path) == tmp_path / "truth" / f"{UIDS[1]}.geojson"


def test_the_only_class_of_annotations_is_that_of_all_slides(tmp_path):
    inputs = []
    for name, classes in (("a", ["Tumor"]), ("b", ["Normal"]), ("c", ["Tumor", "Normal"])):
        features = [
            {"type": "Feature", "geometry": {"type": "Point", "coordinates": [1, 1]},
             "properties": {"classification": {"name": one}}} for one in classes
        ]  # fmt: skip
        (tmp_path / f"{name}.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
        inputs.append(SlideInput(tmp_path / f"{name}.svs"))
    with pytest.raises(UserError) as caught:
        Annotations.of(str(tmp_path), (), inputs)
    assert str(caught.value) == (
        f"--truth: {tmp_path}: 2 classes, each alone on its slide (Tumor in a.geojson, Normal in b.geojson); say which "
        "are positive (--positive)"
    )
    Annotations.of(str(tmp_path), ("Tumor",), inputs)
    # What is wrong with one annotation alone is said of its slide, when it is labelled.
    Annotations.of(str(tmp_path), (), [inputs[0], inputs[2]])


def test_files_are_called_without_their_endings(tmp_path):
    openslide_file(tmp_path, "small.svs", "a.b.svs")
    assert [one.name for one in slide_inputs([str(tmp_path)])] == ["a.b"]
