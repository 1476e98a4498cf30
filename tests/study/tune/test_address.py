"""Clusters that are not there, or not for us: told in a line, before anything starts."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from d2l_study.cli import main
from d2l_study.errors import UserError
from d2l_study.study.tune import address
from d2l_study.study.tune.address import check_address, find_head


@pytest.fixture(autouse=True)
def in_no_cluster(monkeypatch, tmp_path):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))


@pytest.mark.parametrize(
    ("given", "found"),
    [("local", "local"), ("head", "head:6379"), ("10.0.0.1:7000", "10.0.0.1:7000")],
)
def test_an_address_is_a_host_and_a_port(given, found):
    assert find_head(given) == found


def test_auto_is_what_ray_start_says(monkeypatch, tmp_path):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("10.0.0.1:6379\n")
    assert find_head("auto") == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert find_head("auto") == "10.0.0.2:6379"


def test_auto_without_a_cluster_is_told_at_once_whatever_else_of_ray_runs_here(capsys, tmp_path, monkeypatch):
    def find_any(*words):
        raise AssertionError("Ray's own search finds studies with --address local")

    monkeypatch.setattr("ray._private.services.find_gcs_addresses", find_any)
    assert main(["run", "--space", "smoke", "--root", str(tmp_path / "runs"), "--address", "auto"]) == 2
    said = capsys.readouterr().err.strip()
    assert "this machine is in no Ray cluster" in said and "HOST[:PORT]" in said and len(said.splitlines()) == 1


def test_nothing_listens():
    with pytest.raises(UserError, match="no Ray cluster answers at"):
        check_address("127.0.0.1:1")


def test_something_listens_that_is_no_ray(monkeypatch):
    monkeypatch.setattr(address, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(UserError, match=f"--address {place}: something listens .* not answer as a Ray head"):
            check_address(place)


def test_the_token_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as head, pytest.raises(UserError, match="there is no token"):
        check_address(f"127.0.0.1:{head.getsockname()[1]}")


@pytest.mark.soak
@pytest.mark.ray
def test_the_token_is_another(tmp_path):
    """In processes of their own: Ray reads its token once."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    started = subprocess.Popen([sys.executable, "-c", HEAD], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True,
                               env={**keep, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64})  # fmt: skip
    try:
        place = next(line for line in started.stdout if line.startswith("head ")).split()[1]
        run = [
            sys.executable,
            "-m",
            "d2l_study",
            "run",
            "--space",
            "smoke",
            "--root",
            str(tmp_path),
            "--address",
            place,
        ]
        for mine in ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}, {}):
            said = subprocess.run(run, capture_output=True, text=True, env={**keep, **mine})
            told = said.stderr.strip().splitlines()[-1]
            assert said.returncode == 2 and "Traceback" not in said.stderr
            assert told.startswith("error: ") and "does not let this process in" in told and "auth_token" in told
    finally:
        started.communicate("end\n")


HEAD = """
import ray
ray.init(address="local", include_dashboard=False, num_cpus=0, log_to_driver=False)
print("head", ray.get_runtime_context().gcs_address, flush=True)
input()
ray.shutdown()
"""


FOREIGN = [
    "ray://head:10001",
    "ray://127.0.0.1:1",
    "http://localhost:8265",
    "127.0.0.1:99999",
    "127.0.0.1:x",
    ":6379",
    "h:",
]


@pytest.mark.parametrize("given", FOREIGN)
def test_an_address_of_another_form_is_refused_before_anything_is_asked(given):
    said = f"--address {given}: not allowed; expected local, auto, or the HOST[:PORT]"
    with pytest.raises(UserError, match=re.escape(said)):
        check_address(given)


def test_a_run_that_is_refused_leaves_no_folder_behind(tmp_path, capsys):
    root = tmp_path / "runs"
    assert main(["run", "--space", "smoke", "--root", str(root), "--address", "ray://head"]) == 2
    assert main(["run", "--space", "smoke", "--root", str(root), "--tracking-uri", ""]) == 2
    assert "--address ray://head: not allowed" in capsys.readouterr().err and not root.exists()
