"""`remove`: delete a study's folder and its MLflow pages. The results of its runs stay in the ledger until `gc`.

Before the folder is deleted, a record under `removed/` of the root says what MLflow is to forget. It stays while a
store of the study is away, or none was found that held anything of it: a later `sync` of that name deletes the pages.
"""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path

from d2l_study.command_line import command_text
from d2l_study.credentials import masked
from d2l_study.data.memory_maps import human_bytes
from d2l_study.errors import DamagedError, UserError, counted, listed
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.removals import (
    Removal,
    add_removal,
    forget_removal,
    known_here,
    read_removal,
    write_removal,
)
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.removal import delete_study
from d2l_study.study.mlflow.study_stores import kept_form, kept_stores, other_stores, stores_of, unusable_text
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
        add_removal(folder.storage, folder.name, kept_stores(folder), _planned(folder))
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
    return (
        can_be_folder(name) and not StudyFolder(storage, name).exists() and read_removal(storage, name) is not None
    )  # fmt: skip


def forget_removed(storage: Storage, name: str, tracking_uri: str | None) -> bool:
    """Delete the MLflow pages of a study that was removed; False if a store is away or not there. What is remembered of
    the study goes once no store of its is left."""
    removal = read_removal(storage, name) or Removal()
    uris = stores_of(tracking_uri, storage.root, removal.stores)
    done = [uri for uri in uris if _forget_in(uri, storage, name, kept_form(uri, storage.root) in removal.stores)]
    left = other_stores(done, storage.root, removal.stores)
    for uri in other_stores(uris, storage.root, removal.stores):
        sync = command_line("sync", storage, name, "--tracking-uri", masked(uri))
        print(f"  MLflow: it was written to {masked(uri)} as well; `{sync}` deletes its pages there")
    if done and not left:
        forget_removal(storage, name)
    else:
        stores = tuple(kept_form(uri, storage.root) for uri in left)
        write_removal(storage, name, Removal(stores, removal.configurations))
    return len(done) == len(uris)


def _forget_in(uri: str, storage: Storage, name: str, kept: bool) -> bool:
    """Delete a removed study's pages in one store; whether it is done with. kept: whether the study was written to it;
    in another one that has nothing of the study, its pages may be elsewhere."""
    sync = command_line("sync", storage, name, "--tracking-uri", "URI")
    elsewhere = "" if kept else f"; if {name} was written to another store, `{sync}` deletes its pages there"
    if problem := unusable_text(uri):
        print(f"  MLflow: nothing deleted: {problem}{elsewhere or f'; once it is there, `{sync}` deletes its pages'}")
        return False
    try:
        gone = delete_study(uri, name, known_here(storage, name))
    except UserError as error:
        print(f"  warning: {error}; `{command_line('sync', storage, name)}` deletes its pages later")
        return False
    if not (kept or gone.runs or gone.models or gone.kept or gone.foreign):
        print(f"  MLflow: nothing of {name} is in {masked(uri)}{elsewhere}")
        return False
    models = f", with {counted(gone.models, 'model')}" if gone.models else ""
    print(f"  MLflow: {counted(gone.runs, 'run')} of {name} deleted{models} ({masked(uri)})")
    if gone.kept:
        print(f"  registered models stay, with their files: {listed(gone.kept)}")
    if gone.foreign:
        print(f"  {counted(gone.foreign, 'run')} that this root does not know stay: of a study of this name elsewhere?")
    return True


def command_line(name: str, storage: Storage, *words: str) -> str:
    """A command about this root, as a person types it here."""
    root = [] if storage.root == Path("runs").absolute() else ["--root", masked(str(storage.root))]
    return command_text(shlex.join([name, *words, *root]))


def _planned(folder: StudyFolder) -> set[str]:
    """The config_ids of the plan, as far as it can be read."""
    with contextlib.suppress(FileNotFoundError, DamagedError):
        return folder.planned()
    return set()


def _find(study: str, root: str) -> StudyFolder:
    """The study, or what is left of it after a removal that was killed."""
    with contextlib.suppress(UserError):
        return find_study(study, root)
    storage = open_storage(root)
    folder = StudyFolder(storage, study)
    if can_be_folder(study) and storage.walk(folder.key):
        return folder
    return find_study(study, root)
