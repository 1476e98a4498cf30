"""The ledger: every finished run, addressed by what was computed, shared by all studies under one root.

    ROOT/results/<config_id[:2]>/<config_id>/config.json           what the id stands for
    ROOT/results/<config_id[:2]>/<config_id>/r007/<attempt>.<name> the data of one attempt
    ROOT/results/<config_id[:2]>/<config_id>/r007/commit.json      one small put; the run exists when this does

The worker commits, so a dying driver loses nothing; the first valid commit wins, so two workers on one run agree. A
commit that cannot be read is none: its run is trained again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from d2l_study.errors import DamagedError
from d2l_study.learning.science import science_version
from d2l_study.study.storage import Storage, read_json

ID_LENGTH = 20
TRIAL_ID_LENGTH = 10
WEIGHTS = "weights.safetensors"


def config_id(stage: str, sections: Mapping[str, Mapping[str, Any]], checksum: str, base_seed: int) -> str:
    """The identity of a configuration: a hash of its resolved scientific values (architecture, decision 1).

    `sections` maps a section's name to its `Options.identity()`; `checksum` is that of the data set's pool.
    Replicates, resources, device, precision and retries are not part of it.
    """
    content = {
        "science_version": science_version(stage, sections), "stage": stage, "sections": sections,
        "data_checksum": checksum, "base_seed": base_seed,
    }  # fmt: skip
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:ID_LENGTH]


def trial_id(config: str) -> str:
    """The short name of a configuration that tables and commands use: the head of its id."""
    return config[:TRIAL_ID_LENGTH]


class Ledger:
    """Reads and commits runs; a run is (config_id, replicate). `damaged` are the commits that could not be read."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.damaged: dict[str, None] = {}

    @staticmethod
    def config_key(config: str) -> str:
        return f"results/{config[:2]}/{config}"

    @classmethod
    def run_key(cls, config: str, replicate: int) -> str:
        return f"{cls.config_key(config)}/r{replicate:03d}"

    @classmethod
    def pruned_key(cls, config: str, replicate: int, study: str) -> str:
        return f"{cls.run_key(config, replicate)}/pruned-{study}.json"

    # ---- configurations
    def write_config(self, config: str, resolved: Mapping[str, Any]) -> None:
        """Keep what an id stands for; written once."""
        key = f"{self.config_key(config)}/config.json"
        try:
            self.read_config(config)
        except FileNotFoundError:
            self.storage.put_if_absent(key, _json(resolved))
        except DamagedError:
            self.storage.put(key, _json(resolved))

    def read_config(self, config: str) -> dict[str, Any]:
        """What an id stands for; FileNotFoundError, or `DamagedError`."""
        return read_json(self.storage, f"{self.config_key(config)}/config.json",
                         "remove it, and a study that trains this configuration writes it again")  # fmt: skip

    # ---- runs
    def commit(
        self,
        config: str,
        replicate: int,
        row: Mapping[str, Any],
        files: Mapping[str, bytes],
        attempt: str | None = None,
        replace: bool = False,
    ) -> bool:
        """Store a run's files, then its commit. False if the run was there already (then ours are removed), unless
        `replace`: a run made again, for weights that were not kept or with `--fresh`, takes the place of the first,
        whose record stays as `replaced-ATTEMPT.json` and whose data stays too."""
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
        if replace:
            before = self.read(config, replicate)
            if before is not None:
                self.storage.put(f"{base}/replaced-{before['attempt']}.json", _json(before))
            self.storage.put(f"{base}/commit.json", _json(record))
            return True
        won = self.storage.put_if_absent(f"{base}/commit.json", _json(record))
        if not won and self.read(config, replicate) is None:  # what is there is damaged
            self.storage.put(f"{base}/damaged-{attempt}.json", self.storage.read(f"{base}/commit.json"))
            self.storage.put(f"{base}/commit.json", _json(record))
            return True
        if not won:
            for entry in stored.values():
                self.storage.delete(str(entry["key"]))
        return won

    def read(self, config: str, replicate: int) -> dict[str, Any] | None:
        """The commit record (`row`, `files`, `attempt`) of a run, or None if it is not there or damaged."""
        key = f"{self.run_key(config, replicate)}/commit.json"
        try:
            record = read_json(self.storage, key, "")
        except FileNotFoundError:
            return None
        except DamagedError:
            record = {}
        row = record.get("row")
        whose = (record.get("config_id"), record.get("replicate"))
        whole = isinstance(row, dict) and "status" in row and isinstance(record.get("files"), dict)
        if not whole or whose != (config, replicate):
            self.damaged[self.storage.shown(key)] = None
            return None
        return record

    def row(self, config: str, replicate: int) -> dict[str, Any]:
        """The row of a run as it was committed; empty if it is not there."""
        record = self.read(config, replicate)
        return {} if record is None else record["row"]

    def has(self, config: str, replicate: int) -> bool:
        return self.read(config, replicate) is not None

    def has_weights(self, config: str, replicate: int) -> bool:
        """Whether the run is committed and its weights are still there; a run that failed never had any."""
        record = self.read(config, replicate)
        if record is None:
            return False
        entry = record["files"].get(WEIGHTS)
        return record["row"]["status"] != "done" or (entry is not None and self.storage.exists(entry["key"]))

    def serves(self, config: str, replicate: int, with_weights: bool = False, made_by: str | None = None) -> bool:
        """Whether a run need not be trained: committed, its weights kept if they are asked for, and made by that study
        if one is named."""
        if made_by is None:
            return (self.has_weights if with_weights else self.has)(config, replicate)
        record = self.read(config, replicate)
        mine = record is not None and record["row"].get("made_by") == made_by
        return mine and (not with_weights or self.has_weights(config, replicate))

    def read_file(self, config: str, replicate: int, name: str) -> bytes:
        """One file of a committed run; KeyError if it has none of that name, FileNotFoundError if it was dropped,
        `DamagedError` if it is not what was committed."""
        record = self.read(config, replicate)
        if record is None:
            raise FileNotFoundError(f"no committed run {trial_id(config)} r{replicate:03d}")
        entry = record["files"][name]
        data = self.storage.read(entry["key"])
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            shown, run = self.storage.shown(entry["key"]), self.storage.shown(self.run_key(config, replicate))
            raise DamagedError(
                f"{shown}: damaged: {len(data)} bytes that are not the {entry['bytes']} that were committed; remove "
                f"{run}, and the study's command trains this run again"
            )
        return data

    def drop_file(self, config: str, replicate: int, name: str) -> None:
        """Remove one file of a committed run, if it has it; the commit still tells what it was."""
        record = self.read(config, replicate)
        if record is not None and name in record["files"]:
            self.storage.delete(record["files"][name]["key"])

    # ---- runs that a study ended early; their checkpoints stay, so that another study can go on with them
    def write_pruned(self, config: str, replicate: int, study: str, record: Mapping[str, Any]) -> None:
        """Keep that a study ended the run early: `cause`, `step`, `value` (mean validation AUC there), `curve`."""
        self.storage.put(self.pruned_key(config, replicate, study), _json(record))

    def pruned(self, config: str, replicate: int, study: str) -> dict[str, Any] | None:
        """That record, or None if this study did not end the run."""
        with contextlib.suppress(FileNotFoundError, DamagedError):
            return read_json(self.storage, self.pruned_key(config, replicate, study), "")
        return None

    def forget_pruned(self, config: str, replicate: int, study: str) -> None:
        self.storage.delete(self.pruned_key(config, replicate, study))

    # ---- checkpoints of unfinished runs
    def save_checkpoint(self, config: str, replicate: int, data: bytes, owner: str | None = None) -> None:
        """owner: the one study that may go on from it (`--fresh`); without it any may."""
        self.storage.put(self._checkpoint_key(config, replicate, owner), data)

    def load_checkpoint(self, config: str, replicate: int, owner: str | None = None) -> bytes | None:
        with contextlib.suppress(FileNotFoundError):
            return self.storage.read(self._checkpoint_key(config, replicate, owner))
        return None

    def has_checkpoint(self, config: str, replicate: int, owner: str | None = None) -> bool:
        return self.storage.exists(self._checkpoint_key(config, replicate, owner))

    def drop_checkpoint(self, config: str, replicate: int, owner: str | None = None) -> None:
        self.storage.delete(self._checkpoint_key(config, replicate, owner))

    def _checkpoint_key(self, config: str, replicate: int, owner: str | None) -> str:
        return f"{self.run_key(config, replicate)}/checkpoint{'' if owner is None else f'-{owner}'}.pt"


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()
