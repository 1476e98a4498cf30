"""`search export`: the searches of a study as a file that optuna-dashboard opens."""

from __future__ import annotations

import contextlib
import os
import shlex
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d2l_study.atomic_files import write_whole
from d2l_study.environment import user_path
from d2l_study.errors import UserError, counted, listed
from d2l_study.nearest_path import path_hint
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.search.optuna_export import MARK, WRITTEN_BY, export_search
from d2l_study.temporary_files import scratch_folder

SQLITE = "sqlite:///"
OPTION = "--storage"


def export_search_of(study: str, root: str, storage: str) -> int:
    """Write the searches of a study as Optuna's studies. Returns the exit code.

    storage: a file, which becomes Optuna's journal, or sqlite:///FILE. A file of an earlier export is replaced; any
    other one is refused with `UserError`, as is a study without a search.
    """
    folder = find_study(study, root)
    document = read_document(folder)
    if document is None:
        raise UserError(f"study {folder.name!r} has no search: its space has no section search, or it has not been run")
    database = storage.startswith(SQLITE)
    if "://" in storage and not database:
        raise UserError(f"{OPTION} {storage}: not a storage that this command writes; expected a file, or {SQLITE}FILE")
    path = user_path(storage.removeprefix(SQLITE) if database else storage, OPTION)
    path = Path(os.path.realpath(path))
    _check_replaceable(path, storage, _is_our_database if database else _is_our_journal)
    with scratch_folder("d2l-search-export-") as scratch:
        made = Path(scratch) / "export"
        with _database(made) if database else _journal(made) as empty:
            found = export_search(folder, document, empty)
        write_whole(path, made.read_bytes())
    trials = sum(sum(states.values()) for states in found.values())
    print(f"{folder.name}: {counted(trials, 'trial')} of {len(found)} {'search' if len(found) == 1 else 'searches'} "
          f"written to {path}")  # fmt: skip
    for name, states in found.items():
        print(f"  {name}: {listed(f'{count} {state.lower()}' for state, count in states.items()) or 'no trials yet'}")
    print(f"  to look at them: optuna-dashboard {shlex.quote(f'{SQLITE}{path}' if database else str(path))}")
    return 0


@contextlib.contextmanager
def _journal(path: Path) -> Any:
    """A new journal of Optuna for the block."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    yield JournalStorage(JournalFileBackend(str(path)))


@contextlib.contextmanager
def _database(path: Path) -> Any:
    """A new database of Optuna for the block."""
    from optuna.storages import RDBStorage

    # The file is given by a connection and not by its address, in which ? and % would mean something.
    storage = RDBStorage("sqlite://", engine_kwargs={"creator": lambda: sqlite3.connect(path)})
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_replaceable(path: Path, storage: str, is_ours: Callable[[Path], bool]) -> None:
    """`UserError` unless a file can be written there, and none is there but an empty one or one of ours."""
    if not path.parent.is_dir():
        raise UserError(f"{OPTION} {storage}: there is no folder {path.parent}{path_hint(path.parent)}")
    if path.is_dir():
        raise UserError(f"{OPTION} {storage}: a folder; expected a file, which is made or replaced")
    if path.exists() and not (path.is_file() and (path.stat().st_size == 0 or is_ours(path))):
        raise UserError(f"{OPTION} {storage}: there, and not only written by this command, so it is not replaced; name "
                        "another file")  # fmt: skip


def _is_our_journal(path: Path) -> bool:
    """Whether a file is a journal of Optuna all of whose studies we wrote."""
    import optuna

    with path.open("rb") as file:
        if not file.read(12).startswith(b'{"op_code":'):
            return False
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with _journal(path) as storage:
            studies = storage.get_all_studies()
    except Exception:  # whatever Optuna stumbles over, it is no journal
        return False
    return all(study.user_attrs.get(MARK) == WRITTEN_BY for study in studies)


def _is_our_database(path: Path) -> bool:
    """Whether a file is a database of Optuna all of whose studies we wrote. It is opened for reading only, since Optuna
    would add its tables to a stranger's."""
    others = (
        "SELECT count(*) FROM studies WHERE study_id NOT IN "
        "(SELECT study_id FROM study_user_attributes WHERE key = ? AND value_json = ?)"
    )
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute(others, (MARK, f'"{WRITTEN_BY}"')).fetchone()
    except sqlite3.Error:
        return False
    return bool(count == 0)
