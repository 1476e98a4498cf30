"""Roots whose names hold what addresses and shells read as something else: all lies below them, nothing beside."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from empty_store import empty_store
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_study import make_study

import analysis
from analysis.report.mlflow_links import find_mlflow_links
from d2l_study.cli import main
from d2l_study.errors import UserError
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.mlflow.address import resolve_uri, sqlite_path, sqlite_uri

COUNT = itertools.count()
NAMES = st.text(st.sampled_from("%23045?#&=+ '\"\\äß漢;:@~!$()[]{}*^|<>,.-_ab`"), min_size=1, max_size=12).filter(
    lambda name: name.strip(". ") and not name.startswith("~")
)


@pytest.fixture(autouse=True)
def _no_other_store(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(NAMES)
def test_the_database_of_a_root_lies_in_it_and_is_found_again(tmp_path, monkeypatch, name):
    """As SQLAlchemy opens what MLflow hands it, after MLflow has made what it takes for the folder."""
    from mlflow.store.db.utils import _make_parent_dirs_if_sqlite
    from mlflow.utils.uri import extract_db_type_from_uri
    from sqlalchemy import create_engine, text

    here = tmp_path / f"{next(COUNT)}"
    root = here / name
    root.mkdir(parents=True)
    monkeypatch.chdir(here)
    uri = resolve_uri(None, root)
    assert sqlite_path(uri) == root / "mlflow.db" and resolve_uri(uri, "elsewhere") == uri
    assert extract_db_type_from_uri(uri) == "sqlite"
    _make_parent_dirs_if_sqlite(uri)
    engine = create_engine(uri)
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE x (y)"))
    engine.dispose()
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("x",)]
    assert [path.relative_to(here) for path in sorted(here.rglob("*"))] == [Path(name), Path(name, "mlflow.db")]
    storage = LocalStorage(root)
    storage.put("studies/x/plan.json", b"{}")
    assert storage.read("studies/x/plan.json") == b"{}" and storage.list("studies") == ["x"]


def test_a_plain_root_keeps_the_address_it_always_had(tmp_path):
    for name in ("runs", "a b", "größe", "x=1,y+2@z"):
        assert sqlite_uri(tmp_path / name / "mlflow.db") == f"sqlite:///{tmp_path / name / 'mlflow.db'}"
    assert sqlite_path("sqlite:////a/b.db?timeout=30") == Path("/a/b.db")
    assert sqlite_path("sqlite:////a%20b/c.db") == Path("/a b/c.db")  # as SQLAlchemy reads it
    with pytest.raises(UserError, match="cannot be printed"):
        sqlite_uri(Path("/a\udcff"))


ODD = "a%20b?c=1#d e's \"漢"


@pytest.mark.soak
def test_a_study_under_an_odd_root_is_shown_by_mlflow_and_its_pages_are_found(
    tmp_path, tmp_path_factory, monkeypatch, capsys
):
    root = tmp_path / "here" / ODD
    make_study(root, num_bags=(50,), bag_sizes=(10,), methods=("none",), replicates=2, with_predictions=True)
    shutil.copy(empty_store(tmp_path_factory), root / "mlflow.db")
    monkeypatch.chdir(tmp_path / "here")
    assert main(["sync", "made", "--root", ODD]) == 0
    assert "1 configurations new" in capsys.readouterr().out
    uri = resolve_uri(None, root)
    assert len(analysis.load(f"mlflow:{uri}#made")) == 2 and len(find_mlflow_links("made", uri).by_config) == 1
    assert sorted(path.name for path in root.iterdir()) == ["mlartifacts", "mlflow.db", "results", "studies"]
    assert [path.name for path in (tmp_path / "here").iterdir()] == [ODD]
    ui = subprocess.Popen([sys.executable, "-m", "d2l_study", "ui", "--root", ODD, "--port", "0"], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=tmp_path / "here")  # fmt: skip
    try:
        address = next(found[1] for line in ui.stdout if (found := re.match(r"MLflow: (http://\S+)", line)))
        page = next(line for line in ui.stdout if line.startswith("  made: "))
        experiment = re.search(r"experiments/(\d+)/", page)[1]
        body = json.dumps({"experiment_ids": [experiment]}).encode()
        asked = urllib.request.Request(f"{address}/ajax-api/2.0/mlflow/runs/search", body,
                                       {"Content-Type": "application/json"})  # fmt: skip
        found = json.load(urllib.request.urlopen(asked))["runs"]
        (child,) = [run for run in found if any(tag["key"] == "d2l.config_id" for tag in run["data"]["tags"])]
        query = urllib.parse.urlencode({"path": "config.yaml", "run_uuid": child["info"]["run_id"]})
        assert b"num_bags" in urllib.request.urlopen(f"{address}/get-artifact?{query}").read()
    finally:
        ui.terminate()
        ui.wait(60)
