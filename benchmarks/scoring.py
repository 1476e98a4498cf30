"""Scores of stored models on a GPU: are they those of the processor, and how many times as fast?

    python benchmarks/scoring.py [--device cuda|cpu] [--seconds 0.5] [--out scoring.json]

Needs torch, numpy and safetensors only. A row for each network: 600 random patches or vectors in 20 bags, scored by
models of random weights as `label`, `predict` and `evaluate` do it, in float32 without TF32. It says how far logits of
instances and of bags are apart from the CPU's, relative to the spread of the CPU's, and what a thousand instances take
on both. On a CPU it compares whole bags with instances that come in parts. Exit code 1 if a difference is above its
tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from options import output_file, positive_number

from d2l_study.errors import first_line
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.learning.precision import full_float32
from d2l_study.learning.prediction import Compute
from d2l_study.models import MilModel

NETWORKS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "lenet, attention": ((1, 28, 28), {"extractor": "lenet", "pooling": "attention"}),
    "lenet_histology, gated attention": ((3, 27, 27), {"extractor": "lenet_histology", "pooling": "gated_attention"}),
    "resnet, embedding_max": ((3, 64, 64), {"extractor": "resnet", "pooling": "embedding_max"}),
    "mlp, noisy_or": ((1024,), {"extractor": "mlp", "pooling": "noisy_or"}),
}
"""Shape of an instance, and the network; every extractor and every way of pooling a bag that differs on a device."""
INSTANCES, BAGS = 600, 20
TOLERANCE = 1e-4


def stored_model(shape: tuple[int, ...], network: dict[str, Any]) -> StoredModel:
    """With random weights."""
    model = MilModel(shape, **network)
    channels = shape[0]
    mean, std = (np.full(channels, 0.5), np.full(channels, 0.25)) if len(shape) == 3 else (
        np.zeros(channels), np.ones(channels))  # fmt: skip
    card = ModelCard("teacher", {"data": {}}, tuple(mean), tuple(std), "benchmark", "0" * 20, 0, 0.0)
    return StoredModel(model, model.init(np.random.default_rng(0)), card)


def instances_of(shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.default_rng(1)
    if len(shape) == 1:
        return rng.standard_normal((INSTANCES, *shape), np.float32)
    return rng.integers(0, 256, (INSTANCES, *shape), dtype=np.uint8)


def scores(model: LoadedModel, instances: np.ndarray, parts: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the instances and of the bags, to which the instances belong by turns."""
    bag_of = np.arange(INSTANCES) % BAGS
    return model.score_bags(np.array_split(instances, parts), bag_of, BAGS)


def milliseconds(model: LoadedModel, instances: np.ndarray, least: float) -> float:
    """For a thousand instances: the shortest of several repeats, over `least` seconds."""
    best, begin = np.inf, time.perf_counter()
    while time.perf_counter() - begin < least or best == np.inf:
        start = time.perf_counter()
        scores(model, instances)  # its result is on the processor, so nothing is left to wait for
        best = min(best, time.perf_counter() - start)
    return 1e3 * best * 1000 / INSTANCES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seconds", type=positive_number, default=0.5, help="for each time that is measured")
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON, after every row")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("argument --device: cuda, but PyTorch finds no GPU here (torch.cuda.is_available())")
    full_float32()
    rows: list[dict[str, Any]] = []
    for name, (shape, network) in NETWORKS.items():
        row: dict[str, Any] = {"network": name}
        try:
            stored, instances = stored_model(shape, network), instances_of(shape)
            here, there = LoadedModel(stored), LoadedModel(stored, compute=Compute(args.device))
            pairs = zip(scores(here, instances), scores(there, instances, parts=7), strict=True)
            for level, (a, b) in zip(("instances", "bags"), pairs, strict=True):
                row[level] = float(np.abs(b - a).max() / np.ptp(a))
            row["equal"] = max(row["instances"], row["bags"]) <= TOLERANCE
            row |= {"ms_cpu": milliseconds(here, instances, args.seconds)}
            row |= {"ms_device": milliseconds(there, instances, args.seconds)}
        except Exception as error:  # of this row: the others are still worth having
            row |= {"failed": f"{type(error).__name__}: {first_line(error)}", "equal": False}
        rows.append(row)
        print("  ".join(f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        if args.out:
            args.out.write_text(json.dumps({"tolerance": TOLERANCE, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
