"""What training on a cohort of whole slides costs: memory and time of a plan, a trial, and a whole bag's evaluation.

    python benchmarks/feature_training.py [--folder DIR] [--slides 200] [--instances 20000] [--width 1024]
        [--steps 100] [--json FILE]

By default the cohort of `feature_store.py`: 8 GB of float16 in TRIDENT's files, of which twice as much is needed in the
folder. `planned` is `d2l_study plan` of 50 replicates (five repeats of ten folds); `trained` one replicate with VAT,
1,000 instances of a bag in a step, validated and tested on whole bags; `packed` five replicates as one stack. Each line
is a process of its own with one thread. `own` is the memory that only this process has (`own_memory.py`), that of
Python and torch included. Everything that was made is removed at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from feature_store import make
from options import output_file, whole_number
from own_memory import OwnMemory

LINES = ("stored", "planned", "trained", "packed")


def work(what: str, table: Path, steps: int) -> dict[str, object]:
    """One line, in this process."""
    import torch

    from d2l_study.cli import main as command
    from d2l_study.data import FeatureBags
    from d2l_study.learning import Compute, TeacherConfig, fit_teacher

    torch.set_num_threads(1)
    begin, cpu = time.perf_counter(), time.process_time()
    found: dict[str, object] = {}
    with OwnMemory() as memory:
        if what == "planned":
            space = table.with_name("space.yaml")
            space.write_text(
                "description: memory\ndata: {dataset: features, path: slides.csv}\nreplicates: 50\n"
                "methods: {plain: {}, vat: {teacher: {lambda_adv: 1.0}}}\n"
            )
            if command(["plan", "--space", str(space), "--root", str(table.with_name("root"))]) != 0:
                raise SystemExit("error: plan failed")
        else:
            data = FeatureBags(path=str(table))
            pool = data.load_pool()
        if what in ("trained", "packed"):
            config = TeacherConfig(
                extractor="mlp", feature_width=512, lambda_adv=1.0, epsilon=5.0, steps=steps, batch_bags=4,
                eval_every=max(1, steps // 2), instances_per_bag=1000,
            )  # fmt: skip
            replicates = [data.replicate(pool, number, 1) for number in range(5 if what == "packed" else 1)]
            fitted = fit_teacher(config, replicates, compute=Compute(packed=what == "packed"))
            found["bag_auc"] = [round(one.metrics["bag_auc"], 3) for one in fitted]
            found["largest_bag"] = int(pool.bags.sizes.max())
    wall, used = time.perf_counter() - begin, time.process_time() - cpu
    return {"wall_s": round(wall, 2), "cpu_s": round(used, 2), "own_mb": memory.own_mb, "peak_mb": memory.peak_mb,
            **found}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where the cohort is made; else the system's temporary folder")
    parser.add_argument("--slides", type=whole_number, default=200)
    parser.add_argument("--instances", type=whole_number, default=20_000, help="of each slide")
    parser.add_argument("--width", type=whole_number, default=1024)
    parser.add_argument("--steps", type=whole_number, default=100)
    parser.add_argument("--json", type=output_file, help="keep the raw values here")
    parser.add_argument("--lines", default=",".join(LINES), help="which of them, in this order; stored comes first")
    parser.add_argument("--line", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        what, table = arguments.line
        print(json.dumps(work(what, Path(table), arguments.steps)))
        return
    lines: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        table = make(Path(name), arguments.slides, arguments.instances, arguments.width, "trident")
        environment = {**os.environ, "D2L_CACHE": str(Path(name) / "cache"), "OMP_NUM_THREADS": "1"}
        for what in arguments.lines.split(","):
            words = [sys.executable, __file__, "--steps", str(arguments.steps), "--line", what, str(table)]
            ended = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True)
            lines[what] = json.loads(ended.stdout.splitlines()[-1])
            print(f"{what:<8} {json.dumps(lines[what])}", flush=True)
    if arguments.json:
        about = {key: getattr(arguments, key) for key in ("slides", "instances", "width", "steps")}
        arguments.json.write_text(json.dumps({**about, "lines": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
