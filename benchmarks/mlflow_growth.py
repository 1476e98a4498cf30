"""Does it cost MLflow more to take a run when it holds many? Pages like those of `orchestration.py`, one by one.

    python benchmarks/mlflow_growth.py [--runs 2000] [--out raw.json]

Writes so many runs (40 parameters, 12 tags, 7 curves of 20 points and their means, 40 metrics, an artifact, in two
parts as from a running trial) into a new sqlite store through the study's own `StudyRuns`, without Ray, and prints the
thread's processor milliseconds of a run, by blocks of 200.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from options import output_file, whole_number

from d2l_study.study.mlflow.page import PARENT, Page
from d2l_study.study.mlflow.store import StudyRuns

BLOCK = 200
CURVES = ("train_loss", "bce", "r_adv", "r_noise", "r_ent", "val_bag_auc", "val_bag_nll")


def write_run(runs: StudyRuns, number: int, draw: random.Random) -> None:
    key = f"{number:016x}"
    tags, params = ({f"{name}{k}": str(draw.random()) for k in range(count)} for name, count in (("t", 12), ("p", 40)))
    page = Page(f"run {number}", tags=tags, params=params)
    for first in (1, 11):
        page.reports = [(step, {0: {name: draw.random() for name in CURVES}}) for step in range(first, first + 10)]
        if first > 1:
            page.metrics, page.status = {f"m{k}": draw.random() for k in range(40)}, "FINISHED"
            page.artifacts = {"a.txt": b"x" * 1000}
        runs.write(key, page)
    runs.write_artifacts(key, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=whole_number, default=2000)
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mlflow-growth-") as folder:
        runs, draw = StudyRuns(f"sqlite:///{folder}/mlflow.db", "growth"), random.Random(0)
        runs.open()
        runs.write(PARENT, Page("study", tags={"d2l.kind": "study"}))
        blocks, begin = [], time.thread_time()
        for number in range(options.runs):
            write_run(runs, number, draw)
            if (number + 1) % BLOCK == 0:
                blocks.append((time.thread_time() - begin) / BLOCK * 1000)
                begin = time.thread_time()
                print(f"{number + 1:6d} runs: {blocks[-1]:.1f} ms a run", flush=True)
        size = Path(folder, "mlflow.db").stat().st_size
    if options.out:
        options.out.write_text(json.dumps({"block": BLOCK, "milliseconds": blocks, "bytes": size}, indent=1))


if __name__ == "__main__":
    main()
