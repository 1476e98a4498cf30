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


def test_a_named_cache_that_cannot_be_used_is_said_once(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = environment.cache_dir()
    assert environment.cache_dir() == found and found.parent == tmp_path
    said = capsys.readouterr().err
    assert (
        said == f"warning: D2L_CACHE: {tmp_path}/file/cache cannot be used (Not a directory); {found} is used instead\n"
    )


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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("~nosuchuser/a", "data.path: '~nosuchuser/a': there is no user 'nosuchuser' here"),
        ("", "an empty path"),
        ("a\0b", "a zero byte"),
        ("a/" + "é" * 128, "a name of 256 bytes"),
        ("a/" * 2100, "a path of 4199 bytes"),
    ],
)
def test_a_path_that_leads_nowhere_on_any_machine_is_answered_in_a_line(text, words):
    with pytest.raises(UserError) as error:
        environment.user_path(text, "data.path")
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_users_path_has_its_home_opened_out(monkeypatch):
    monkeypatch.setenv("HOME", "/home/one")
    assert str(environment.user_path("~/a", "data.path")) == "/home/one/a"
    assert str(environment.user_path("a/~", "data.path")) == "a/~"


def test_variables_with_an_unknown_home_are_answered_in_a_line(monkeypatch):
    for name, call in (("D2L_CACHE", environment.cache_dir), ("D2L_DATA", environment.data_root)):
        monkeypatch.setenv(name, "~nosuchuser/a")
        with pytest.raises(UserError, match=f"{name}: '~nosuchuser/a'"):
            call()


def test_what_the_system_says_of_a_file_is_said_in_a_line(tmp_path):
    with (
        pytest.raises(UserError, match=rf"^data: {tmp_path}: Is a directory$"),
        environment.file_errors_as_user_errors("data"),
    ):
        tmp_path.read_bytes()


def test_that_the_reader_of_our_output_has_gone_is_no_error_of_a_file():
    """`data | head`: the command ends quietly (`cli.entry`)."""
    with pytest.raises(BrokenPipeError), environment.file_errors_as_user_errors("data"):
        raise BrokenPipeError(32, "Broken pipe")
