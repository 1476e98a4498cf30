"""What is known of a stored model from its run: thresholds, metrics, and the bags it was trained on.

    record = record_of_run(ledger, config, replicate, marks=True)

Whatever is set here is set on the validation bags, with the labels that training saw. Test labels set nothing.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from d2l_study.data import DATASETS
from d2l_study.data.fingerprint import TrainingMarks, ensemble_marks, training_marks
from d2l_study.errors import UserError
from d2l_study.inference.model_folder import MetricRecord, ModelRecord
from d2l_study.learning.calibration import fit_temperature
from d2l_study.learning.thresholds import separating_threshold
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.run_files import PREDICTIONS
from d2l_study.study.plan.plan import committed_replicates
from d2l_study.study.trial.replicates import trained_replicate
from d2l_study.study.trial.result_columns import is_metric
from d2l_study.study.trial.study_of_trial import where_data_are

COUNTS = ("train_bags", "val_bags", "test_bags", "num_bags", "train_instances", "val_instances", "test_instances",
          "labels_used")  # fmt: skip
FACTS = ("repeat", "fold", "partition", "fold_count", "seed", "best_step", "steps_run", "precision", "device",
         "code_version", "made_by", "committed_at")  # fmt: skip

Summary = Callable[[str], tuple[float, float, float, int]]
"""A metric -> its mean over a configuration's replicates, the bounds of its interval, and how many values it has."""
SummaryOfRows = Callable[[Sequence[Mapping[str, Any]]], Summary]


def record_of_run(
    ledger: Ledger, config: str, replicate: int, choice: str = "", marks: bool = False,
    summary_of: SummaryOfRows | None = None,
) -> ModelRecord:  # fmt: skip
    """The record of a committed run.

    choice: why this replicate, in words; marks: whether to mark the bags that it was trained on, for which its data set
    is read, and which stay unknown where that is not here, or not as it was; summary_of: of the rows of all
    its finished runs, for means with intervals, which are left out without it.
    """
    rows = _rows(ledger, config)
    row = rows[replicate]
    threshold, temperature = _set_on_validation(ledger, config, replicate)
    names = [name for name, value in row.items() if is_metric(name) and _is_number(value)]
    data = ledger.known_config(config)["sections"]["data"]
    about = {"config_id": config, "dataset": data["dataset"], "folds": data.get("folds")}
    summary = (
        None if summary_of is None else summary_of([{**about, "replicate": r, **other} for r, other in rows.items()])
    )
    metrics = {
        name: MetricRecord(float(row[name])) if summary is None else MetricRecord(float(row[name]), *summary(name))
        for name in names
    }
    known = {**data, **row}
    counts = {name: int(known[name]) for name in COUNTS if _is_number(known.get(name))}
    facts = {name: str(row[name]) for name in FACTS if row.get(name) is not None}
    seen = marks_of_runs(ledger, config, [replicate]) if marks else None
    if seen is not None:
        counts["val_bags"] = seen.part.count("validation")
    return ModelRecord(threshold, temperature, metrics, counts, facts, seen, choice)


def marks_of_runs(ledger: Ledger, config: str, replicates: Sequence[int]) -> TrainingMarks | None:
    """The marks of the bags that any of a configuration's runs was trained on or selected by; None where its data set
    is not here as it was."""
    content = where_data_are(ledger, config, ledger.known_config(config))
    section = content["sections"]["data"]
    data = DATASETS[section["dataset"]](**section)
    try:
        pool = data.load_pool()
    except UserError:
        return None
    if pool.checksum != content["data_checksum"]:
        return None
    made = (trained_replicate(content["sections"], pool, number, content["base_seed"]) for number in replicates)
    return training_marks(next(made)) if len(replicates) == 1 else ensemble_marks(made)


def _rows(ledger: Ledger, config: str) -> dict[int, dict[str, Any]]:
    """The rows of a configuration's finished runs, by replicate."""
    records = {r: ledger.read(config, r) for r in sorted(committed_replicates(ledger, config))}
    return {r: record["row"] for r, record in records.items() if record and record["row"]["status"] == "done"}


def _set_on_validation(ledger: Ledger, config: str, replicate: int) -> tuple[float | None, float | None]:
    """The threshold of bags, as a logit, and the temperature; None where they cannot be set."""
    import pyarrow.parquet as pq

    try:
        data = ledger.read_file(config, replicate, PREDICTIONS)
    except (FileNotFoundError, KeyError, UserError):
        return None, None
    rows = pq.read_table(
        io.BytesIO(data), columns=["seen_label", "logit"], filters=[("split", "=", "val"), ("level", "=", "bag")]
    )
    label, logit = (np.asarray(rows[name], np.float64) for name in ("seen_label", "logit"))
    label, logit = label[~np.isnan(label)], logit[~np.isnan(label)]
    threshold = separating_threshold(logit, label == 1)
    if math.isnan(threshold):
        return None, None
    return threshold, fit_temperature(label, logit)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
