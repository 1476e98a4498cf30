"""What is secret is masked, whoever writes it down; what is not stays as it is."""

from __future__ import annotations

import re
import shlex
import stat
import string
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_study import make_study

from d2l_study.cli import main
from d2l_study.credentials import masked, masked_values
from d2l_study.errors import UserError
from d2l_study.study.ledger import provenance
from d2l_study.study.mlflow.address import page_server

SECRET = "hunter2"
HOLD = [
    f"http://me:{SECRET}@host:5000", f"https://{SECRET}@host/path", f"postgresql+psycopg2://me:{SECRET}@db:5432/x",
    f"http://me:a@{SECRET}@host", f"http://me:a/{SECRET}@host", f"http://me:a?{SECRET}#@host/x",
    f"http://host/?token={SECRET}", f"http://host:1/x?a=1&access_token={SECRET}&b=2", f"s3://b/x?secret_key={SECRET}",
    f"https://x.blob.core.windows.net/c?sv=1&sig={SECRET}", f"abfs://files:{SECRET}@account/x",
    f"http://host?X-Amz-Signature={SECRET}", f"mysql://db/x?password={SECRET};a=1", f"data.password={SECRET}",
    f"http://host?API-KEY={SECRET}", f"HTTP://me:{SECRET}@host",
]  # fmt: skip
HOLD_NOTHING = [
    "http://host:5000/#/experiments/1/runs?viewStateShareKey=d2l", "abfs://container@account/folder", "a@b.org",
    "s3://bucket/x?region=eu-central-1&endpoint_override=http://127.0.0.1:9000", "sqlite:////home/me@home/mlflow.db",
    "tokens=5 num_tokens=3 sigma=1.5 secretary=x", "postgresql://me@db/x", "teacher.epsilon=2", "ssh://git@host/x",
    "see http://host:80 and mail me@b", "", "git@github.com:x/y.git", "x = y", "10:30 a://b c@d",
]  # fmt: skip


@pytest.mark.parametrize("text", HOLD)
@pytest.mark.parametrize("around", ["{}", "error: '{}': no answer", 'run --tracking-uri={} --x "{}"', "<a href='{}'>"])
def test_a_secret_is_masked_wherever_it_stands(text, around):
    found = masked(around.replace("{}", text))
    assert SECRET not in found and "***" in found and masked(found) == found


@pytest.mark.parametrize("text", HOLD_NOTHING)
def test_what_lets_nobody_in_stays(text):
    assert masked(text) == text and masked_values({"a": [text, (1, text)]}) == {"a": [text, (1, text)]}


@settings(derandomize=True, max_examples=300)
@given(st.text(string.ascii_letters + string.digits + "!$%&*+,-.:;=?@^_~/", min_size=8, max_size=20))
def test_no_password_is_left_of_a_command_line(password):
    if "://" in password or "=" in password:
        return
    uri = f"http://me:{password}@host:5000/x"
    if re.match(r"\d{0,5}[/?]", password):
        return  # a port and what follows it, as far as anybody can tell
    assert password not in shlex.join(["run", masked(f"--tracking-uri={uri}"), masked(uri)])


def test_a_message_is_masked_whoever_raises_it():
    assert str(UserError(f"tracking URI 'http://me:{SECRET}@host'")) == "tracking URI 'http://***@host'"


def test_a_link_has_no_user():
    assert page_server(f"https://me:{SECRET}@host:8443/mlflow/?token={SECRET}") == "https://host:8443/mlflow"


@pytest.mark.parametrize("how", ["option", "variable"])
def test_no_command_says_what_the_address_of_a_store_holds(how, tmp_path, monkeypatch, capsys):
    uri = f"http://me:{SECRET}@127.0.0.1:9/?token={SECRET}"
    make_study(tmp_path, num_bags=(50,), replicates=1)
    words = ["--root", str(tmp_path)]
    if how == "option":
        words += ["--tracking-uri", uri]
    else:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    for command in (["sync", "made"], ["ui"], ["run", "--space", "smoke"]):
        assert main([*command, *words]) == 2
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err and said.err.count("http://***@127.0.0.1:9/?token=***") == 3


def test_a_study_keeps_no_secret_and_what_may_hold_one_for_its_owner_alone(tmp_path, monkeypatch):
    words = ["run", "--space", "smoke", f"--tracking-uri=http://me:{SECRET}@host", "--set", f"x=s3://a:{SECRET}@b"]
    monkeypatch.setattr(sys, "argv", ["d2l_study", *words])
    origin = provenance.collect()
    assert SECRET not in str(origin) and "http://***@host" in origin["command"]
    old = {"provenance": {"command": f"run http://me:{SECRET}@host"}}
    assert SECRET not in str(provenance.earlier_commands(old, origin))
    folder = make_study(tmp_path, num_bags=(50,), replicates=1)
    folder.write("", {"provenance": origin}, folder.plan())
    file = tmp_path / folder.key / "resolved.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_difference_of_a_checkout_is_that_of_its_code(tmp_path):
    for name in ("d2l_study/code.py", "search_spaces/a.yaml", "pyproject.toml", "keys.txt", ".env", "notes/x.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before\n")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A", "-f"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    for name in ("keys.txt", ".env", "notes/x.yaml"):
        (tmp_path / name).write_text(f"{SECRET}\n")
    (tmp_path / "d2l_study" / "password.txt").write_text(SECRET)
    assert provenance.commit.__wrapped__(tmp_path)[1] is False
    (tmp_path / "pyproject.toml").write_text("after\n")
    (tmp_path / "search_spaces" / "b.yaml").write_text("new\n")
    provenance.commit.cache_clear()
    found = provenance.local_difference.__wrapped__(tmp_path)
    assert b"+after" in found.patch and b"+new" in found.patch and SECRET.encode() not in found.patch
    provenance.commit.cache_clear()
