"""`gc`: what no study names any more, and what lost attempts have left, is found and deleted.

Named is what stands in the plan of a study. What is named, or claimed by somebody who may be alive, is not touched but
for what is of no use to anybody: data that no record names, checkpoints of runs that are done. Such may also be what a
worker is about to commit; so nothing of it goes that was written within the last hour, by the clock of the storage.
"""

from __future__ import annotations

import itertools
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from d2l_study.data.memory_maps import human_bytes
from d2l_study.errors import DamagedError, UserError, counted
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.gc_lock import gc_lock_held
from d2l_study.study.ledger.lease import holder
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.storage import Storage, Stored
from d2l_study.study.ledger.study_folder import StudyFolder

YOUNG_SECONDS = 3600.0

RESULTS = "results that no study names"
DATA = "data of attempts that were lost"
CHECKPOINTS = "checkpoints of runs that are done, or of studies that are gone"
NOTES = "notes of studies that are gone"
CLAIMS = "claims of workers that are gone"
PARTS = "files that somebody who was killed had begun"

RUN = re.compile(r"results/[0-9a-f]{2}/([0-9a-f]+)/r(\d{3,})/([^/]+)")
CONFIG = re.compile(r"results/[0-9a-f]{2}/([0-9a-f]+)/config\.json")
RECORD = re.compile(r"(?:commit(?:-\d+)?|(?:added|replaced|fresh)-.+)\.json")
NOTE = re.compile(r"(?:fresh|pruned|needed)-(.+)\.json")
OTHER = re.compile(r"(?:claim|damaged-[0-9a-f]+)\.json")
CHECKPOINT = re.compile(r"checkpoint(?:-(.+))?\.pt")
ATTEMPT = re.compile(r"([0-9a-f]{8,})\.[^/]+")
PART = re.compile(r".+\.[0-9a-f]{8}\.part")

Run = tuple[str, int]


@dataclass
class Garbage:
    """What may go, by kind, in the order in which it is to go; `runs` are those that go whole."""

    kinds: dict[str, list[Stored]] = field(default_factory=dict)
    runs: set[Run] = field(default_factory=set)

    def add(self, kind: str, objects: Iterable[Stored]) -> None:
        if found := list(objects):
            self.kinds.setdefault(kind, []).extend(found)

    @property
    def bytes(self) -> int:
        return sum(found.bytes for objects in self.kinds.values() for found in objects)


def collect_garbage(root: str, delete: bool) -> int:
    """Print what `gc` would delete under a root, or delete it."""
    storage = open_storage(root)
    storage.ensure_usable()
    if not delete:
        _show(find_garbage(storage, time.time()))
        return 0
    storage.ensure_writable()
    with gc_lock_held(storage):
        found = find_garbage(storage, _clock(storage))
        for kind in found.kinds.values():
            records_first = itertools.groupby(sorted(kind, key=_order), key=_order)
            for _, objects in records_first:
                storage.map(lambda one: storage.delete(one.key), objects)
        for place in {key.rpartition("/")[0] for key in _keys(found)}:
            storage.remove_empty_folders(place)
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


def _order(one: Stored) -> bool:
    """Records go before data: a run whose data went first would seem damaged."""
    return not RECORD.fullmatch(one.key.rpartition("/")[2])


def find_garbage(storage: Storage, now: float) -> Garbage:
    """What no study names. now: by the clock of the storage. `UserError` if it cannot be known what a study names."""
    # First what is there, then who names and claims it: what comes to be later is not in the list.
    objects = [one for prefix in ("results", "claims", "studies", "removed") for one in storage.walk(prefix)]
    plans = plans_of(storage, objects)
    named = {run for runs in plans.values() for run in runs}
    signs = _signs(storage, objects, now)
    found = Garbage()
    found.add(PARTS, (one for one in objects if PART.fullmatch(one.key) and _old(one, now)))
    found.add(CLAIMS, (one for one in objects if one.key in signs and not signs[one.key]))
    runs: dict[Run, dict[str, Stored]] = {}
    for one in objects:
        if match := RUN.fullmatch(one.key):
            runs.setdefault((match[1], int(match[2])), {})[match[3]] = one

    def look(run: Run) -> Garbage:
        return _of_run(Ledger(storage), run, runs[run], plans, named, signs, now)

    for part in storage.map(look, runs):
        found.runs |= part.runs
        for kind, some in part.kinds.items():
            found.add(kind, some)
    stay = {config for config, _ in named | (runs.keys() - found.runs)}
    found.add(RESULTS, (one for one in objects if (m := CONFIG.fullmatch(one.key)) and m[1] not in stay))
    return found


