"""The MLflow stores that a study was written to: its folder keeps their addresses (`stores.json`), so that `prune`,
`remove` and `sync` find them without being told again."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from d2l_study import environment
from d2l_study.credentials import MASK, masked
from d2l_study.errors import DamagedError, warn_damaged
from d2l_study.study.ledger import records
from d2l_study.study.ledger.storage import read_record
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.address import resolve_uri, sqlite_path, sqlite_uri

BELOW_ROOT = "root:"
"""Begins the kept address of a sqlite file below the root: a copy of the root has a store of its own there."""


def kept_stores(folder: StudyFolder) -> list[str]:
    """The stores of a study as they are kept, the last one last; empty for a study of an earlier version, and where the
    record is damaged, which gives a warning."""
    try:
        found = read_record(folder.storage, _key(folder), "the study's next `run` makes it anew")
    except FileNotFoundError:
        return []
    except DamagedError as error:
        warn_damaged(str(error))
        return []
    return records.texts(found.get("tracking_uris"))


def keep_store(folder: StudyFolder, uri: str) -> None:
    """Keep the address of a store, without what is secret in it, as the last one of a study."""
    known, kept = kept_stores(folder), kept_form(uri, folder.storage.root)
    if known[-1:] != [kept]:
        uris = [*(other for other in known if other != kept), kept]
        folder.storage.put(_key(folder), records.encode({"tracking_uris": uris}))


def kept_form(uri: str, root: Path | str) -> str:
    """How the address of a store is kept."""
    path = sqlite_path(uri)
    if path is not None and isinstance(root, Path):
        with contextlib.suppress(ValueError):
            return f"{BELOW_ROOT}{path.relative_to(root.absolute()).as_posix()}"
    return masked(uri)


def uri_of(kept: str, root: Path | str) -> str:
    """The address of a store that was kept."""
    return sqlite_uri(Path(root) / kept.removeprefix(BELOW_ROOT)) if kept.startswith(BELOW_ROOT) else kept


def stores_of(given: str | None, root: Path | str, kept: Sequence[str]) -> list[str]:
    """The stores that a command is about: the one that is `given` or that `MLFLOW_TRACKING_URI` names, else those that
    are kept, the last one first, else the root's own."""
    if given or environment.tracking_uri() or not kept:
        return [resolve_uri(given, root)]
    return [uri_of(one, root) for one in reversed(kept)]


def other_stores(uris: Sequence[str], root: Path | str, kept: Sequence[str]) -> list[str]:
    """The kept stores that are not among these, as addresses."""
    ours = {kept_form(uri, root) for uri in uris}
    return [uri_of(one, root) for one in kept if one not in ours]


def unusable_text(uri: str) -> str | None:
    """Why a store can be neither read nor written without more being said; None if that is to be tried."""
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return f"there is no store {path}"
    return f"what is secret in {uri} is not kept with the study" if MASK in uri else None


def _key(folder: StudyFolder) -> str:
    return f"{folder.key}/stores.json"
