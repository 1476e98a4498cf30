"""The secret of a Ray that a study starts: nobody else's, and nowhere to be read. That of a real one is in
`study/commands/test_run.py`."""

from __future__ import annotations

import os

import pytest

from d2l_study.study.tune import auth_token


@pytest.mark.parametrize(("mode", "told"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True)])
def test_a_token_that_others_can_read_is_said_with_what_to_type(tmp_path, monkeypatch, mode, told):
    file = tmp_path / "a b" / "token"
    file.parent.mkdir()
    file.write_text("0" * 64)
    file.chmod(mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    said = auth_token.token_file_warning()
    assert (said is not None) == told
    if said is not None:
        assert said.endswith(f"chmod 600 '{file}'") and f"{mode:04o}" in said and "\n" not in said


def test_no_token_no_home_no_warning(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    for home in (tmp_path, "/proc/1/nowhere", "/dev/null"):
        monkeypatch.setenv("HOME", str(home))
        assert auth_token.token_file_warning() is None


def test_a_token_that_the_user_names_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    with auth_token.own_token():
        assert os.environ["RAY_AUTH_TOKEN"] == "mine"
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    with auth_token.own_token():
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert "RAY_AUTH_TOKEN" not in os.environ
