"""Deletes a study's runs and models from an MLflow store. `mlflow gc` then frees the space of the runs on the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import UserError
from d2l_study.study.mlflow.address import check_uri, client, one_line, sqlite_path
from d2l_study.study.mlflow.logged_models import delete_model, find_logged_models, versions_of
from d2l_study.study.mlflow.tags import CONFIG, STUDY


@dataclass(frozen=True)
class RemovedStudy:
    """What was deleted: how many runs and models. kept: models that stay, as `NAME VERSION` of the registry; foreign:
    runs of another root's study of the same name, which stay."""

    runs: int = 0
    models: int = 0
    kept: tuple[str, ...] = ()
    foreign: int = 0


def delete_study(uri: str, study: str, known: Callable[[str], bool] = lambda config: True) -> RemovedStudy:
    """Delete the runs of a study, its models but registered ones, and its experiment unless it holds something else.

    known: whether the study's root has a configuration: where the store has runs of others, they are of another root's
    study of the same name, and stay. A store that does not exist is not made. `UserError` if the store cannot be
    reached or written.
    """
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return RemovedStudy()
    check_uri(uri)
    try:
        return _delete(client(uri), study, known)
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"tracking URI {masked(uri)!r}: {masked(one_line(error))}") from None


def _delete(store: Any, study: str, known: Callable[[str], bool]) -> RemovedStudy:
    found = store.get_experiment_by_name(study)
    if found is None or found.lifecycle_stage == "deleted":
        return RemovedStudy()
    mine, others, token = [], 0, None
    while True:
        page = store.search_runs([found.experiment_id], max_results=500, page_token=token)
        mine += [run for run in page if run.data.tags.get(STUDY) == study]
        others += sum(run.data.tags.get(STUDY) != study for run in page)
        token = page.token
        if not token:
            break
    configs = {run.info.run_id: run.data.tags.get(CONFIG) for run in mine}
    foreign = {config for config in configs.values() if config is not None and not known(config)}
    if foreign:  # then the study's own run is theirs, too
        mine = [run for run in mine if configs[run.info.run_id] not in (None, *foreign)]
    models, kept = 0, []
    for model in find_logged_models(store, [found.experiment_id], STUDY, study):
        if versions := versions_of(store, model):
            kept += [f"{version.name} {version.version}" for version in versions]
        elif model.tags.get(CONFIG) not in foreign:
            delete_model(store, model)
            models += 1
    for run in mine:
        store.delete_run(run.info.run_id)
    if not others and not kept and not foreign:  # with the experiment `mlflow gc` would delete the models
        store.delete_experiment(found.experiment_id)
    return RemovedStudy(len(mine), models, tuple(kept), len(foreign))
