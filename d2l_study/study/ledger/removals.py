"""What a root remembers of a study that was removed, until its MLflow pages are gone: `ROOT/removed/NAME.json`.

It names the configurations, since `gc` may delete their results before a store that was away is back: the pages would
then look like those of another root's study.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from d2l_study.errors import DamagedError, warn_damaged
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.storage import Storage, read_record


@dataclass(frozen=True)
class Removal:
    """stores: those that have pages of the study still, as `study_stores` keeps them; empty where no `run` kept them;
    configurations: their config_ids."""

    stores: tuple[str, ...] = ()
    configurations: frozenset[str] = frozenset()


def read_removal(storage: Storage, name: str) -> Removal | None:
    """What is remembered of a removed study of this name; None if nothing is. A damaged record gives a warning, and
    says no more than that one was removed."""
    try:
        found = read_record(storage, _key(name), "`sync NAME --tracking-uri URI` deletes the study's MLflow pages")
    except FileNotFoundError:
        return None
    except DamagedError as error:
        warn_damaged(str(error))
        return Removal()
    return Removal(
        tuple(records.texts(found.get("tracking_uris"))), frozenset(records.texts(found.get("configurations")))
    )


def write_removal(storage: Storage, name: str, removal: Removal) -> None:
    """Remember this of a removed study, instead of what was."""
    content = {"study": name, "tracking_uris": [*removal.stores], "configurations": sorted(removal.configurations)}
    storage.put(_key(name), records.encode(content))


def add_removal(storage: Storage, name: str, stores: Iterable[str], configurations: Iterable[str]) -> None:
    """Remember a study that is about to be removed, besides what is known of an earlier one of its name."""
    known = read_removal(storage, name) or Removal()
    both = tuple(dict.fromkeys((*known.stores, *stores)))
    write_removal(storage, name, Removal(both, known.configurations.union(configurations)))


def forget_removal(storage: Storage, name: str) -> None:
    """Remember nothing of a removed study."""
    storage.delete(_key(name))


def known_here(storage: Storage, name: str) -> Callable[[str], bool]:
    """Tells whether the root has or had a configuration: its own, or of a removed study of this name."""
    removal, ledger = read_removal(storage, name) or Removal(), Ledger(storage)
    return lambda config: config in removal.configurations or ledger.knows(config)


def _key(name: str) -> str:
    return f"removed/{name}.json"
