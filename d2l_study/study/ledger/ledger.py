"""The ledger: every finished run, addressed by what was computed, shared by all studies under one root.

    ROOT/results/<config_id[:2]>/<config_id>/config.json            what the id stands for
    ROOT/results/<config_id[:2]>/<config_id>/r007/commit.json       one small put; the run exists when this does
                                                  <attempt>.<name>  the data of one attempt
                                                  added-<attempt>.json   files that a later attempt adds to the commit
                                                  fresh-<study>.json     the run as that study trained it again
                                                  needed-<study>.json    that study's students need its weights
                                                  claim.json        who trains it now (see `claims`)

The worker commits, so a driver that dies loses nothing. The first valid commit wins and is never replaced; files can
only be added to it. Every record has a checksum (`records`) and names data below its own run only. A record that fails
either check is damaged and counts as missing. A damaged commit stays where it is, and the next one is written beside it
as `commit-2.json`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from d2l_study.errors import DamagedError, UserError, warn_damaged
from d2l_study.learning.science_version import science_version
from d2l_study.study.ledger import records
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.storage import Storage, read_record, record_bytes

ID_LENGTH = 20
TRIAL_ID_LENGTH = 10
REMEDY = "the `run` command of its study writes it again"
"""What to do where a `config.json` is lost or damaged."""
DAMAGED_COMMIT = "the run counts as missing, and is trained again"

Record = dict[str, Any]


def config_id(
    stage: str, sections: Mapping[str, Mapping[str, Any]], checksum: str, base_seed: int, latest: int | None = None
) -> str:
    """The identity of a configuration: a hash of its resolved scientific values.

    sections: section -> its `Options.identity()`; checksum: that of the data set's pool. Replicates, resources, device,
    precision and retries are not part of the identity. latest: as of `science_version`; then the id is the one that an
    earlier code gave.
    """
    content = {
        "science_version": science_version(stage, sections, latest), "stage": stage, "sections": sections,
        "data_checksum": checksum, "base_seed": base_seed,
    }  # fmt: skip
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def trial_id(config: str) -> str:
    """The short id of a configuration, which tables and commands use: the first characters of its `config_id`."""
    return config[:TRIAL_ID_LENGTH]


class Ledger:
    """Reads and commits runs; a run is (config_id, replicate). damaged: the commits that were found damaged."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.damaged: dict[str, None] = {}

    @staticmethod
    def config_key(config: str) -> str:
        """The folder of a configuration, as a prefix of keys."""
        return f"results/{config[:2]}/{config}"

    @classmethod
    def run_key(cls, config: str, replicate: int) -> str:
        """The folder of a run, as a prefix of keys."""
        return f"{cls.config_key(config)}/r{replicate:03d}"

    @classmethod
    def commit_keys(cls, config: str, replicate: int) -> Iterator[str]:
        """The places of a run's commit, in order: it is the first one that is there and not damaged."""
        base = cls.run_key(config, replicate)
        yield f"{base}/commit.json"
        yield from (f"{base}/commit-{number}.json" for number in itertools.count(2))

    @classmethod
    def pruned_key(cls, config: str, replicate: int, study: str) -> str:
        """The key of the record that a study ended a run early."""
        return f"{cls.run_key(config, replicate)}/pruned-{study}.json"

    @classmethod
    def fresh_key(cls, config: str, replicate: int, study: str) -> str:
        """The key of a run's record by a study that trained it again (`--fresh`)."""
        return f"{cls.run_key(config, replicate)}/fresh-{study}.json"

    # ---- configurations
    def write_config(self, config: str, resolved: Mapping[str, Any]) -> None:
        """Write what an id stands for, unless it is there and whole."""
        key = f"{self.config_key(config)}/config.json"
        try:
            self.read_config(config)
        except FileNotFoundError:
            self.storage.put_if_absent(key, records.encode(resolved))
        except DamagedError:
            self.storage.put(key, records.encode(resolved))

    def read_config(self, config: str) -> dict[str, Any]:
        """What an id stands for; FileNotFoundError if it is not there, `DamagedError` if it is damaged."""
        return read_record(self.storage, f"{self.config_key(config)}/config.json", REMEDY)

    def knows(self, config: str) -> bool:
        """Whether a configuration was ever planned in this root, and `gc` has not forgotten it."""
        return bool(self.storage.list(self.config_key(config)))

    def known_config(self, config: str) -> dict[str, Any]:
        """As `read_config`, of a configuration that a user has named: `UserError` if it is not there."""
        try:
            return self.read_config(config)
        except FileNotFoundError:
            shown = self.storage.shown(f"{self.config_key(config)}/config.json")
            raise UserError(f"{shown}: lost, so it is not known what trial {trial_id(config)} is; {REMEDY}") from None

    # ---- runs
    def commit(
        self,
        config: str,
        replicate: int,
        row: Mapping[str, Any],
        files: Mapping[str, bytes],
        attempt: str | None = None,
        fresh_of: str | None = None,
    ) -> bool:
        """Store a run's files, then its commit. Returns False if the run was committed already: then files that its
        commit lacks, such as weights, are added to it, and the other ones are removed.

        row: the values of the run in tables; files: name -> content; attempt: names this attempt in the files' keys;
        fresh_of: the study that trained the run again with `--fresh`, whose record is kept beside the first.
        """
        attempt = attempt or uuid.uuid4().hex[:8]
        base = self.run_key(config, replicate)
        stored = {}
        for name, data in files.items():
            key = f"{base}/{attempt}.{name}"
            self.storage.put(key, data)
            stored[name] = {"key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        record = {
            "config_id": config,
            "replicate": replicate,
            "attempt": attempt,
            "row": dict(row),
            "files": stored,
        }
        if fresh_of is not None:
            self.storage.put(self.fresh_key(config, replicate, fresh_of), records.encode(record))
            return True
        won = self._commit_first(config, replicate, record)
        kept = set(stored)
        if not won:
            kept &= self._missing_files(config, replicate)
        elif not self.storage.exclusive:  # of two writers at once the last one stays: what only one has stands apart
            kept &= {WEIGHTS}
        if kept and not (won and self.storage.exclusive):
            added = {**record, "files": {name: stored[name] for name in kept}}
            self.storage.put(f"{base}/added-{attempt}.json", records.encode(added))
        if not won:
            for name in stored.keys() - kept:
                self.storage.delete(str(stored[name]["key"]))
        return won

    def _commit_first(self, config: str, replicate: int, record: Record) -> bool:
        """Put the record where the first valid commit is to be; False if one is there."""
        data = records.encode(record)
        for key in self.commit_keys(config, replicate):
            if self.storage.put_if_absent(key, data):
                return True
            if self._record(key, config, replicate) is not None:
                return False
        raise AssertionError("unreachable")

    def _missing_files(self, config: str, replicate: int) -> set[str]:
        """The names of files that may be added to a commit: weights, if it was made without or they were dropped."""
        return set() if self.has_weights(config, replicate) else {WEIGHTS}

    def read(self, config: str, replicate: int, fresh_of: str | None = None) -> Record | None:
        """The commit record of a run (`row`, `files`, `attempt`), or None if it is not there or damaged.

        fresh_of: a study whose own record is taken if it trained the run again (`--fresh`).
        """
        if fresh_of is not None:
            with contextlib.suppress(FileNotFoundError):
                found = self._record(self.fresh_key(config, replicate, fresh_of), config, replicate)
                if found is not None:
                    return found
        first = None
        for key in self.commit_keys(config, replicate):
            try:
                found = self._record(key, config, replicate)
            except FileNotFoundError:
                break
            if found is not None:
                return found
            first = first or self.storage.shown(key)
        if first is not None:
            self.damaged[first] = None
            warn_damaged(f"{first} is damaged: {DAMAGED_COMMIT}")
        return None

    def _record(self, key: str, config: str, replicate: int) -> Record | None:
        """The record of a run under a key; None if it is damaged, or another run's; FileNotFoundError."""
        found = records.decode(record_bytes(self.storage, key))
        return found if _whole(found, config, replicate, self.run_key(config, replicate)) else None

    def _added(self, config: str, replicate: int) -> Iterator[Record]:
        """The records of files that were added to a run's commit, of those who trained it afresh too."""
        base = self.run_key(config, replicate)
        for name in self.storage.list(base):
            if name.startswith(("added-", "fresh-")) and name.endswith(".json"):
                with contextlib.suppress(FileNotFoundError):
                    if (record := self._record(f"{base}/{name}", config, replicate)) is not None:
                        yield record

    def row(self, config: str, replicate: int, fresh_of: str | None = None) -> dict[str, Any]:
        """The row of a run as it was committed; empty if it is not there. fresh_of: as of `read`."""
        record = self.read(config, replicate, fresh_of)
        return {} if record is None else record["row"]

    def has(self, config: str, replicate: int) -> bool:
        """Whether a run is committed."""
        return self.read(config, replicate) is not None

    def has_weights(self, config: str, replicate: int, fresh_of: str | None = None) -> bool:
        """Whether the run is committed and its weights are still there; a run that failed never had any."""
        record = self.read(config, replicate, fresh_of)
        if record is None:
            return False
        return record["row"]["status"] != "done" or self.holds(config, replicate, WEIGHTS, record)

    def holds(self, config: str, replicate: int, name: str, record: Record | None = None) -> bool:
        """Whether a file of a run is there, of its first commit (`record`, if it is known) or added later."""
        record = record or self.read(config, replicate)
        if record is None:
            return False

        def there(record: Record) -> bool:
            return name in record["files"] and self.storage.exists(record["files"][name]["key"])

        return there(record) or any(map(there, self._added(config, replicate)))

    def has_result(
        self, config: str, replicate: int, with_weights: bool = False, made_by: str | None = None,
        fresh_of: str | None = None,
    ) -> bool:  # fmt: skip
        """Whether a run need not be trained: it is committed, with its weights if these are asked for, and by the study
        `made_by` if one is named. fresh_of: as of `read`."""
        fresh_of = made_by or fresh_of
        if made_by is not None:
            record = self.read(config, replicate, made_by)
            if record is None or record["row"].get("made_by") != made_by:
                return False
        if with_weights:
            return self.has_weights(config, replicate, fresh_of)
        return self.read(config, replicate, fresh_of) is not None

    def read_file(self, config: str, replicate: int, name: str, fresh_of: str | None = None) -> bytes:
        """One file of a committed run; KeyError if it has none of that name, FileNotFoundError if it was dropped,
        `DamagedError` if it is not what was committed."""
        record = self.read(config, replicate, fresh_of)
        if record is None:
            raise FileNotFoundError(f"no committed run {trial_id(config)} r{replicate:03d}")
        problem: Exception = KeyError(name)
        for source in itertools.chain([record], self._added(config, replicate)):
            if name not in source["files"]:
                continue
            entry = source["files"][name]
            try:
                data = self.storage.read(entry["key"])
            except FileNotFoundError as error:
                problem = error if isinstance(problem, KeyError) else problem
                continue
            if hashlib.sha256(data).hexdigest() == entry["sha256"]:
                return data
            shown, run = self.storage.shown(entry["key"]), self.storage.shown(self.run_key(config, replicate))
            problem = DamagedError(
                f"{shown}: damaged: {len(data)} bytes that are not the {entry['bytes']} that were committed; remove "
                f"the folder {run}, and the study's command trains this run again"
            )
        raise problem

    def drop_file(self, config: str, replicate: int, name: str, made_by: str | None = None) -> None:
        """Remove one file of a committed run, if it is there. The commit still names it. Weights that the students of a
        study need stay. made_by: remove only what this study made."""
        record = self.read(config, replicate)
        if record is None or (name == WEIGHTS and self.needed_by(config, replicate)):
            return
        for source in (record, *self._added(config, replicate)):
            if name in source["files"] and made_by in (None, source["row"].get("made_by")):
                self.storage.delete(source["files"][name]["key"])

    # ---- weights that a study of students needs, whoever trains their teacher
    def need_weights(self, config: str, replicate: int, study: str) -> None:
        """Mark the weights of a run as needed by a study: whoever commits the run keeps them, and nobody drops them."""
        key = f"{self.run_key(config, replicate)}/needed-{study}.json"
        self.storage.put_if_absent(key, records.encode({"study": study}))

    def release_weights(self, config: str, replicate: int, study: str) -> None:
        """Remove that mark."""
        self.storage.delete(f"{self.run_key(config, replicate)}/needed-{study}.json")

    def needed_by(self, config: str, replicate: int) -> list[str]:
        """The studies whose students need the weights of this run."""
        names = self.storage.list(self.run_key(config, replicate))
        return [name[len("needed-") : -len(".json")] for name in names if name.startswith("needed-")]

    # ---- runs that a study ended early; their checkpoints stay, so that another study can go on with them
    def write_pruned(self, config: str, replicate: int, study: str, record: Mapping[str, Any]) -> None:
        """Write that a study ended the run early. record: `cause`, `step`, `value` (mean validation AUC there),
        `curve`."""
        self.storage.put(self.pruned_key(config, replicate, study), records.encode(record))

    def pruned(self, config: str, replicate: int, study: str) -> dict[str, Any] | None:
        """That record, or None if this study did not end the run."""
        key = self.pruned_key(config, replicate, study)
        try:
            return read_record(self.storage, key, DAMAGED_COMMIT)
        except FileNotFoundError:
            return None
        except DamagedError:
            warn_damaged(f"{self.storage.shown(key)} is damaged: {DAMAGED_COMMIT}")
            return None

    def forget_pruned(self, config: str, replicate: int, study: str) -> None:
        """Remove that record, so that the study trains the run to its end."""
        self.storage.delete(self.pruned_key(config, replicate, study))

    # ---- checkpoints of unfinished runs
    def save_checkpoint(self, config: str, replicate: int, data: bytes, owner: str | None = None) -> None:
        """Replace the checkpoint of a run. owner: the one study that may go on from it (`--fresh`); None: any study."""
        self.storage.put(self._checkpoint_key(config, replicate, owner), records.encode_bytes(data))

    def load_checkpoint(self, config: str, replicate: int, owner: str | None = None) -> bytes | None:
        """The last checkpoint of a run, or None. A damaged one counts as none: the run starts anew."""
        key = self._checkpoint_key(config, replicate, owner)
        try:
            data = records.decode_bytes(self.storage.read(key))
        except FileNotFoundError:
            return None
        if data is None:
            warn_damaged(f"{self.storage.shown(key)} is damaged: its run starts anew")
        return data

    def has_checkpoint(self, config: str, replicate: int, owner: str | None = None) -> bool:
        """Whether a run has a checkpoint, damaged or not."""
        return self.storage.exists(self._checkpoint_key(config, replicate, owner))

    def drop_checkpoint(self, config: str, replicate: int, owner: str | None = None) -> None:
        """Remove the checkpoint of a run, if there is one."""
        self.storage.delete(self._checkpoint_key(config, replicate, owner))

    def _checkpoint_key(self, config: str, replicate: int, owner: str | None) -> str:
        return f"{self.run_key(config, replicate)}/checkpoint{'' if owner is None else f'-{owner}'}.pt"


def _whole(record: Any, config: str, replicate: int, base: str) -> bool:
    """Whether this is a record of that run, and names files below it only: a crafted record could name any file."""
    if not isinstance(record, dict) or (record.get("config_id"), record.get("replicate")) != (config, replicate):
        return False
    row, files, attempt = record.get("row"), record.get("files"), record.get("attempt")
    if not isinstance(row, dict) or not isinstance(row.get("status"), str) or not isinstance(files, dict):
        return False
    return isinstance(attempt, str) and all(
        isinstance(entry, dict)
        and entry.get("key") == f"{base}/{attempt}.{name}"
        and isinstance(entry.get("sha256"), str)
        for name, entry in files.items()
    )
