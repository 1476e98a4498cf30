"""Deletes a study's runs from an MLflow store. `mlflow gc` then frees their space on the disk."""

from __future__ import annotations

from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import UserError
from d2l_study.study.mlflow.address import check_uri, client, one_line, sqlite_path
from d2l_study.study.mlflow.tags import STUDY


def delete_study(uri: str, study: str) -> int:
    """Delete the runs of a study, and its experiment unless it holds other runs; returns how many runs there were.

    A store that does not exist is not made. `UserError` if the store cannot be reached or written."""
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return 0
    check_uri(uri)
    try:
        return _delete(client(uri), study)
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"tracking URI {masked(uri)!r}: {masked(one_line(error))}") from None


def _delete(store: Any, study: str) -> int:
    found = store.get_experiment_by_name(study)
    if found is None or found.lifecycle_stage == "deleted":
        return 0
    mine, others, token = [], 0, None
    while True:
        page = store.search_runs([found.experiment_id], max_results=500, page_token=token)
        mine += [run.info.run_id for run in page if run.data.tags.get(STUDY) == study]
        others += sum(run.data.tags.get(STUDY) != study for run in page)
        token = page.token
        if not token:
            break
    for run_id in mine:
        store.delete_run(run_id)
    if not others:
        store.delete_experiment(found.experiment_id)
    return len(mine)
