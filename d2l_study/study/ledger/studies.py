"""The studies under a root, by name."""

from __future__ import annotations

import os
import shlex

from d2l_study.command_line import command_text
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed, nearest
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study_names import can_be_folder


def list_studies(storage: Storage) -> list[str]:
    """The names of all studies under a root, sorted."""
    return [name for name in storage.list("studies") if StudyFolder(storage, name).exists()]


def find_study(study: str, root: str) -> StudyFolder:
    """A study by its name under `root`, or by its folder `ROOT/studies/<name>`; `UserError` if there is none."""
    path = user_path(study, "STUDY")
    if path.name and os.path.isfile(path / "plan.json"):  # noqa: PTH113 (Path.is_file raises for a name too long)
        path = path.absolute()
        return StudyFolder(open_storage(path.parent.parent), path.name)
    storage = open_storage(root)
    storage.ensure_usable()
    folder = StudyFolder(storage, study)
    if can_be_folder(study) and folder.exists():
        return folder
    names = list_studies(storage)
    where = "" if str(root) == "runs" else f" --root {shlex.quote(str(root))}"
    known = f"studies there: {listed(names)}; {command_text(f'list{where}')} shows them"
    known = known if names else "there are no studies there; --root DIR looks elsewhere"
    shown = study if len(study) <= 100 else f"{study[:99]}…"
    raise UserError(f"no study {shown!r} under {storage.root}{nearest(study, names)} ({known})")
