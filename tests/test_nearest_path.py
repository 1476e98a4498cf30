"""A path that is not there is answered with the one that is probably meant."""

from pathlib import Path

import pytest

from d2l_study.environment import data_root
from d2l_study.errors import UserError
from d2l_study.nearest_path import missing_folder_text, path_hint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data" / "slides").mkdir(parents=True)
    (tmp_path / "data" / "table.csv").write_text("a")
    return tmp_path


def test_a_name_beside_it_is_named(folder: Path) -> None:
    assert path_hint(folder / "data" / "tabel.csv") == "; did you mean 'table.csv'?"
    assert path_hint(folder / "Data") == "; case matters: did you mean 'data'?"
    assert path_hint(folder / "data" / "table.csv") == path_hint(folder / "data" / "other.h5") == ""


def test_a_misspelt_folder_on_the_way_is_named_whole(folder: Path) -> None:
    assert path_hint(folder / "dta" / "slides" / "a.svs") == f"; did you mean '{folder / 'data'}'?"
    assert path_hint(folder / "data" / "table.csv" / "inner") == ""


def test_relative_paths_are_looked_up_where_the_program_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert path_hint(Path("dat")) == "; did you mean 'data'?"
    assert path_hint(Path("data", "slide")) == "; did you mean 'slides'?"


def test_the_data_folder_is_named_with_its_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2L_DATA", str(folder / "dat"))
    with pytest.raises(UserError, match=r"^D2L_DATA: '.*dat' is not a folder; did you mean 'data'\?$"):
        data_root()
    said = missing_folder_text("data.root", "x", folder / "data" / "table.csv")
    assert said == "data.root: 'x' is a file, not a folder"
