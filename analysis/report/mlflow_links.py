"""Where the MLflow pages of a study's configurations are, for links in a report; nothing where that is not known."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

UI_ADDRESS = "http://127.0.0.1:5000"
"""Where `d2l ui` shows a local store, unless told otherwise."""


@dataclass(frozen=True)
class MlflowLinks:
    """config_id -> address of its page; `note` says when the addresses work."""

    by_config: Mapping[str, str] = field(default_factory=dict)
    study: str = ""
    note: str = ""


def find_mlflow_links(study: str, uri: str | None) -> MlflowLinks:
    """The pages of a study in the store at `uri`: a server, or a local sqlite file, whose pages `ui` shows. Empty if
    there is no store, it cannot be asked, or it does not hold the study."""
    if not uri:
        return MlflowLinks()
    from d2l_study.study.mlflow.address import is_http, sqlite_path

    path = sqlite_path(uri)
    with contextlib.suppress(Exception):  # a link is a courtesy: no store may hold a report up
        if is_http(uri):
            return MlflowLinks(*_of_server(study, uri), note="")
        if path is not None and path.exists():
            pages, own = _of_file(study, str(path))
            return MlflowLinks(
                pages,
                own,
                f"Links work on the machine of the study while “d2l ui” runs ({UI_ADDRESS}).",
            )
    return MlflowLinks()


def _of_server(study: str, uri: str) -> tuple[dict[str, str], str]:
    from d2l_study.study.mlflow.address import check_uri, client
    from d2l_study.study.mlflow.tags import CONFIG, KIND

    check_uri(uri)
    store = client(uri)
    experiment = store.get_experiment_by_name(study)
    found: dict[str, str] = {}
    own, token = "", None
    while experiment is not None:
        some = store.search_runs([experiment.experiment_id], max_results=1000, page_token=token)
        for run in some:
            address = _address(uri, experiment.experiment_id, run.info.run_id)
            if run.data.tags.get(KIND) == "study":
                own = address
            elif CONFIG in run.data.tags:
                found[run.data.tags[CONFIG]] = address
        token = some.token
        if not token:
            break
    return found, own


def _of_file(study: str, path: str) -> tuple[dict[str, str], str]:
    """Read from MLflow's tables directly, since MLflow itself takes seconds to load; read-only."""
    from d2l_study.study.mlflow.tags import CONFIG, KIND

    query = (
        "SELECT r.experiment_id, r.run_uuid, t.key, t.value FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid "
        "JOIN experiments e ON e.experiment_id = r.experiment_id "
        "WHERE e.name = ? AND r.lifecycle_stage = 'active' AND t.key IN (?, ?)"
    )
    with contextlib.closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, timeout=2)) as database:
        rows = database.execute(query, (study, CONFIG, KIND)).fetchall()
    found = {value: _address(UI_ADDRESS, e, run) for e, run, key, value in rows if key == CONFIG}
    own = next((_address(UI_ADDRESS, e, run) for e, run, key, value in rows if key == KIND and value == "study"), "")
    return found, own


def _address(server: str, experiment: str | int, run: str) -> str:
    from d2l_study.study.mlflow.address import page_server
    from d2l_study.study.mlflow.links import run_path

    return f"{page_server(server)}/{run_path(str(experiment), run)}"
