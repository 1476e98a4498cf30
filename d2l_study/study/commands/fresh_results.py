"""Studies that were run with `--fresh`: which of their runs are of other studies still, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study.errors import counted, listed

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.commands.prepare_study import PreparedStudy
    from d2l_study.study.ledger.study_folder import StudyFolder


def unfinished_runs(study: PreparedStudy, rows: pandas.DataFrame) -> int:
    """How many runs a command has left. With `--fresh` these are also the runs that are asked for and that another
    study has made, which stand in the rows meanwhile. rows: those of the study."""
    left = int((rows["status"] == "missing").sum())
    if not study.options.fresh:
        return left
    asked = {c.config_id for c in study.plan.configurations}
    return left + sum(
        row["config_id"] in asked and row["replicate"] < study.plan.replicates
        for row in runs_of_others(study.folder, rows.to_dict("records"))
    )


def runs_of_others(folder: StudyFolder, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of a study that were made by others; none if the study was never run with `--fresh`, since it is to
    share their work then."""
    if folder.fresh_of is None:
        return []
    return [row for row in rows if isinstance(by := row.get("made_by"), str) and by != folder.name]


def text_of_others(found: Sequence[Mapping[str, Any]]) -> str:
    """That some runs of a study are of others, and how to change that. found: these runs, at least one."""
    makers = listed(sorted({str(row["made_by"]) for row in found}))
    is_or_are = "is" if len(found) == 1 else "are"
    return f"{counted(len(found), 'run')} {is_or_are} of other studies ({makers}), which `run --fresh` trains again"


def forget_fresh_attempts(study: PreparedStudy) -> None:
    """Without `--fresh`, let the results of other studies stand again for runs that failed or were ended early when
    they were to be trained afresh."""
    folder = study.folder
    if study.options.fresh or folder.fresh_of is None:
        return

    def forget(run: tuple[str, int]) -> None:
        found = folder.ledger.read(*run, folder.fresh_of)
        if found is not None and found["row"].get("made_by") != folder.name:
            folder.clear_failure(*run)
            folder.ledger.forget_pruned(*run, folder.name)

    folder.storage.map(forget, [(config, r) for config, done in study.plan.done.items() for r in sorted(done)])
