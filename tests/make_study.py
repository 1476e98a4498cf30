"""A study folder without training, for tests of what reads results: the same writers, invented outcomes.

The outcomes are drawn from a stated distribution with a fixed seed; nothing here pretends to be a measurement.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2l_study.learning.controls import CONTROLS
from d2l_study.study.ledger.ledger import config_id
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder


def predictions(replicate: int, rng: np.random.Generator, shift: float, bags: int = 200) -> bytes:
    """Bag and instance predictions of one run as the trial function writes them (test split and validation)."""
    counts = np.array([bags, 40, 2 * bags])
    split, level = np.repeat(["test", "val", "test"], counts), np.repeat(["bag", "bag", "instance"], counts)
    index = np.concatenate([np.arange(count) for count in counts])
    label = (index % 2).astype("int8")
    frame = pd.DataFrame({
        "replicate": replicate, "stage": "teacher", "split": split, "level": level,
        "bag_index": np.where(level == "bag", index, -1), "index": index, "label": pd.array(label, dtype="Int8"),
        "logit": rng.normal(shift * (2 * label - 1), 1.0).astype("float32"),
    })  # fmt: skip
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
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


def make_distillation(
    root: str | Path,
    name: str = "distilled",
    num_bags: tuple[int, ...] = (50, 100),
    bag_sizes: tuple[int, ...] = (10,),
    teachers: tuple[str, ...] = ("none", "vat"),
    students: tuple[str, ...] = ("plain", "noisy"),
    temperatures: tuple[float, ...] = (2.0,),
    references: tuple[str, ...] = ("bag_label", "attention", "oracle"),
    replicates: int = 5,
    missing: tuple[tuple[str, int], ...] = (),
    failed: tuple[tuple[str, int], ...] = (),
    with_predictions: bool = False,
    seed: int = 0,
) -> StudyFolder:
    """A study of students. `missing` and `failed` name runs as (method, replicate), at every n and K; a run that
    learns from a failed teacher is not run, as a study would have it.

    With e_replicate ~ N(0, 0.5) shared by all that has the same replicate, instance_auc is the sigmoid of
      teacher     3 + log2(n/50) + 0.4 [vat] + e_replicate + N(0, 0.2)
      student     its teacher's + 0.1 + 0.2 [noisy] + N(0, 0.1)
      attention   its teacher's − 0.8 + N(0, 0.1)
      matched     its student's + N(0, 0.1), and so no_soft_labels; pooled the same of a teacher
      bag_label   1.5 + log2(n/50) + e_replicate + N(0, 0.2)
      oracle      6 + e_replicate + N(0, 0.2)
    and bag_auc that of the same less 0.5; attention has none.
    """
    folder = StudyFolder(LocalStorage(root), name)
    plan: list[dict[str, Any]] = []

    def add(stage: str, method: str, size: int, n: int, teacher: dict[str, Any] | None = None, **own: Any) -> dict:
        arms = {"teacher_method": teacher and teacher["method"], "student_method": own.pop("student_method", None)}
        lambda_adv = teacher["values"]["lambda_adv"] if teacher else float(method == "vat")
        values = {"dataset": "mnist", "num_bags": n, "val_bags": max(20, n // 2), "mean_bag_size": size,
                  "pooling": "attention", "lambda_adv": lambda_adv, **own}  # fmt: skip
        teacher_id = teacher and teacher["config_id"]
        identity = config_id(stage, {"all": {**values, "method": method, "teacher": teacher_id}}, "no data", seed)
        # In the values too, since what is no value and no known key of an entry does not reach the rows.
        plan.append({"config_id": identity, "stage": stage, "method": method, "values": {**values, **arms},
                     "varied": ["num_bags", "mean_bag_size", "lambda_adv", "temperature"],
                     "replicates": list(range(replicates)), "teacher_id": teacher_id, **arms})  # fmt: skip
        return plan[-1]

    for size in bag_sizes:
        for n in num_bags:
            own_teachers = [add("teacher", method, size, n) for method in teachers]
            own_students = [
                add("student", f"{teacher['method']} → {student}", size, n, teacher, student_method=student,
                    temperature=temperature)
                for teacher in own_teachers for student in students for temperature in temperatures
            ]  # fmt: skip
            for reference in references:
                if reference in ("attention", "pooled"):
                    for teacher in own_teachers:
                        add(reference, f"{reference} of {teacher['method']}", size, n, teacher)
                elif reference in CONTROLS:
                    for student in own_students:
                        add(reference, f"{reference} of {student['method']}", size, n, student)
                else:
                    add(reference, reference, size, n)
    folder.write("description: made for a test\n", {"space": {"description": "made for a test"}}, plan)

    shared = np.random.default_rng(seed).normal(0, 0.5, replicates)
    logits: dict[tuple[str, int], float] = {}
    for i, entry in enumerate(plan):
        for r in entry["replicates"]:
            logit = _drawn(entry, logits.get((entry["teacher_id"], r)), shared[r], np.random.default_rng([seed, i, r]))
            if (entry["method"], r) in missing:
                continue
            if (entry["method"], r) in failed:
                folder.write_failure(entry["config_id"], r, {"cause": "ValueError: made to fail", "log": "…"})
                continue
            if logit is None:
                cause = f"its teacher {entry['teacher_id'][:10]} r{r:03d} failed: ValueError: made to fail"
                folder.write_failure(entry["config_id"], r, {"cause": cause, "log": ""})
                continue
            logits[entry["config_id"], r] = logit
            row = {"repeat": r, "fold": None, "seed": seed, "status": "done", "cause": None,
                   "instance_auc": 1 / (1 + np.exp(-logit)), "train_seconds": 2.5, "device": "cpu",
                   "precision": "float32", "code_version": "test"}  # fmt: skip
            if entry["stage"] != "attention":
                auc = 1 / (1 + np.exp(0.5 - logit))
                row |= {"bag_auc": auc, "bag_nll": 1 - auc, "val_bag_auc": auc - 0.01}
            if entry["stage"] == "student":
                row["val_distill_loss"] = 0.1
            folder.ledger.write_config(entry["config_id"], {"values": entry["values"]})
            rng = np.random.default_rng([seed, i, r, 1])
            files = {"predictions.parquet": predictions(r, rng, logit / 2)} if with_predictions else {}
            folder.ledger.commit(entry["config_id"], r, row, files)
    return folder


def _drawn(entry: dict[str, Any], teacher: float | None, shared: float, rng: np.random.Generator) -> float | None:
    """The logit of a run's instance AUC; None for what has a teacher that has none."""
    stage, growth = entry["stage"], np.log2(entry["values"]["num_bags"] / 50)
    if entry["teacher_id"] is not None:
        gain = {"student": 0.1 + 0.2 * (entry["student_method"] == "noisy"), "attention": -0.8}.get(stage, 0.0)
        return None if teacher is None else float(teacher + gain + rng.normal(0, 0.1))
    base = {"teacher": 3 + growth + 0.4 * (entry["method"] == "vat"), "bag_label": 1.5 + growth, "oracle": 6}[stage]
    return float(base + shared + rng.normal(0, 0.2))