def plans_of(storage: Storage, objects: Iterable[Stored]) -> dict[str, set[Run]]:
    """The runs that each study names. `UserError` if the plan of one is lost or damaged: all its results would go."""
    found: dict[str, set[Run]] = {}
    there = [one.key.split("/")[1] for one in objects if one.key.startswith("studies/")]
    names = dict.fromkeys([*there, *storage.list("studies")])  # a folder may be a link to elsewhere
    for name in names:
        folder = StudyFolder(storage, name)
        try:
            found[name] = {(entry["config_id"], r) for entry in folder.plan() for r in entry["replicates"]}
        except FileNotFoundError:
            only = {one.key for one in objects if one.key.startswith(f"{folder.key}/")} <= {f"{folder.key}/lease.json"}
            if only or holder(folder) is not None:  # it begins, and will look for us
                continue
            raise UserError(f"{storage.shown(folder.key)}: has no plan, so what it names is not known; give its `run` "
                            f"command again, or `remove {name}`") from None  # fmt: skip
        except DamagedError as error:
            raise UserError(f"what study {name!r} names is not known: {error}") from None
    return found


def _of_run(
    ledger: Ledger, run: Run, there: Mapping[str, Stored], plans: Mapping[str, set[Run]], named: set[Run],
    signs: Mapping[str, bool], now: float,
) -> Garbage:  # fmt: skip
    """What may go of the folder of one run."""
    found = Garbage()
    if _claimed(ledger.storage, there, signs, now):
        return found
    if run not in named:
        known = [one for name, one in there.items() if _is_ours(name)]
        if any(not _old(one, now) and not RECORD.fullmatch(name) for name, one in there.items()) and not any(
            RECORD.fullmatch(name) for name in there
        ):
            return found  # somebody may have begun it
        found.runs.add(run)
        found.add(RESULTS, known)
        return found
    gone = {
        name for name in there
        if (m := NOTE.fullmatch(name) or CHECKPOINT.fullmatch(name)) and m[1] and run not in plans.get(m[1], ())
    }  # fmt: skip
    found.add(CLAIMS, (there[name] for name in there if name == "claim.json"))
    found.add(NOTES, (there[name] for name in gone if NOTE.fullmatch(name)))
    done = any(re.fullmatch(r"commit(-\d+)?\.json", name) for name in there)
    found.add(CHECKPOINTS, (
        one for name, one in there.items()
        if (m := CHECKPOINT.fullmatch(name)) and (name in gone or (done and not m[1])) and _old(one, now)
    ))  # fmt: skip
    if (used := _named_data(ledger, run, there, gone)) is not None:
        found.add(DATA, (
            one for name, one in there.items() if ATTEMPT.fullmatch(name) and not PART.fullmatch(name)
            and one.key not in used and _old(one, now)
        ))  # fmt: skip
    return found


def _named_data(ledger: Ledger, run: Run, there: Mapping[str, Stored], gone: set[str]) -> set[str] | None:
    """The data that the records of a run name, of those read after the data were listed; None if one is damaged."""
    attempts = {m[1] for name in there if (m := ATTEMPT.fullmatch(name)) and not PART.fullmatch(name)}
    if not attempts:
        return None
    base = Ledger.run_key(*run)
    found: set[str] = set()
    for name in ledger.storage.list(base):
        if name in gone or not RECORD.fullmatch(name):
            continue
        try:
            record = records.decode(ledger.storage.read(f"{base}/{name}"))
        except FileNotFoundError:
            continue
        files = record.get("files") if isinstance(record, dict) else None
        if not isinstance(files, dict) or not all(isinstance(e, dict) and "key" in e for e in files.values()):
            return None
        found |= {str(entry["key"]) for entry in files.values()}
    return found


def _is_ours(name: str) -> bool:
    """Whether a file of a run's folder is of a kind that the ledger writes; a person's own stay."""
    return any(kind.fullmatch(name) for kind in (RECORD, NOTE, OTHER, CHECKPOINT, ATTEMPT, PART))


def _claimed(storage: Storage, there: Mapping[str, Stored], signs: Mapping[str, bool], now: float) -> bool:
    """Whether somebody who may be alive trains the run."""
    from d2l_study.study.ledger.claims import holder_of

    if "claim.json" not in there:
        return False
    claim = there["claim.json"]
    mark = holder_of(storage, claim.key)
    if mark is None:
        return not _old(claim, now)
    sign = f"claims/{mark}.json"
    return signs[sign] if sign in signs else not _old(claim, now) or storage.exists(sign)


def _signs(storage: Storage, objects: Iterable[Stored], now: float) -> dict[str, bool]:
    """The signs of life of those who claim runs: whether each may be alive."""
    found = {}
    for one in objects:
        if not one.key.startswith("claims/") or PART.fullmatch(one.key):
            continue
        try:
            sign: Any = records.decode(storage.read(one.key))
        except FileNotFoundError:
            sign = None
        ended = heartbeat.is_heartbeat(sign) and heartbeat.has_ended(sign)
        found[one.key] = not ended and not _old(one, now)
    return found


def _old(one: Stored, now: float) -> bool:
    return now - one.written > YOUNG_SECONDS


def _clock(storage: Storage) -> float:
    """Now, as the storage tells the time of what is written."""
    key = f"removed/.clock-{uuid.uuid4().hex[:8]}"
    storage.put(key, b"d2l_study", durable=False)
    try:
        return next(one.written for one in storage.walk("removed") if one.key == key)
    finally:
        storage.delete(key)
