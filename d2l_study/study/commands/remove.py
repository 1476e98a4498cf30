"""`remove`: delete a study's folder and its MLflow pages. The results of its runs stay in the ledger until `gc`.

Before the folder is deleted, a record under `removed/` of the root says what MLflow is to forget. If the store is away,
a later `sync` of that name deletes the pages.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from d2l_study.command_line import command_text
from d2l_study.credentials import masked
from d2l_study.data.memory_maps import human_bytes
from d2l_study.errors import UserError, counted, listed
from d2l_study.study.ledger import records
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.removal import delete_study
from d2l_study.study_names import can_be_folder


def remove_study(study: str, root: str, yes: bool, tracking_uri: str | None) -> int:
    """Remove a study; without `yes` only print what would go. Returns the exit code. `UserError` if there is no such
    study, or a driver trains it now."""
    folder = _find(study, root)
    objects = folder.storage.walk(folder.key)
    size = human_bytes(sum(found.bytes for found in objects))
    what = f"{folder.storage.shown(folder.key)}: {counted(len(objects), 'file')}, {size}"
    if not yes:
        print(f"{folder.name}: would remove {what}, and its MLflow pages. Results of its runs stay until `gc`.\n"
              "Nothing was removed; with --yes it is.")  # fmt: skip
        return 0
    with lease(folder) as held:
        folder.storage.put(_removal_key(folder.name), records.encode({"study": folder.name}))
        # The plan is what makes a study: killed in the middle, it is still one, and can be removed again.
        for found in sorted(folder.storage.walk(folder.key), key=lambda found: found.key.endswith("/plan.json")):
            if found.key != held.key:
                folder.storage.delete(found.key)
    folder.storage.remove_empty_folders(folder.key)
    print(f"{folder.name}: removed {what}")
    forget_removed(folder.storage, folder.name, tracking_uri)
    gc = command_line("gc", folder.storage)
    print(f"  results of its runs stay; `{gc}` shows what no study names any more")
    return 0


def was_removed(storage: Storage, name: str) -> bool:
    """Whether there is no study of this name now, and one was removed whose MLflow pages may be there still."""
    return can_be_folder(name) and not StudyFolder(storage, name).exists() and storage.exists(_removal_key(name))


def forget_removed(storage: Storage, name: str, tracking_uri: str | None) -> bool:
    """Delete the MLflow pages of a study that was removed; False if the store is away."""
    from d2l_study.study.mlflow.address import resolve_uri

    uri = resolve_uri(tracking_uri, storage.root)
    try:
        gone = delete_study(uri, name, Ledger(storage).knows)
    except UserError as error:
        print(f"  warning: {error}; `{command_line('sync', storage, name)}` deletes its pages later")
        return False
    models = f", with {counted(gone.models, 'model')}" if gone.models else ""
    print(f"  MLflow: {counted(gone.runs, 'run')} of {name} deleted{models} ({masked(uri)})")
    if gone.kept:
        print(f"  registered models stay, with their files: {listed(gone.kept)}")
    if gone.foreign:
        print(f"  {counted(gone.foreign, 'run')} that this root does not know stay: of a study of this name elsewhere?")
    storage.delete(_removal_key(name))
    return True


def command_line(name: str, storage: Storage, *words: str) -> str:
    """A command about this root, as a person types it here."""
    root = [] if storage.root == Path("runs").absolute() else ["--root", masked(str(storage.root))]
    return command_text(shlex.join([name, *words, *root]))


def _find(study: str, root: str) -> StudyFolder:
    """The study, or what is left of it after a removal that was killed."""
    with contextlib.suppress(UserError):
        return find_study(study, root)
    storage = open_storage(root)
    folder = StudyFolder(storage, study)
    if can_be_folder(study) and storage.walk(folder.key):
        return folder
    return find_study(study, root)


def _removal_key(name: str) -> str:
    return f"removed/{name}.json"
