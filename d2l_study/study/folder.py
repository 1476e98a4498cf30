"""The folder of one study: the one class that knows its paths, and how its rows are read.

    ROOT/studies/<name>/space.yaml       the space as written
                       resolved.json     the space as resolved, overrides, command line, provenance
                       local-1a2b3c4d.diff   what the checkout had that its commit had not, if anything
                       plan.json         the configurations of the study, in order
                       failures/<trial_id>-r007.json   the last failure of a run that is not committed
                       attempts/<trial_id>-r007.json   its attempts that were lost with their worker or node
                       precision.json    the number format, where the space leaves it to a probe
                       lease.json        the driver at work on it
                       rows.parquet      all rows, compacted at the end of each command
                       rows.proof.json   that they are still what the ledger says (see `compacted`)

A row of the study = what its plan says of the configuration (method, varied keys) + what the ledger holds
of the run. A run in neither ledger nor failures has status `missing`.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from d2l_study.environment import user_path
from d2l_study.errors import DamagedError, UnreadableError, UserError, listed, nearest
from d2l_study.study.ledger import Ledger, trial_id
from d2l_study.study.names import can_be_folder
from d2l_study.study.search_document import read_document
from d2l_study.study.storage import Storage, open_storage, read_json

if TYPE_CHECKING:
    import pandas

LEADING_COLUMNS = (
    "study", "config_id", "trial_id", "stage", "method", "dataset", "num_bags", "val_bags", "mean_bag_size",
    "pooling", "lambda_adv", "lambda_noise", "lambda_ent", "repeat", "fold", "replicate", "seed", "teacher_id",
    "generation", "status", "bag_auc", "instance_auc", "val_bag_auc",
)  # fmt: skip
"""The columns every table has, first and in this order (architecture, decision 9); more may follow."""


class StudyFolder:
    """One study on disk."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.name = name
        self.ledger = Ledger(storage)
        self._resolved: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        return f"studies/{self.name}"

    def exists(self) -> bool:
        return self.storage.exists(f"{self.key}/plan.json")

    # ---- what the study is
    def write(self, space_text: str, resolved: dict[str, Any], plan: list[dict[str, Any]]) -> None:
        """Keep the space as written and as resolved, and the plan: a list of entries with `config_id`,
        `stage`, `method`, `values` (flat scientific values), `varied` (names of the varied keys), `replicates`."""
        self.storage.put(f"{self.key}/space.yaml", space_text.encode())
        self.storage.put(f"{self.key}/resolved.json", _json(resolved))
        self.keep_private("resolved.json")
        self._resolved = None
        self.storage.put(f"{self.key}/plan.json", _json({"configurations": plan}))

    def write_plan(self, plan: list[dict[str, Any]]) -> None:
        """The plan as it is now: a search adds to it as it goes."""
        self.storage.put(f"{self.key}/plan.json", _json({"configurations": plan}))

    def resolved(self) -> dict[str, Any]:
        """Read once: the page of every configuration asks for it, and it grows with the space. Empty if somebody
        removed it: the next `run` writes it."""
        if self._resolved is None:
            remedy = "remove it and give the study's `run` command again: it is written anew, and no finished run is "
            try:
                self._resolved = read_json(self.storage, f"{self.key}/resolved.json", remedy + "repeated")
            except FileNotFoundError:
                self._resolved = {}
            except UnreadableError as error:
                if error.errno != errno.EACCES:
                    raise
                self._resolved = {}  # of somebody else, who keeps it private: the rows are enough to read a study
        return self._resolved

    def keep_private(self, name: str) -> None:
        """Let nobody else read a file of the folder: it tells of a command line, or of code that was not given away.
        In a bucket its own rules decide."""
        path = getattr(self.storage, "path", None)
        if path is not None:
            with contextlib.suppress(OSError):
                path(f"{self.key}/{name}").chmod(0o600)

    def plan(self) -> list[dict[str, Any]]:
        remedy = "remove it and give the study's `run` command again: it is made anew, and no finished run is repeated"
        found = read_json(self.storage, f"{self.key}/plan.json", remedy).get("configurations")
        if not isinstance(found, list):
            raise DamagedError(
                f"{self.storage.shown(f'{self.key}/plan.json')}: damaged, it has no configurations; {remedy}"
            )
        return found

    # ---- failures and attempts
    def write_failure(self, config: str, replicate: int, failure: dict[str, Any]) -> None:
        """Keep why a run failed: `cause` (one line), `log` (tail of the traceback), `attempt`, `at`."""
        self.storage.put(self.failure_key(config, replicate), _json(failure))

    def failure(self, config: str, replicate: int) -> dict[str, Any] | None:
        key = self.failure_key(config, replicate)
        try:
            found = read_json(self.storage, key, "")
        except FileNotFoundError:
            return None
        except DamagedError:
            found = {}
        return {"cause": f"not known: {self.storage.shown(key)} is damaged", "log": "", **found}

    def clear_failure(self, config: str, replicate: int) -> None:
        self.storage.delete(self.failure_key(config, replicate))

    def write_lost_attempt(self, config: str, replicate: int, attempt: dict[str, Any]) -> None:
        """Count an attempt that ended with its worker, its node or its memory: `cause`, `kind`, `at`, `replicates`."""
        self.storage.put(
            self._attempts_key(config, replicate), _json([*self.lost_attempts(config, replicate), attempt])
        )

    def lost_attempts(self, config: str, replicate: int) -> list[dict[str, Any]]:
        """The lost attempts of a run in this study, over all commands, in order."""
        with contextlib.suppress(FileNotFoundError, ValueError):  # a damaged one counts none
            found = json.loads(self.storage.read(self._attempts_key(config, replicate)))
            if isinstance(found, list):
                return found
        return []

    def _attempts_key(self, config: str, replicate: int) -> str:
        return f"{self.key}/attempts/{trial_id(config)}-r{replicate:03d}.json"

    def failure_key(self, config: str, replicate: int) -> str:
        return f"{self.key}/failures/{trial_id(config)}-r{replicate:03d}.json"

    # ---- rows
    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Every run of the plan as one flat dictionary."""
        failed = set(self.storage.list(f"{self.key}/failures"))
        runs = ((entry, replicate) for entry in self.plan() for replicate in entry["replicates"])
        while some := list(itertools.islice(runs, 1000)):
            yield from self.storage.map(lambda run: self._row(run[0], run[1], failed), some)

    def rows_of(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of one configuration of the plan."""
        return self.storage.map(lambda replicate: self._row(entry, replicate), entry["replicates"])

    def _row(self, entry: dict[str, Any], replicate: int, failed: set[str] | None = None) -> dict[str, Any]:
        """failed: the names of all failures, which for many rows is faster than to look for each."""
        config = entry["config_id"]
        row = {
            **entry["values"], "study": self.name, "config_id": config, "trial_id": trial_id(config),
            "stage": entry["stage"], "method": entry["method"], "replicate": replicate,
            "teacher_id": entry.get("teacher_id"), "generation": entry.get("generation", 0),
            "teacher_method": entry.get("teacher_method"), "student_method": entry.get("student_method"),
            "oracle": entry.get("oracle", False),
        }  # fmt: skip
        record = self.ledger.read(config, replicate)
        if record is not None:
            return {**record["row"], **row}
        pruned = self.ledger.pruned(config, replicate, self.name)
        if pruned is not None:
            return {**row, "status": "pruned", "cause": pruned["cause"], "steps_run": pruned["step"]}
        may = failed is None or f"{trial_id(config)}-r{replicate:03d}.json" in failed
        failure = self.failure(config, replicate) if may else None
        return {**row, "status": "failed" if failure else "missing", "cause": failure and failure["cause"]}

    def rows(self) -> pandas.DataFrame:
        """All rows of the study as a table, `LEADING_COLUMNS` first; columns that nothing fills are left out
        except those leading ones. `attrs["varied"]` lists the keys that vary, `attrs["study"]` the name,
        `attrs["search"]` of a search the metric that chose, and whether it saw true instance labels."""
        from d2l_study.study import compacted

        found = compacted.read(self)
        return self._rows_of_ledger() if found is None else found

    def _rows_of_ledger(self) -> pandas.DataFrame:
        import pandas as pd

        frame = pd.DataFrame(list(self.iter_rows()))
        for column in LEADING_COLUMNS:
            if column not in frame:
                frame[column] = math.nan
        frame = frame[[*LEADING_COLUMNS, *(c for c in frame if c not in LEADING_COLUMNS)]]
        frame.attrs["study"] = self.name
        frame.attrs["varied"] = sorted({key for entry in self.plan() for key in entry["varied"]})
        document = read_document(self)
        if document is not None:
            searched = document["definition"]
            frame.attrs["search"] = {"metric": searched["metrics"][0], "oracle": bool(searched.get("oracle"))}
            if searched.get("oracle"):
                frame["search_oracle"] = True  # attributes are lost in an exported file
        return frame

    def compact(self) -> pandas.DataFrame:
        """Write `rows.parquet`; returns the rows."""
        from d2l_study.study import compacted

        made_from = compacted.digest(self, ((e["config_id"], r) for e in self.plan() for r in e["replicates"]))
        frame = self._rows_of_ledger()
        compacted.write(self, frame, None if self.ledger.damaged else made_from)
        return frame


def list_studies(storage: Storage) -> list[str]:
    return [name for name in storage.list("studies") if StudyFolder(storage, name).exists()]


def find_study(study: str, root: str) -> StudyFolder:
    """A study by its name under `root`, or by its folder `ROOT/studies/<name>`; `UserError` if there is none."""
    path = user_path(study, "STUDY")
    if path.name and os.path.isfile(path / "plan.json"):  # noqa: PTH113 (Path.is_file raises for a name too long)
        path = path.absolute()
        return StudyFolder(open_storage(path.parent.parent), path.name)
    storage = open_storage(root)
    storage.ensure_usable()
    folder = StudyFolder(storage, study)
    if can_be_folder(study) and folder.exists():
        return folder
    names = list_studies(storage)
    known = f"studies there: {listed(names)}" if names else "there are no studies there"
    shown = study if len(study) <= 100 else f"{study[:99]}…"
    raise UserError(f"no study {shown!r} under {storage.root}{nearest(study, names)} ({known})")


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()
