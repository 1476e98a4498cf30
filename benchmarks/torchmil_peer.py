"""A study of feature bags against torchmil: processor time and AUC on the same bags, folds, epochs and core.

    python -m venv /tmp/peer && /tmp/peer/bin/pip install torch torchmil
    python benchmarks/torchmil_peer.py --peer /tmp/peer/bin/python [--runs 50] [--out FILE.json]

torchmil (ABMIL, its Trainer, Adam, batches of one bag) runs in its own environment (`torchmil_train.py`). Ours is
`fit_teacher` on the same folds of MUSK1 with the same network (one linear layer of 512 with ReLU, attention of 128),
the same Adam, as many epochs and a validation per epoch: with batches of one bag, one run after the other (`one_bag`),
with batches of four bags (`turns`, what one run costs), and all runs packed (`packed`, what a run of a study costs).
One thread each, parts of the runs by turns, so that what else the machine does meets all alike. Neither counts loading
and scoring the test bags. Difference of AUC: paired by fold, the 95 % interval corrected for folds that share training
bags (Nadeau and Bengio 2003).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from options import output_file, whole_number
from scipy import stats

from d2l_study.data import FeatureBags
from d2l_study.learning import Compute, TeacherConfig, fit_teacher

ADAM = {"learning_rate": 5e-4, "weight_decay": 1e-4}
PART = 25
"""Runs of each side before the other has its turn."""


def peer(options: argparse.Namespace, file: Path, first: int, runs: int) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("torchmil_train.py")
    words = [options.peer, script, file, "--first", str(first), "--runs", str(runs), "--epochs", str(options.epochs)]
    done = subprocess.run([str(w) for w in words], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def ours(replicates: list[Any], epochs: int, batch: int, packed: bool | None) -> list[dict[str, Any]]:
    """A row for each replicate; seconds: processor time of training and validation, shared alike by a pack."""
    bags = math.ceil(np.mean([len(replicate.train) for replicate in replicates]))
    steps = math.ceil(epochs * bags / batch)
    every = math.ceil(bags / batch)
    config = TeacherConfig(extractor="mlp", feature_width=512, steps=steps, batch_bags=batch, eval_every=every, **ADAM)
    marks = [time.process_time()]
    fitted = fit_teacher(
        config,
        replicates,
        compute=Compute(packed=packed),
        report=lambda step, values: marks.append(time.process_time()),
    )
    each = (marks[-1] - marks[0]) / len(replicates)
    return [
        {"run": one.replicate, "seconds": each, "auc": one.metrics["bag_auc"], "accuracy": one.metrics["bag_accuracy"]}
        for one in fitted
    ]


def corrected_interval(differences: np.ndarray, ratio: float) -> tuple[float, float]:
    """Mean and 95 % half-width; ratio: test bags over training bags."""
    count = len(differences)
    if count < 2:
        return float(differences.mean()), math.nan
    half = stats.t.ppf(0.975, count - 1) * math.sqrt(differences.var(ddof=1) * (1 / count + ratio))
    return float(differences.mean()), float(half)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="the Python of an environment with torchmil")
    parser.add_argument("--data", default="musk1", help="musk1, or an .npz file with test_fold")
    parser.add_argument("--runs", type=whole_number, default=50)
    parser.add_argument("--epochs", type=whole_number, default=20)
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    data = FeatureBags(path=options.data)
    pool = data.load_pool()
    file = Path(__file__).parents[1] / "d2l_study" / "data" / "mil_benchmarks" / "musk1.npz"
    file = file if options.data == "musk1" else Path(options.data)
    replicates = [data.replicate(pool, number, 1) for number in range(options.runs)]
    rows: dict[str, list[dict[str, Any]]] = {"torchmil": [], "one_bag": [], "turns": [], "packed": []}
    for first in range(0, options.runs, PART):
        mine = replicates[first : first + PART]
        rows["torchmil"] += peer(options, file, first, len(mine))
        rows["one_bag"] += ours(mine, options.epochs, 1, False)
        rows["turns"] += ours(mine, options.epochs, 4, False)
        rows["packed"] += ours(mine, options.epochs, 4, None)
        print(f"{first + len(mine)} of {options.runs} runs", flush=True)
    base = rows["torchmil"]
    ratio = float(np.mean([len(r.test) / len(r.train) for r in replicates]))
    for name, found in rows.items():
        seconds = np.mean([row["seconds"] for row in found])
        area, accuracy = (np.array([row[key] for row in found]) for key in ("auc", "accuracy"))
        text = (
            f"{name}: {seconds:.3f} s a run, AUC {area.mean():.3f}, accuracy {accuracy.mean():.3f} ({len(found)} runs)"
        )
        if found is not base:
            mean, half = corrected_interval(area - np.array([row["auc"] for row in base]), ratio)
            times = np.mean([row["seconds"] for row in base]) / seconds
            text += f"; torchmil takes {times:.1f} times as long; AUC {mean:+.3f} ± {half:.3f}"
        print(text)
    if options.out:
        about = {"torch": torch.__version__, "epochs": options.epochs, "data": options.data, "rows": rows}
        options.out.write_text(json.dumps(about, indent=1))


if __name__ == "__main__":
    main()
