"""What a trial costs beyond its training: Ray Tune, ledger, MLflow.

Claim (target): 200 trivial trials with MLflow logging, 20 reports each, in at most 0.3 s of wall time per trial on two
cores, and a processor time of the driver per trial that does not grow from 100 to 2,000 trials.

A trivial trial is a real one, as small as the engine allows: a teacher of 8 features on two bags of one digit, 20
optimizer steps with a report after each. So that it can be subtracted, the same trainings run first in this process
through `run_trial` into a ledger of their own, without Ray and MLflow (`alone`, wall seconds per trial on one core).

    python benchmarks/orchestration.py [--trials 100 200 2000] [--out raw.json]

Driver: processor seconds of the process that says `run`, its MLflow thread included, without its children.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPORTS = 20
SPACE = """
description: trivial trials
data: {{num_bags: 2, val_bags: 2, mean_bag_size: 1, test_bags: 2}}
teacher: {{steps: {reports}, eval_every: 1, patience: 0, batch_bags: 1, feature_width: 8, attention_width: 4}}
methods:
  none: {{teacher: {{learning_rate: [{rates}]}}}}
replicates: 1
resources: {{checkpoint_every: 0}}
"""
ALONE = 10


def space_of(folder: Path, trials: int) -> Path:
    """A space of so many trials, which differ by a hair of the learning rate."""
    rates = ", ".join(f"{1e-4 * (1 + i / trials):.8f}" for i in range(trials))
    path = folder / f"trivial{trials}.yaml"
    path.write_text(SPACE.format(reports=REPORTS, rates=rates))
    return path


def driver(space: str, root: str) -> None:
    """`run` in this process; prints what it cost, as the last line."""
    from d2l_study import cli

    cli.main(["spaces"])
    begun, before = time.perf_counter(), time.process_time()
    code = cli.main(["run", "--space", space, "--root", root])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    cost = {"code": code, "wall": time.perf_counter() - begun, "driver": time.process_time() - before, "peak_gb": peak}
    print("\n" + json.dumps(cost))


def alone(folder: Path) -> float:
    """Wall seconds of one trivial trial without Ray and MLflow, a mean over `ALONE` after one to warm up."""
    from d2l_study.study.run import Request, make_orders, prepare
    from d2l_study.study.trial import run_trial

    study = prepare(Request(str(space_of(folder, ALONE + 1)), root=str(folder / "alone")))
    orders, _ = make_orders(study, 1, "benchmark")
    run_trial(orders[0])
    begun = time.perf_counter()
    for order in orders[1:]:
        run_trial(order, lambda step, values: None)
    return (time.perf_counter() - begun) / ALONE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 200, 2000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--driver", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.driver:
        driver(*arguments.driver)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)),
                       "load_before": os.getloadavg()[0], "alone": alone(folder), "runs": {}}  # fmt: skip
        print(f"one trial alone: {found['alone']:.3f} s")
        for trials in arguments.trials:
            words = [sys.executable, __file__, "--driver", str(space_of(folder, trials)), str(folder / f"r{trials}")]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            cost = json.loads(done.stdout.strip().splitlines()[-1])
            assert cost["code"] == 0, done.stdout[-2000:]
            found["runs"][trials] = cost
            each, mine = cost["wall"] / trials, 1000 * cost["driver"] / trials
            print(f"{trials} trials: {each:.3f} s wall a trial, {mine:.0f} ms "
                  f"of the driver's processor, peak {cost['peak_gb']:.2f} GB", flush=True)  # fmt: skip
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
