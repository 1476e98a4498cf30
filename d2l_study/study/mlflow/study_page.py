"""What the MLflow page of a whole study shows, made from its documents and rows."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import counted
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.links import table_view
from d2l_study.study.mlflow.notes import EXPERIMENT, NOTE
from d2l_study.study.mlflow.tags import ARMS, LABELS, LEFT, REPLICATES

BEST = "best_val_bag_auc"
TABLE_METRICS = ("val_bag_auc", "bag_auc", "bag_auc_std", "instance_auc", "train_seconds")
TABLE_PARAMS = ("method", "num_bags", "mean_bag_size")
"""The columns of MLflow's table of a study, besides those of the keys that vary; the best by the first metric is on
top."""


def experiment_tags(varied: Sequence[str], description: str) -> dict[str, str]:
    """The tags of a study's experiment: MLflow's table of its runs, with the keys that vary, and its note."""
    columns = [*TABLE_PARAMS, *(k for k in varied if k not in TABLE_PARAMS)]
    note = "\n\n".join(filter(None, [description, EXPERIMENT]))
    return table_view(columns, TABLE_METRICS, order_by=TABLE_METRICS[0]) | {NOTE: note}


def study_tags(rows: Sequence[Mapping[str, Any]], left: int | None = None) -> dict[str, str]:
    """Tags of a study's own run: how many of all its runs are done, and how many are left. left: where a search has not
    asked for all of them yet."""
    states = [row["status"] for row in rows]
    left = states.count("missing") if left is None else left
    return {REPLICATES: f"{states.count('done')} of {len(rows)}", LEFT: counted(left, "run") if left else ""}


def study_metrics(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Metrics of a study's own run: the largest mean validation AUC of bags of a configuration, in each arm
    (`best_val_bag_auc/ARM`) and in all. Nothing is chosen by test data, which are in the configurations' runs only."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        value = row.get("val_bag_auc")
        if row["status"] == "done" and isinstance(value, Real) and math.isfinite(value):
            found.setdefault((str(row["method"]), str(row["config_id"])), []).append(float(value))
    metrics: dict[str, float] = {}
    for (arm, _), values in found.items():
        mean = math.fsum(values) / len(values)
        for name in (BEST, f"{BEST}/{arm}"):
            metrics[name] = max(metrics.get(name, mean), mean)
    return metrics


@dataclass(frozen=True)
class StudyPage:
    """What a study's own run shows. Its tags are on the configurations' runs too; varied: the keys that vary."""

    tags: dict[str, str]
    params: dict[str, Any]
    artifacts: dict[str, bytes]
    varied: list[str]
    description: str


def study_page(folder: StudyFolder) -> StudyPage:
    """The page of a study from its documents: provenance, and the space as written and resolved."""
    resolved, plan = folder.resolved(), folder.plan()
    space, origin = resolved.get("space", {}), resolved.get("provenance", {})
    tags = {
        "d2l.space": str(space.get("name", "")), "d2l.base_seed": str(space.get("base_seed", "")),
        "d2l.data_checksum": ", ".join(sorted({str(e.get("data_checksum", "")) for e in plan})),
        ARMS: json.dumps([*dict.fromkeys(e["method"] for e in plan)], ensure_ascii=False, separators=(",", ":")),
        "d2l.code_version": str(origin.get("code_version", "")), "d2l.commit": origin.get("commit") or "",
        "d2l.dirty": str(origin.get("dirty", "")).lower(),
        "d2l.local_difference": (origin.get("local_difference") or {}).get("file", ""),
    }  # fmt: skip
    if labels := space.get("labels"):
        tags[LABELS] = json.dumps(labels, ensure_ascii=False, separators=(",", ":"))
    params = {
        "space": space.get("name", ""), "replicates": max((len(e["replicates"]) for e in plan), default=0),
        "configurations": len({e["config_id"] for e in plan}), "base_seed": space.get("base_seed", ""),
    }  # fmt: skip
    varied = list(dict.fromkeys(key for e in plan for key in e["varied"]))
    return StudyPage(tags, params, space_files(folder), varied, str(space.get("description", "")))


def space_files(folder: StudyFolder) -> dict[str, bytes]:
    """`space.yaml` and `resolved.json`, as far as they are there; secrets are masked."""
    found = {}
    for name in ("space.yaml", "resolved.json"):
        with contextlib.suppress(FileNotFoundError):
            text = folder.storage.read(f"{folder.key}/{name}").decode("utf-8", "surrogateescape")
            found[name] = masked(text).encode("utf-8", "surrogateescape")
    return found
