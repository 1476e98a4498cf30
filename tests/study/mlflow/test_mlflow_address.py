"""The address of an MLflow store: which one is meant, that it can serve, and how a new one is made."""

import socket
import threading
from pathlib import Path

import pytest
from empty_store import empty_store

from d2l_study import temporary_files
from d2l_study.errors import UserError
from d2l_study.study.mlflow.address import StoreUnreachable, _create_sqlite, check_uri, resolve_uri, sqlite_uri


def test_the_flag_comes_before_the_variable_and_both_before_the_root(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert resolve_uri(None, tmp_path) == "http://server:5000"
    monkeypatch.chdir(tmp_path)
    assert resolve_uri("sqlite:///own.db", tmp_path) == f"sqlite:///{tmp_path}/own.db"


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("localhost:5000", "did you mean 'http://localhost:5000'"),
        ("./mlruns", "store of plain files"),
        ("file:///tmp/mlruns", "store of plain files"),
        ("ftp://host/x", "expected http://"),
        ("sqlite://", "expected http://"),
        ("http://127.0.0.1:9", "connection refused"),
        ("sqlite:////dev/null/mlflow.db", "there is no folder /dev/null"),
        ("sqlite:////proc/version", "cannot write /proc/version"),
    ],
)
def test_an_address_that_cannot_serve_is_named_before_anything_runs(bad, told):
    with pytest.raises(UserError) as caught:
        check_uri(bad)
    assert told in str(caught.value) and bad in str(caught.value) and "\n" not in str(caught.value)


def test_of_two_processes_that_make_a_store_at_once_the_first_one_stays(tmp_path, monkeypatch):
    path, made = tmp_path / "mlflow.db", []

    class Client:
        def __init__(self, uri):
            self.path = Path(uri.removeprefix("sqlite:///"))

        def search_experiments(self, max_results):
            made.append(self.path)
            self.path.write_text("ours")
            path.write_text("theirs")

    monkeypatch.setattr("d2l_study.study.mlflow.address.client", Client)
    _create_sqlite(path)
    assert path.read_text() == "theirs" and made[0] != path and [*tmp_path.iterdir()] == [path]


def test_a_file_that_is_no_store_is_left_as_it_was(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, but somebody's notes\n" * 20)
    before = (tmp_path / "notes.db").read_bytes()
    with pytest.raises(UserError, match="not a database"):
        check_uri(f"sqlite:///{tmp_path}/notes.db")
    assert (tmp_path / "notes.db").read_bytes() == before


def test_a_server_that_never_answers_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="no answer within"):
        check_uri(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.5)


def test_a_store_on_a_busy_machine_is_waited_for_and_a_line_says_so(tmp_path, tmp_path_factory, monkeypatch, capsys):
    """A new one has far longer than a server; one that is there and does not answer is away, not wrong."""
    import d2l_study.study.mlflow.address as address

    empty, path = empty_store(tmp_path_factory), tmp_path / "mlflow.db"
    may_go_on = threading.Event()

    def slow(made):
        assert may_go_on.wait(30)
        made.write_bytes(empty.read_bytes())

    monkeypatch.setattr(address, "SAID_AFTER_SECONDS", 0.2)
    monkeypatch.setattr(address, "_create_sqlite", slow)
    timer = threading.Timer(1.0, may_go_on.set)
    timer.start()
    check_uri(sqlite_uri(path), seconds=0.01)  # 0.1 s would be those of a store that is there
    assert capsys.readouterr().err == f"waiting for MLflow's store, {path} …\n"
    monkeypatch.setattr(address, "client", lambda uri: may_go_on.clear() or may_go_on.wait(30))
    with pytest.raises(
        StoreUnreachable, match=r"no answer within 0.1 s; if this machine .* same command again"
    ) as away:
        check_uri(sqlite_uri(path), seconds=0.01)
    may_go_on.set()
    assert away.value.reason.endswith("no answer within 0.1 s")


def test_making_a_store_is_silent(tmp_path_factory):
    path = empty_store(tmp_path_factory)
    assert path.stat().st_size > 0 and path.with_suffix(".txt").read_text() == ""


@pytest.mark.parametrize("there", [True, False])
def test_the_pieces_of_a_store_whose_maker_was_killed_go_at_the_next_command(tmp_path, tmp_path_factory, there):
    empty = empty_store(tmp_path_factory)
    path = tmp_path / "mlflow.db"
    if there:
        path.write_bytes(empty.read_bytes())
    else:
        # What making one costs is not of interest here.
        import d2l_study.study.mlflow.address as address

        made = address.client
        address.client = lambda uri: made(uri) if ".part" not in uri else _Copies(uri, empty)
    for name in (".mlflow.db.0123abcd.part", ".mlflow.db.0123abcd.part-journal", ".mlflow.db.0123abcd.part.lock"):
        (tmp_path / name).write_bytes(b"")
    with temporary_files.held(tmp_path / ".mlflow.db.4567abcd.part.lock"):
        (tmp_path / ".mlflow.db.4567abcd.part").write_bytes(b"")
        try:
            check_uri(sqlite_uri(path))
        finally:
            if not there:
                address.client = made
        left = sorted(p.name for p in tmp_path.iterdir())
    assert left == [".mlflow.db.4567abcd.part", ".mlflow.db.4567abcd.part.lock", "mlflow.db"]


class _Copies:
    def __init__(self, uri, empty):
        self.uri, self.empty = uri, empty

    def search_experiments(self, max_results):
        from d2l_study.study.mlflow.address import sqlite_path

        sqlite_path(self.uri).write_bytes(self.empty.read_bytes())
