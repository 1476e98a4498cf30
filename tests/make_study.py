"""A study folder without training, for tests of what reads results: the same writers, invented outcomes.

The outcomes are drawn from a stated distribution with a fixed seed; nothing here pretends to be a measurement.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2l_study.study.folder import StudyFolder
from d2l_study.study.ledger import config_id
from d2l_study.study.storage import LocalStorage


def predictions(replicate: int, rng: np.random.Generator, shift: float, bags: int = 200) -> bytes:
    """Bag and instance predictions of one run as the trial function writes them (test split and validation)."""
    parts = []
    for split, level, count in (("test", "bag", bags), ("val", "bag", 40), ("test", "instance", 2 * bags)):
        label = (np.arange(count) % 2).astype("int8")
        parts.append(pd.DataFrame({
            "replicate": replicate, "stage": "teacher", "split": split, "level": level,
            "bag_index": np.arange(count) if level == "bag" else -1, "index": np.arange(count),
            "label": pd.array(label, dtype="Int8"), "logit": rng.normal(shift * (2 * label - 1), 1.0).astype("float32"),
        }))  # fmt: skip
    out = io.BytesIO()
    pd.concat(parts).to_parquet(out, index=False)
    return out.getvalue()


def make_study(
    root: str | Path,
    name: str = "made",
    num_bags: tuple[int, ...] = (50, 100, 200),
    bag_sizes: tuple[int, ...] = (10, 50),
    methods: tuple[str, ...] = ("none", "vat"),
    replicates: int = 5,
    missing: tuple[tuple[int, int], ...] = (),
    failed: tuple[tuple[int, int], ...] = (),
    with_predictions: bool = False,
    seed: int = 0,
) -> StudyFolder:
    """`missing` and `failed` name runs as (index of the configuration in the plan, replicate).

    bag_auc = sigmoid(2 + log2(n/50) + 0.4 [vat] + e_replicate + e_run): paired, since e_replicate is shared.
    """
    folder = StudyFolder(LocalStorage(root), name)
    plan: list[dict[str, Any]] = []
    for method in methods:
        for size in bag_sizes:
            for n in num_bags:
                values = {"dataset": "mnist", "num_bags": n, "val_bags": max(20, n // 2), "mean_bag_size": size,
                          "pooling": "attention", "lambda_adv": 1.0 if method == "vat" else 0.0,
                          "lambda_noise": 0.0, "lambda_ent": 0.0, "epsilon": 2.0}  # fmt: skip
                identity = config_id("teacher", {"data": values}, "no data", seed)
                plan.append({"config_id": identity, "stage": "teacher", "method": method, "values": values,
                             "varied": ["num_bags", "mean_bag_size", "lambda_adv"],
                             "replicates": list(range(replicates))})  # fmt: skip
    folder.write("description: made for a test\n", {"space": {"description": "made for a test"}}, plan)
    shared = np.random.default_rng(seed).normal(0, 0.5, replicates)
    for i, entry in enumerate(plan):
        for r in entry["replicates"]:
            if (i, r) in missing:
                continue
            if (i, r) in failed:
                folder.write_failure(entry["config_id"], r, {"cause": "ValueError: made to fail", "log": "…"})
                continue
            rng = np.random.default_rng([seed, i, r])
            logit = 2 + np.log2(entry["values"]["num_bags"] / 50) + 0.4 * (entry["method"] == "vat") + shared[r]
            auc = 1 / (1 + np.exp(-(logit + rng.normal(0, 0.2))))
            row = {"repeat": r, "fold": None, "seed": seed, "status": "done", "cause": None, "bag_auc": auc,
                   "bag_nll": 1 - auc, "bag_brier": (1 - auc) / 4, "instance_auc": min(1.0, auc + 0.01),
                   "val_bag_auc": auc - 0.01, "val_bag_nll": 1 - auc, "best_step": 200, "steps_run": 300,
                   "train_seconds": 2.5, "device": "cpu", "precision": "float32", "code_version": "test"}  # fmt: skip
            files = {"predictions.parquet": predictions(r, rng, logit / 2)} if with_predictions else {}
            folder.ledger.write_config(entry["config_id"], {"values": entry["values"]})
            folder.ledger.commit(entry["config_id"], r, row, files)
    return folder
