"""Where a study has its data: the keys of `data` that are in no id come from its last `run`."""

import pytest

from d2l_study.data.features.bags import MADE
from d2l_study.study.space.data_location import at_places, located_data, with_absolute_paths, without_location

FEATURES = {"dataset": "features", "path": "/old/slides.csv", "root": "/old/f", "label_column": "msi", "folds": 5,
            "skip_empty": False}  # fmt: skip


@pytest.mark.parametrize(("space", "found"), [
    ({}, ("/old/slides.csv", "/old/f")),  # resolved.json is lost
    ({"description": "d"}, ("/old/slides.csv", "/old/f")),  # or says nothing of arms and data
    ({"methods": {"vat": {}}}, (None, None)),  # this study gives neither
    ({"data": {"path": "/new/slides.csv", "root": "/new/f", "folds": 9}}, ("/new/slides.csv", "/new/f")),
    ({"data": {"path": ["/new/slides.csv"]}}, ("/new/slides.csv", None)),  # an axis of one; this study gives no root
    ({"data": {"path": "/x"}, "methods": {"vat": {"data": {"path": "/arm.csv"}}}}, ("/arm.csv", None)),
    ({"data": {"path": "/x"}, "methods": {"none": {"data": {"path": "/arm.csv"}}}}, ("/x", None)),
    ({"data": {"path": "slides.csv", "root": "~/f"}}, ("/old/slides.csv", "~/f")),  # from which folder is not known
    ({"data": {"path": "musk1"}}, ("musk1", None)),
])  # fmt: skip
def test_paths_are_those_of_the_last_run_and_the_science_stays(space, found):
    data = located_data(FEATURES, space, "vat")
    assert (data["path"], data["root"]) == found
    assert without_location(data) == without_location(FEATURES) == {
        "dataset": "features", "label_column": "msi", "folds": 5,
    }  # fmt: skip


def test_paths_are_written_so_that_they_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"path": "a/slides.csv", "root": None, "splits": MADE, "label_column": "a", "label_table": ("t.csv",)}
    assert with_absolute_paths(given) == {
        **given, "path": str(tmp_path / "a/slides.csv"), "label_table": (str(tmp_path / "t.csv"),),
    }  # fmt: skip
    assert with_absolute_paths({"path": "musk1"}) == {"path": "musk1"}


def test_a_space_that_is_read_again_has_its_data_where_it_had_them():
    known = {"path": "/new/slides.csv", "root": "/gone", "folds": 9}
    assert at_places({"path": "slides.csv", "folds": 5}, known) == {"path": "/new/slides.csv", "folds": 5}
