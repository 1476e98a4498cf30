"""Studies of one name that several roots have in one MLflow store, whose pages would take each other's place."""

from __future__ import annotations

from collections.abc import Callable

from d2l_study.credentials import masked
from d2l_study.errors import UserError, counted
from d2l_study.study.mlflow.address import client, one_line
from d2l_study.study.mlflow.tags import CONFIG, runs_of_study


def other_study_text(study: str, runs: int) -> str:
    """What to say of runs in a store that are of another root's study of this name."""
    return f"a study {study!r} of another root is there ({counted(runs, 'run')}); name this one otherwise: --study NAME"


def check_no_other_study(uri: str, study: str, known: Callable[[str], bool]) -> None:
    """`UserError` if the store has runs of a study of this name that are not of this root.

    known: whether a config_id is planned, or was ever planned in this root.
    """
    store = client(uri)
    try:
        found = store.get_experiment_by_name(study)
        if found is None or found.lifecycle_stage == "deleted":
            return
        tags = [run.data.tags for run in runs_of_study(store, found.experiment_id, study)]
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"tracking URI {masked(uri)!r}: {masked(one_line(error))}") from None
    if foreign := sum(CONFIG in own and not known(own[CONFIG]) for own in tags):
        raise UserError(f"tracking URI {masked(uri)!r}: {other_study_text(study, foreign)}")
