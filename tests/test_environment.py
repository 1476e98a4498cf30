"""The environment: where data is sought and where caches go."""

import tempfile

import pytest

from d2l_study import environment
from d2l_study.errors import UserError


def test_the_named_cache_folder_comes_first_and_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "a" / "b"))
    assert environment.cache_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_without_a_name_the_users_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("D2L_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment.cache_dir() == tmp_path / ".cache" / "d2l_study"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert environment.cache_dir() == tmp_path / "xdg" / "d2l_study"


def test_a_home_that_cannot_be_written_falls_back_to_the_temp_folder(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("D2L_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made below a file
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = environment.cache_dir()
    assert found.parent == tmp_path and found.is_dir()


def test_no_place_at_all_is_the_users_to_mend(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set D2L_CACHE") as error:
        environment.cache_dir()
    assert str(tmp_path / "file" / "cache") in str(error.value)


def test_tracking_uri(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert environment.tracking_uri() is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert environment.tracking_uri() == "http://tracking:5000"
