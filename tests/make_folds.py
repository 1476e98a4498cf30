"""A cross-validated study without training, for tests of what reads results: invented predictions, true metrics.

Images are bags with 3 to 12 patches. Bag and patch scores are drawn from stated distributions with a fixed seed;
every metric of a row is computed from the predictions that are stored beside it.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2l_study.learning import localisation, metrics
from d2l_study.study.ledger.ledger import config_id
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder


def make_folds(
    root: str | Path,
    name: str = "folded",
    dataset: str = "colon",
    methods: tuple[str, ...] = ("none", "vat"),
    images: int = 60,
    folds: int = 5,
    repeats: int = 3,
    failed: tuple[tuple[int, int], ...] = (),
    oracle: bool = False,
    seed: int = 0,
    partition: str = "dealt folds",
    folds_key: int | None = None,
    train_bags: int | None = None,
    older: bool = False,
    data: str = "no data",
    tiles: bool = False,
    per_group: int | None = None,
) -> StudyFolder:
    """`failed` names runs as (index of the method, replicate). Replicate = repeat × folds + fold.

    partition: `given folds` have the same bags in every repeat; of a `given split` the first part of `folds` is the
    test part of all `folds` × `repeats` replicates; of `given splits` each replicate has a test part of its own.
    folds_key: what data.folds says, where the folds are the user's; train_bags: data.num_bags; older: without the
    columns that runs did not have before partitions were recorded; data: tells two data sets of the same settings
    apart, as their checksum does; tiles: patches are 4 by 4 tiles of a grid, whose places and metrics runs keep;
    per_group: so many images are of one group, None: the runs do not say of which.

    Bag logit = 2 y − 1 + 0.5 [vat] (2 y − 1) + N(0, 1) by image and repeat + N(0, 0.5) by run; patches alike.
    """
    folder = StudyFolder(LocalStorage(root), name)
    rng = np.random.default_rng(seed if data == "no data" else [seed, *data.encode()])
    label = np.arange(images) % 2
    patches = [rng.integers(0, 2, 16 if tiles else rng.integers(3, 13)) * y for y in label]
    plan: list[dict[str, Any]] = []
    for method in (*methods, *(("oracle",) if oracle else ())):
        stage = "oracle" if method == "oracle" else "teacher"
        values = {"dataset": dataset, "num_bags": train_bags, "folds": folds_key or folds, "pooling": "attention",
                  "lambda_adv": float(method == "vat")}  # fmt: skip
        identity = config_id(stage, {"data": {**values, "method": method}}, data, seed)
        plan.append({"config_id": identity, "stage": stage, "method": method, "values": values,
                     "varied": ["lambda_adv"], "replicates": list(range(folds * repeats))})  # fmt: skip
    folder.write("description: made for a test\n", {"space": {"description": "made for a test"}}, plan)
    order = [rng.permutation(images) for _ in range(repeats)]
    hard = rng.normal(0, 1, (repeats, images))
    for i, entry in enumerate(plan):
        for r in entry["replicates"]:
            if (i, r) in failed:
                folder.write_failure(entry["config_id"], r, {"cause": "ValueError: made to fail", "log": "…"})
                continue
            splits = partition in ("given split", "given splits")
            repeat, fold = (r, 0) if splits else divmod(r, folds)
            run = np.random.default_rng([seed, i, r])
            same = 0 if partition.startswith("given") else repeat
            test = order[same][fold::folds]
            if partition == "given splits":
                test = np.random.default_rng([seed, r]).permutation(images)[::folds]
            gain = 2.0 if entry["method"] == "oracle" else 1.0 + 0.5 * (entry["method"] == "vat")
            bag_logit, patch_logit = [], []
            for number in test:
                shift = hard[same, number]
                y, own = label[number], patches[number]
                bag_logit.append([gain * (2 * y - 1) + shift + run.normal(0, 0.5)])
                patch_logit.append(gain * (2 * own - 1) + shift + run.normal(0, 0.5, len(own)))
            logits = [np.asarray(part, "float32") for pair in zip(bag_logit, patch_logit, strict=True) for part in pair]
            predictions = _predictions(r, test, label, patches, logits)
            if per_group:
                predictions["group"] = predictions["bag_index"] // per_group
            bag, instance = (predictions[predictions["level"] == level] for level in ("bag", "instance"))
            row = {"repeat": repeat, "fold": fold, "seed": seed, "status": "done", "cause": None,
                   **_metrics("bag", bag), **_metrics("instance", instance), "instance_auc_within": _within(instance),
                   "train_seconds": 2.5, "device": "cpu", "precision": "float32", "code_version": "test"}  # fmt: skip
            row |= {"test_bags": len(test), "train_bags": train_bags or images - 2 * len(test)}
            if not older:
                row |= {"partition": partition, "fold_count": None if splits else folds,
                        "test_set": f"t{'-'.join(map(str, sorted(test)))}"}  # fmt: skip
            if tiles:
                predictions, of_places = _on_tiles(predictions, threshold=0.5)
                row |= of_places
            if entry["stage"] == "oracle":
                row = {k: v for k, v in row.items() if not k.startswith("bag_")}
            out = io.BytesIO()
            predictions.to_parquet(out, index=False)
            folder.ledger.write_config(entry["config_id"], {"values": entry["values"]})
            folder.ledger.commit(entry["config_id"], r, row, {"predictions.parquet": out.getvalue()})
    return folder


def _predictions(
    replicate: int, test: np.ndarray, label: np.ndarray, patches: list[np.ndarray], logits: list[np.ndarray]
) -> pd.DataFrame:
    """A row for each tested bag, followed by a row for each of its patches. One frame: one for each bag takes longer
    than a whole study does otherwise."""
    counts = np.array([len(patches[number]) for number in test])
    first = np.cumsum(counts + 1) - counts - 1  # the rows of bags
    bag_index = np.repeat(test, counts + 1)
    place = np.arange(len(bag_index)) - np.repeat(first, counts + 1)  # 0 of the bag, then 1, 2, … of its patches
    labels = np.concatenate([np.append(label[number], patches[number]) for number in test])
    return pd.DataFrame({
        "replicate": replicate, "stage": "teacher", "split": "test", "level": np.where(place, "instance", "bag"),
        "bag_index": bag_index, "index": np.where(place, 100 * bag_index + place - 1, bag_index),
        "label": pd.array(labels, dtype="Int8"), "logit": np.concatenate(logits),
    })  # fmt: skip


def _metrics(level: str, frame: pd.DataFrame) -> dict[str, float]:
    label, logit = frame["label"].to_numpy(int), frame["logit"].to_numpy(float)
    found = {"auc": metrics.auc(label, logit), "ap": metrics.average_precision(label, logit),
             **metrics.at_threshold(label, logit)}  # fmt: skip
    return {f"{level}_{name}": value for name, value in found.items()}


def _within(frame: pd.DataFrame) -> float:
    bag, label, logit = (frame[name].to_numpy() for name in ("bag_index", "label", "logit"))
    own = [(label[bag == number].astype(int), logit[bag == number].astype(float)) for number in np.unique(bag)]
    areas = [metrics.auc(labels, logits) for labels, logits in own if 0 < labels.sum() < len(labels)]
    return float(np.mean(areas)) if areas else float("nan")


def _on_tiles(predictions: pd.DataFrame, threshold: float) -> tuple[pd.DataFrame, dict[str, float]]:
    """The predictions with the places of the instances, and the columns of a row that need them."""
    instance = predictions["level"] == "instance"
    tile = predictions["index"] % 100
    placed = predictions.assign(
        image=predictions["bag_index"].where(instance), x=(tile % 4 * 64.0).where(instance),
        y=(tile // 4 * 64.0).where(instance),
    )  # fmt: skip
    own = placed[instance]
    label, logit = own["label"].to_numpy(int), own["logit"].to_numpy(float)
    image, called = own["image"].to_numpy(int), logit > threshold
    maps = localisation.tile_maps(image, own[["x", "y"]].to_numpy())
    assert maps is not None
    return placed, {
        "instance_threshold": threshold, "instance_dice_tuned": localisation.dice(label, called),
        "instance_dice_within_tuned": localisation.mean_by_image(localisation.image_dice, label, called, image),
        "instance_ap_within": localisation.mean_by_image(localisation.image_average_precision, label, logit, image),
        "instance_froc": localisation.froc(localisation.find_detections(maps, label, logit)),
    }  # fmt: skip
