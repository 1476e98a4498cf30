"""One study on disk: its documents, and its runs as rows.

A row of the study = what its plan says of the configuration (method, varied keys) + what the ledger holds
of the run. A run in neither ledger nor failures has status `missing`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study.learning.controls import CONTROL_IDS
from d2l_study.study.ledger import compacted_rows
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.study_documents import StudyDocuments

if TYPE_CHECKING:
    import pandas

LEADING_COLUMNS = (
    "study", "config_id", "trial_id", "stage", "method", "dataset", "num_bags", "val_bags", "mean_bag_size",
    "pooling", "lambda_adv", "lambda_noise", "lambda_ent", "repeat", "fold", "replicate", "seed", "teacher_id",
    "generation", "status", "bag_auc", "instance_auc", "val_bag_auc",
)  # fmt: skip
"""The columns every table has, first and in this order; more may follow."""


class StudyFolder(StudyDocuments):
    """One study on disk."""

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Every run of the plan as one flat dictionary."""
        failed = self.failure_keys()
        runs = ((entry, replicate) for entry in self.plan() for replicate in entry["replicates"])
        while some := list(itertools.islice(runs, 1000)):
            yield from self.storage.map(lambda run: self._row(run[0], run[1], failed), some)

    def failure_keys(self) -> set[str]:
        """The `failure_key` of every recorded failure, of one listing."""
        return {f"{self.key}/failures/{name}" for name in self.storage.list(f"{self.key}/failures")}

    def rows_of(self, entry: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of one configuration of the plan."""
        return self.storage.map(lambda replicate: self._row(entry, replicate), entry["replicates"])

    def rows_of_runs(self, runs: Sequence[tuple[dict[str, Any], int]]) -> list[dict[str, Any]]:
        """The rows of many runs, each an entry of the plan and a replicate."""
        failed = self.failure_keys()
        return self.storage.map(lambda run: self._row(run[0], run[1], failed), runs)

    def _row(self, entry: dict[str, Any], replicate: int, failed: set[str] | None = None) -> dict[str, Any]:
        """failed: `failure_keys`, if they are known; for many rows this is faster than asking for each."""
        config = entry["config_id"]
        row = {
            **entry["values"], "study": self.name, "config_id": config, "trial_id": trial_id(config),
            "stage": entry["stage"], "method": entry["method"], "replicate": replicate,
            "teacher_id": entry.get("teacher_id"), "generation": entry.get("generation", 0),
            "teacher_method": entry.get("teacher_method"), "student_method": entry.get("student_method"),
            "oracle": entry.get("oracle", False), **{k: entry[k] for k in CONTROL_IDS if k in entry},
        }  # fmt: skip
        record = self.record(config, replicate)
        if record is not None:
            return {**record["row"], **row}
        pruned = self.ledger.pruned(config, replicate, self.name)
        if pruned is not None:
            return {**row, "status": "pruned", "cause": pruned["cause"], "steps_run": pruned["step"]}
        may = failed is None or self.failure_key(config, replicate) in failed
        failure = self.failure(config, replicate) if may else None
        return {**row, "status": "failed" if failure else "missing", "cause": failure and failure["cause"]}

    def rows(self) -> pandas.DataFrame:
        """All rows of the study as a table: `LEADING_COLUMNS` first, then every other column that a row has.

        `attrs["study"]` is the name, `attrs["varied"]` the keys that vary; of a search, `attrs["search"]` holds the
        metric that it optimised and whether it saw true instance labels."""
        found = compacted_rows.read(self)
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
        made_from = compacted_rows.digest(self, ((e["config_id"], r) for e in self.plan() for r in e["replicates"]))
        frame = self._rows_of_ledger()
        compacted_rows.write(self, frame, None if self.ledger.damaged else made_from)
        return frame
