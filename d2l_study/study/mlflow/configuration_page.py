"""What the MLflow page of one configuration shows: name, metrics, status, cause and tags, made from its rows.

All of it depends on the rows alone, so that a live study and a later `sync` show the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from d2l_study.learning.controls import CONTROL_IDS
from d2l_study.learning.part_config import PART_TEACHER
from d2l_study.options import value_text
from d2l_study.study.mlflow.tags import TEACHER, VARIED
from d2l_study.study.space.idle_values import idle_names

COUNTERS = frozenset({"replicate", "repeat", "fold", "fold_count", "seed", "generation", "threads"})
"""Numbers of a row that are no outcomes."""

SHORT_NAMES = {
    "num_bags": "n", "mean_bag_size": "K", "lambda_adv": "λ_adv", "lambda_noise": "λ_noise", "lambda_ent": "λ_ent",
    "epsilon": "ε", "learning_rate": "lr",
}  # fmt: skip
PAGE_VERSION = 3
"""To be raised when pages show something new, so that `sync` writes the old ones again."""


def run_name(method: str, stage: str, params: Mapping[str, Any], varied: Sequence[str] = ()) -> str:
    """For example `vat n=50 K=10 λ_adv=1`: the arm, the two main axes, and the other keys that vary, unless nothing
    reads them, or they are 0 and switch a regularizer off; of a part teacher also its part."""
    idle = idle_names(params)
    keys = ["num_bags", "mean_bag_size", *(k for k in varied if k not in ("num_bags", "mean_bag_size"))]
    keys += ["part"] if stage == PART_TEACHER else []
    parts = [method] if stage == "teacher" or method.startswith(stage) else [stage, method]
    for key in keys:
        value = params.get(key)
        if value is None or key in idle or (key.startswith("lambda_") and value == 0):
            continue
        parts.append(f"{SHORT_NAMES.get(key, key)}={value_text(value)}")
    return " ".join(parts)


def final_metrics(rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a configuration. Of every numeric outcome of its finished replicates: the mean (`bag_auc`), the
    standard deviation (`bag_auc_std`; n − 1, from two values on) and each value (`bag_auc/r003`). Values that are not
    finite are left out of mean and deviation."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["status"] != "done":
            continue
        for key, value in row.items():
            if isinstance(value, Real) and not isinstance(value, bool) and key not in COUNTERS and key not in params:
                found.setdefault(key, {})[int(row["replicate"])] = float(value)
    metrics: dict[str, float] = {}
    for key, values in sorted(found.items()):
        finite = [v for v in values.values() if math.isfinite(v)]
        metrics[key] = float(np.mean(finite)) if finite else math.nan
        if len(finite) > 1:
            metrics[f"{key}_std"] = float(np.std(finite, ddof=1))
        metrics |= {f"{key}/r{replicate:03d}": value for replicate, value in sorted(values.items())}
    return metrics


def outcome(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str, str | None]:
    """MLflow's status, the count of replicates ("4 of 5") and the cause of a failure.

    FAILED if any replicate failed, KILLED if any is missing or was pruned, FINISHED if all are done.
    """
    states = [row["status"] for row in rows]
    failed = [row for row in rows if row["status"] == "failed"]
    cause = None
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        cause = f"r{int(first['replicate']):03d}: {first.get('cause') or 'no cause recorded'}{more}"
    status = "FAILED" if failed else "FINISHED" if all(s == "done" for s in states) else "KILLED"
    return status, f"{states.count('done')} of {len(states)}", cause


ROW_FACTS = (
    "replicate",
    "status",
    "repeat",
    "fold",
    "fold_count",
    "partition",
    "seed",
    "generation",
    "teacher_method",
    "student_method",
    "oracle",
    *CONTROL_IDS,
)


def row_facts(rows: Sequence[Mapping[str, Any]]) -> str:
    """What rows say besides params and metrics, as JSON, so that the rows can be read from MLflow alone. A value that
    is the same in all rows stands once, others as a list by replicate; a column that no row has is left out."""
    facts: dict[str, Any] = {}
    for name in ROW_FACTS:
        values = [row.get(name) for row in rows]
        if any(value is not None for value in values):
            facts[name] = values[0] if name != "replicate" and len(set(values)) == 1 else values
    return json.dumps(facts, separators=(",", ":"), default=str)


def reused_from(rows: Sequence[Mapping[str, Any]], study: str) -> str:
    """The other studies that made these runs, as a text; empty if this one made them all."""
    makers = {str(row.get("made_by")) for row in rows if row.get("made_by") not in (None, study)}
    return ", ".join(sorted(makers))


def page_digest(rows: Sequence[Mapping[str, Any]], params: Mapping[str, Any], artifacts: Iterable[str] = ()) -> str:
    """A short hash of what the page of these rows shows. artifacts: their names; those of overlays count, since a study
    may allow them later."""
    content: list[Any] = [PAGE_VERSION, final_metrics(rows, params), outcome(rows)]
    if overlays := sorted(name for name in artifacts if name.startswith("overlays/")):
        content.append(overlays)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def origin_tags(entry: Mapping[str, Any]) -> dict[str, str]:
    """The tags of an entry of the plan: which keys vary, and the config_ids of the teachers that it learns from."""
    return {VARIED: ",".join(entry["varied"])} | ({TEACHER: entry["teacher_id"]} if entry.get("teacher_id") else {})
