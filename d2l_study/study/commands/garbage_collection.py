"""`gc`: show or delete results that no study names any more, and what lost attempts have left."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from d2l_study.data.memory_maps import human_bytes
from d2l_study.errors import counted
from d2l_study.study.commands.find_garbage import RECORD, RESULTS, Garbage, find_garbage, storage_clock
from d2l_study.study.ledger.gc_lock import gc_lock_held
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.storage import Stored


def collect_garbage(root: str, delete: bool) -> int:
    """Print what `gc` would delete under a root; with `delete`, delete it. Returns the exit code."""
    storage = open_storage(root)
    storage.ensure_usable()
    if not delete:
        _show(find_garbage(storage, time.time()))
        return 0
    storage.ensure_writable()
    with gc_lock_held(storage):
        found = find_garbage(storage, storage_clock(storage))
        for kind in found.kinds.values():
            records_first = itertools.groupby(sorted(kind, key=_is_data), key=_is_data)
            for _, objects in records_first:
                storage.map(lambda one: storage.delete(one.key), objects)
        for folder in {key.rpartition("/")[0] for key in _keys(found)}:
            storage.remove_empty_folders(folder)
        storage.remove_empty_folders("results")
    _show(found, deleted=True)
    return 0


def _keys(found: Garbage) -> Iterable[str]:
    return (one.key for objects in found.kinds.values() for one in objects)


def _show(found: Garbage, deleted: bool = False) -> None:
    if not found.kinds:
        print("nothing to collect: studies name all that is there")
        return
    for kind, objects in found.kinds.items():
        what = counted(len(found.runs), "run") + ", " if kind == RESULTS else ""
        print(f"{kind}: {what}{counted(len(objects), 'file')}, {human_bytes(sum(one.bytes for one in objects))}")
    print(f"deleted: {human_bytes(found.bytes)}" if deleted
          else f"Nothing was deleted; with --delete {human_bytes(found.bytes)} are.")  # fmt: skip


def _is_data(one: Stored) -> bool:
    """Sorts records first: a run whose data were deleted before its record would seem damaged."""
    return not RECORD.fullmatch(one.key.rpartition("/")[2])
