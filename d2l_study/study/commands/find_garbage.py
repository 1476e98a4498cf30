"""What under a root is of no use any more, and may be deleted.

A run is kept if it stands in the plan of a study, or if somebody who may be alive has claimed it. Of such a run only
two things may go: data that no record names, and checkpoints once the run is done. A worker may be about to commit
just these, so nothing goes that was written within the last hour, by the clock of the storage.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from d2l_study.errors import DamagedError, UserError
from d2l_study.study.ledger import heartbeat, records
from d2l_study.study.ledger.lease import holder
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.storage import Storage, Stored
from d2l_study.study.ledger.study_folder import StudyFolder

YOUNG_SECONDS = 3600.0
"""What was written within so long is not deleted."""

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
"""config_id and replicate."""


@dataclass
class Garbage:
    """What may be deleted. kinds: the files by kind, in the order of deletion; runs: those that go whole."""

    kinds: dict[str, list[Stored]] = field(default_factory=dict)
    runs: set[Run] = field(default_factory=set)

    def add(self, kind: str, objects: Iterable[Stored]) -> None:
        if found := list(objects):
            self.kinds.setdefault(kind, []).extend(found)

    @property
    def bytes(self) -> int:
        return sum(found.bytes for objects in self.kinds.values() for found in objects)


def find_garbage(storage: Storage, now: float) -> Garbage:
    """What may be deleted. now: by the clock of the storage. `UserError` if it is not known what a study names."""
    # The files are listed before plans and claims are read: what is written later is not in the list.
    objects = [one for prefix in ("results", "claims", "studies", "removed") for one in storage.walk(prefix)]
    plans = plans_of(storage, objects)
    named = {run for runs in plans.values() for run in runs}
    alive = _holders_alive(storage, objects, now)
    found = Garbage()
    found.add(PARTS, (one for one in objects if PART.fullmatch(one.key) and _old(one, now)))
    found.add(CLAIMS, (one for one in objects if one.key in alive and not alive[one.key]))
    runs: dict[Run, dict[str, Stored]] = {}
    for one in objects:
        if match := RUN.fullmatch(one.key):
            runs.setdefault((match[1], int(match[2])), {})[match[3]] = one

    def of_run(run: Run) -> Garbage:
        return _garbage_of_run(Ledger(storage), run, runs[run], plans, named, alive, now)

    for part in storage.map(of_run, runs):
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
            if only or holder(folder) is not None:  # it is just beginning, and will wait for the lock of `gc`
                continue
            raise UserError(f"{storage.shown(folder.key)}: has no plan, so what it names is not known; give its `run` "
                            f"command again, or `remove {name}`") from None  # fmt: skip
        except DamagedError as error:
            raise UserError(f"what study {name!r} names is not known: {error}") from None
    return found


def _garbage_of_run(
    ledger: Ledger, run: Run, there: Mapping[str, Stored], plans: Mapping[str, set[Run]], named: set[Run],
    alive: Mapping[str, bool], now: float,
) -> Garbage:  # fmt: skip
    """What may be deleted of the folder of one run. there: its files by name; named: the runs that studies name."""
    found = Garbage()
    if _claimed(ledger.storage, there, alive, now):
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
    """The data that the records of a run name; None if a record is damaged, or there are no data."""
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
    """Whether the ledger writes files of such a name into the folder of a run. Files of a person stay."""
    return any(kind.fullmatch(name) for kind in (RECORD, NOTE, OTHER, CHECKPOINT, ATTEMPT, PART))


def _claimed(storage: Storage, there: Mapping[str, Stored], alive: Mapping[str, bool], now: float) -> bool:
    """Whether somebody who may be alive has claimed the run."""
    from d2l_study.study.ledger.claims import holder_of

    if "claim.json" not in there:
        return False
    claim = there["claim.json"]
    mark = holder_of(storage, claim.key)
    if mark is None:
        return not _old(claim, now)
    beat = f"claims/{mark}.json"
    return alive[beat] if beat in alive else not _old(claim, now) or storage.exists(beat)


def _holders_alive(storage: Storage, objects: Iterable[Stored], now: float) -> dict[str, bool]:
    """Key of a heartbeat -> whether its writer, who has claimed runs, may be alive."""
    found = {}
    for one in objects:
        if not one.key.startswith("claims/") or PART.fullmatch(one.key):
            continue
        try:
            beat: Any = records.decode(storage.read(one.key))
        except FileNotFoundError:
            beat = None
        ended = heartbeat.is_heartbeat(beat) and heartbeat.has_ended(beat)
        found[one.key] = not ended and not _old(one, now)
    return found


def _old(one: Stored, now: float) -> bool:
    """Whether a file was written more than `YOUNG_SECONDS` ago."""
    return now - one.written > YOUNG_SECONDS


def storage_clock(storage: Storage) -> float:
    """The time now, by the clock that the storage gives to files."""
    key = f"removed/.clock-{uuid.uuid4().hex[:8]}"
    storage.put(key, b"d2l_study", durable=False)
    try:
        return next(one.written for one in storage.walk("removed") if one.key == key)
    finally:
        storage.delete(key)
