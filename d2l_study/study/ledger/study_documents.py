"""The documents in the folder of one study, and the one class that knows their paths.

ROOT/studies/<name>/space.yaml       the space as written
                   resolved.json     the space as resolved, overrides, command line, provenance
                   plan.json         the configurations of the study, in order
                   search.json       what a search is and has asked for, if the study is one
                   local-1a2b3c4d.diff   what the checkout had that its commit had not, if anything
                   failures/<trial_id>-r007.json   the last failure of a run that is not committed
                   attempts/<trial_id>-r007.json   its attempts that were lost with their worker or node
                   precision.json    the number format, where the space leaves it to a probe
                   copies/         of the first four, for the case that one of them is damaged
                   stores.json       the MLflow stores that it was written to
                   lease.json        the driver at work on it
                   rows.parquet      all rows, compacted at the end of each command
                   rows.proof.json   that they are still what the ledger says (see `compacted_rows`)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from d2l_study.errors import DamagedError, UnreadableError, warn_damaged
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import Ledger, Record, trial_id
from d2l_study.study.ledger.storage import Storage, read_record, record_bytes

SPACE = "space.yaml"
REMEDY = "the study's `run` command makes it anew, and no finished run is repeated"


class StudyDocuments:
    """What a study keeps beside its runs, which the ledger holds for all studies of a root."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.ledger = Ledger(storage)
        self._resolved: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """The folder of the study, as a prefix of keys."""
        return f"studies/{self.name}"

    def exists(self) -> bool:
        """Whether the study has a plan."""
        return any(self.storage.exists(key) for key in self._places("plan.json"))

    # ---- what the study is
    def state(self) -> tuple[str, ...]:
        """A text for each document from which `run` goes on. It changes when the document is written, so that a command
        finds out whether another one has been at the study since."""
        return tuple(map(self._state_of, (SPACE, "plan.json", "search.json", "resolved.json", "precision.json")))

    def _state_of(self, name: str) -> str:
        found = self.storage.version(key := f"{self.key}/{name}")
        if found is not None:
            return found
        try:
            return hashlib.sha256(self.storage.read(key)).hexdigest()
        except FileNotFoundError:
            return ""

    def write(self, space_text: str, resolved: dict[str, Any], plan: list[dict[str, Any]]) -> None:
        """Write the space as given and as resolved, and the plan: a list of entries with `config_id`, `stage`,
        `method`, `values` (flat scientific values), `varied` (names of the varied keys), `replicates`."""
        text = space_text.encode()
        for key in self._places(SPACE):
            self.storage.put(key, text)
        self.write_document("resolved.json", {**resolved, "space_sha256": hashlib.sha256(text).hexdigest()})
        self.keep_private("resolved.json")
        self._resolved = None
        self.__dict__.pop("fresh_of", None)
        self.write_plan(plan)

    def write_plan(self, plan: list[dict[str, Any]]) -> None:
        """Replace the plan: a search adds to it as it goes."""
        self.write_document("plan.json", {"configurations": plan})

    def space_text(self) -> bytes:
        """The space as given. FileNotFoundError if it is not there; `DamagedError` if neither it nor its copy is the
        space that was run."""
        expected, shown = self.resolved().get("space_sha256"), self.storage.shown(f"{self.key}/{SPACE}")
        damaged = False
        for key in self._places(SPACE):
            with contextlib.suppress(FileNotFoundError):
                found = self.storage.read(key)
                if expected in (None, hashlib.sha256(found).hexdigest()):
                    if damaged:
                        warn_damaged(f"{shown} is not the space that was run: its copy in copies/ is taken")
                    return found
                damaged = True
        if not damaged:
            raise FileNotFoundError(shown)
        raise DamagedError(f"{shown}: damaged: it is not the space that was run; {REMEDY}")

    def resolved(self) -> dict[str, Any]:
        """The content of `resolved.json`, which is read once. Empty if it was removed (the next `run` writes it), or if
        it belongs to another user and is private."""
        if self._resolved is None:
            try:
                self._resolved = self.read_document("resolved.json", REMEDY)
            except FileNotFoundError:
                self._resolved = {}
            except UnreadableError as error:
                if error.errno != errno.EACCES:
                    raise
                self._resolved = {}  # of somebody else, who keeps it private: the rows are enough to read a study
        return self._resolved

    @property
    def replicates_asked(self) -> float:
        """How many replicates the last `run` asked for of each configuration; infinite if it is not known. What
        configurations are compared by are means over these, though some have more runs from before."""
        return float((self.resolved_or_empty().get("space") or {}).get("replicates", math.inf))

    def keep_private(self, name: str) -> None:
        """Let no other user read a file of the folder, since it holds a command line or unpublished code. In a bucket
        the bucket's own rules decide."""
        path = getattr(self.storage, "path", None)
        if path is not None:
            for key in self._places(name):
                with contextlib.suppress(OSError):
                    path(key).chmod(0o600)

    def plan(self) -> list[dict[str, Any]]:
        """The entries of the plan. FileNotFoundError if there is none; `DamagedError` if it and its copy are
        damaged."""
        return self.read_document("plan.json", REMEDY, _plan_problem)["configurations"]

    def plan_or_empty(self) -> list[dict[str, Any]]:
        """The plan; empty if there is none or it is damaged, which gives a warning. For commands that write a new
        one."""
        try:
            return self.plan()
        except FileNotFoundError:
            return []
        except DamagedError as error:
            warn_damaged(f"{str(error).partition(';')[0]}; it is made anew")
            return []

    def resolved_or_empty(self) -> dict[str, Any]:
        """The content of `resolved.json`; empty if there is none or it is damaged, which gives a warning. For commands
        that write it anew."""
        try:
            return self.resolved()
        except DamagedError as error:
            warn_damaged(f"{str(error).partition(';')[0]}; it is made anew")
            return {}

    def write_document(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a record of the study and a copy of it, since the disk may damage one."""
        for key in self._places(name):
            self.storage.put(key, records.encode(value))

    def read_document(
        self, name: str, remedy: str, problem_of: Callable[[dict[str, Any]], str | None] = lambda found: None
    ) -> dict[str, Any]:
        """A record of the study, or its copy if it is damaged. FileNotFoundError if neither is there, `DamagedError` if
        none of them is whole.

        remedy: the end of that message; problem_of: what is wrong with a record's content, or None. It matters for
        records of version 1, which have no checksum."""
        damaged: DamagedError | None = None
        for key in self._places(name):
            try:
                found = read_record(self.storage, key, remedy)
                if problem := problem_of(found):
                    raise DamagedError(f"{self.storage.shown(key)}: damaged, {problem}; {remedy}")
            except FileNotFoundError:
                continue
            except DamagedError as error:
                damaged = damaged or error
                continue
            if damaged is not None:
                warn_damaged(f"{self.storage.shown(f'{self.key}/{name}')} is damaged: its copy in copies/ is taken")
            return found
        raise damaged or FileNotFoundError(self.storage.shown(f"{self.key}/{name}"))

    def _places(self, name: str) -> tuple[str, str]:
        return f"{self.key}/{name}", f"{self.key}/copies/{name}"

    def planned(self) -> set[str]:
        """The config_ids of the plan."""
        return {entry["config_id"] for entry in self.plan()}

    # ---- failures and attempts
    def write_failure(self, config: str, replicate: int, failure: dict[str, Any]) -> None:
        """Write why a run failed. failure: `cause` (one line), `log` (tail of the traceback), `attempt`, `at`."""
        self.storage.put(self.failure_key(config, replicate), records.encode(failure))

    def failure(self, config: str, replicate: int) -> dict[str, Any] | None:
        """Why a run failed last; None if it did not."""
        key = self.failure_key(config, replicate)
        try:
            found = read_record(self.storage, key, "")
        except FileNotFoundError:
            return None
        except DamagedError:
            found = {}
            warn_damaged(f"{self.storage.shown(key)} is damaged: why the run failed is not known")
        return {"cause": f"not known: {self.storage.shown(key)} is damaged", "log": "", **found}

    def clear_failure(self, config: str, replicate: int) -> None:
        """Remove the record of a run's failure, if there is one."""
        self.storage.delete(self.failure_key(config, replicate))

    def write_lost_attempt(self, config: str, replicate: int, attempt: dict[str, Any]) -> None:
        """Add an attempt that was lost with its worker or node, or for lack of memory: `cause`, `kind`, `at`,
        `replicates`."""
        attempts = [*self.lost_attempts(config, replicate), attempt]
        self.storage.put(self._attempts_key(config, replicate), records.encode({"attempts": attempts}))

    def lost_attempts(self, config: str, replicate: int) -> list[dict[str, Any]]:
        """The lost attempts of a run in this study, over all commands, in order of time."""
        key = self._attempts_key(config, replicate)
        try:
            found = records.decode(record_bytes(self.storage, key))
        except FileNotFoundError:
            return []
        found = found.get("attempts") if isinstance(found, dict) else found
        if not isinstance(found, list):
            warn_damaged(f"{self.storage.shown(key)} is damaged: the lost attempts of its run are not known")
            return []
        return found

    def forget_run(self, config: str, replicate: int) -> None:
        """Remove all that this study keeps of a run that has left its plan."""
        self.clear_failure(config, replicate)
        self.storage.delete(self._attempts_key(config, replicate))
        self.ledger.forget_pruned(config, replicate, self.name)
        self.ledger.release_weights(config, replicate, self.name)

    def _attempts_key(self, config: str, replicate: int) -> str:
        return f"{self.key}/attempts/{trial_id(config)}-r{replicate:03d}.json"

    def failure_key(self, config: str, replicate: int) -> str:
        """The key of the record of a run's failure."""
        return f"{self.key}/failures/{trial_id(config)}-r{replicate:03d}.json"

    # ---- results
    def record(self, config: str, replicate: int) -> Record | None:
        """The record of a run that counts for this study, or None. The result of another study does not where this one
        was to train the run afresh (`--fresh`), and it failed or was ended early."""
        found = self.ledger.read(config, replicate, self.fresh_of)
        if found is None or self.fresh_of is None or found["row"].get("made_by") == self.name:
            return found
        keys = (self.failure_key(config, replicate), Ledger.pruned_key(config, replicate, self.name))
        return None if any(map(self.storage.exists, keys)) else found

    def read_file(self, config: str, replicate: int, name: str) -> bytes:
        """A file of a run of this study (`Ledger.read_file`)."""
        return self.ledger.read_file(config, replicate, name, self.fresh_of)

    @cached_property
    def fresh_of(self) -> str | None:
        """The study's name if it was ever run with `--fresh`, so that its own result of a run is taken before that of
        others; else None."""
        try:
            known = self.resolved()
        except DamagedError:
            known = {}
        if known:
            return self.name if known.get("fresh") else None
        runs = ((entry["config_id"], replicate) for entry in self.plan_or_empty() for replicate in entry["replicates"])
        return self.name if any(self.storage.exists(Ledger.fresh_key(*run, self.name)) for run in runs) else None


def _plan_problem(found: dict[str, Any]) -> str | None:
    entries = found.get("configurations")
    return None if isinstance(entries, list) and all(map(_is_entry, entries)) else "it has no configurations"


def _is_entry(entry: Any) -> bool:
    """Whether this is an entry of a plan: what it names becomes part of keys."""
    if not isinstance(entry, dict) or not isinstance(entry.get("values"), dict):
        return False
    texts = [entry.get(name) for name in ("config_id", "stage", "method")]
    numbers = entry.get("replicates")
    return (
        all(isinstance(text, str) for text in texts) and str(texts[0]).isalnum()
        and isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        and isinstance(entry.get("varied"), list)
    )  # fmt: skip
