"""Studies of one name that several roots have in one MLflow store, whose pages would take each other's place."""

from __future__ import annotations

from collections.abc import Callable

from d2l_study.credentials import masked
from d2l_study.errors import UserError, counted
from d2l_study.study.mlflow.address import client, one_line
from d2l_study.study.mlflow.tags import CONFIG, STUDY, tag_filter


def other_study_text(study: str, runs: int) -> str:
    """What to say of runs in a store that are of another root's study of this name."""
    return f"a study {study!r} of another root is there ({counted(runs, 'run')}); name this one otherwise: --study NAME"


def check_no_other_study(uri: str, study: str, known: Callable[[str], bool]) -> None:
    """`UserError` if the store has runs of a study of this name that are not of this root.

    known: whether a config_id is planned, or was ever planned in this root.
    """
    store, token, foreign = client(uri), None, 0
    try:
        found = store.get_experiment_by_name(study)
        if found is None or found.lifecycle_stage == "deleted":
            return
        while True:
            page = store.search_runs([found.experiment_id], tag_filter(STUDY, study), max_results=500, page_token=token)
            mine = [run.data.tags for run in page if run.data.tags.get(STUDY) == study]
            foreign += sum(CONFIG in tags and not known(tags[CONFIG]) for tags in mine)
            token = page.token
            if not token:
                break
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"tracking URI {masked(uri)!r}: {masked(one_line(error))}") from None
    if foreign:
        raise UserError(f"tracking URI {masked(uri)!r}: {other_study_text(study, foreign)}")
