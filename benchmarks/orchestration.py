"""What a trial costs beyond its training: Ray Tune, ledger, MLflow.

Claim (target): 200 trivial trials with MLflow logging, 20 reports each, in at most 0.3 s of wall time per trial on two
cores, and a processor time of the driver per trial that does not grow from 100 to 2,000 trials.

A trivial trial is a real one, as small as the engine allows: a teacher of 8 features on two bags of one digit, 20
optimizer steps with a report after each, evaluated on the first 100 test digits (a folder of IDX files like MNIST's).
So that it can be subtracted, the same trainings run first in this process through `run_trial` into a ledger of their
own, without Ray and MLflow (`alone`, wall and processor seconds per trial on one core).

    python benchmarks/orchestration.py [--trials 100 200 2000] [--profile FOLDER] [--out raw.json]

Driver: processor seconds of the process that says `run`, without its children; its main thread (Ray Tune, searcher,
callbacks, tables) and the thread that writes MLflow are told apart. The two share one interpreter, so they share one
core. Wall seconds count what else the machine does: `load` is the load average before and after each run.
"""

from __future__ import annotations

import argparse
import cProfile
import gzip
import itertools
import json
import os
import platform
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from options import output_file, whole_number

REPORTS = 20
SPACE = """
description: trivial trials
data:
  {{num_bags: 2, val_bags: 2, mean_bag_size: 1, bag_size_variance: 0, test_bags: 2, root: "{root}", verify: false}}
teacher: {{steps: {reports}, eval_every: 1, patience: 0, batch_bags: 1, feature_width: 8, attention_width: 4}}
methods:
  none: {{teacher: {{learning_rate: [{rates}]}}}}
replicates: 1
resources: {{checkpoint_every: 0}}
"""
ALONE = 10
TEST_DIGITS = 100
MARK_EVERY = 50
BOUNDS = [1, 100, 200, 500, 1000, 1500, 2000]


def digits(folder: Path) -> Path:
    """MNIST's files with the first `TEST_DIGITS` test images only."""
    from d2l_study.data.mnist import FILES, find_files

    target = folder / "digits"
    target.mkdir()
    for name, path in find_files().items():
        if name.startswith("train"):
            shutil.copy(path, target / path.name)
            continue
        shape = (TEST_DIGITS, *FILES[name][1][1:])
        data, header = gzip.decompress(path.read_bytes()), 4 + 4 * len(shape)
        head = data[:4] + struct.pack(f">{len(shape)}I", *shape)
        size = TEST_DIGITS * (28 * 28 if len(shape) == 3 else 1)
        (target / name).write_bytes(head + data[header : header + size])
    return target


def space_of(folder: Path, trials: int) -> Path:
    """A space of so many trials, which differ by a hair of the learning rate."""
    rates = ", ".join(f"{1e-4 * (1 + i / trials):.8f}" for i in range(trials))
    path = folder / f"trivial{trials}.yaml"
    path.write_text(SPACE.format(reports=REPORTS, rates=rates, root=folder / "digits"))
    return path


def driver(space: str, root: str, profile: str | None) -> None:
    """`run` in this process; prints what it cost, as the last line. `profile`: where to write a profile per thread."""
    from d2l_study import cli
    from d2l_study.study.commands.study_callback import StudyCallback
    from d2l_study.study.mlflow.tracker import Tracker

    spent = {"mlflow": 0.0}
    marks: list[dict[str, float]] = []
    loop = Tracker._loop

    def timed(tracker: Tracker) -> None:
        try:
            _profiled(lambda: loop(tracker), profile, "mlflow")
        finally:
            spent["mlflow"] = time.thread_time()

    Tracker._loop = timed  # type: ignore[assignment,method-assign]
    finish, count = StudyCallback._finish_trial, itertools.count(1)

    def counted(callback: StudyCallback, request: Any) -> None:
        finish(callback, request)
        if (ended := next(count)) % MARK_EVERY in (0, 1):
            marks.append({"trials": ended, "wall": time.perf_counter() - begun,
                          "driver": time.process_time() - before, "main": time.thread_time() - main,
                          "gb": resident_gb()})  # fmt: skip

    StudyCallback._finish_trial = counted  # type: ignore[method-assign]
    cli.main(["spaces"])
    began, begun, before, main = time.time(), time.perf_counter(), time.process_time(), time.thread_time()
    code = _profiled(lambda: cli.main(["run", "--space", space, "--root", root]), profile, "main")
    cost = {"code": code, "wall": time.perf_counter() - begun, "driver": time.process_time() - before,
            "main": time.thread_time() - main, **spent, "marks": marks, "began": began,
            "ray": (ended := resource.getrusage(resource.RUSAGE_CHILDREN)).ru_utime + ended.ru_stime,
            "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}  # fmt: skip
    print("\n" + json.dumps(cost))


def resident_gb() -> float:
    """Of this process, now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def growth(marks: list[dict[str, float]], bounds: list[int]) -> list[tuple[int, int, float, float]]:
    """Of a run's marks, from bound to bound: (from, to, processor seconds of the driver per trial, GB at the end)."""
    by_count = {mark["trials"]: mark for mark in marks}
    pairs = [(a, b) for a, b in itertools.pairwise(bounds) if a in by_count and b in by_count]
    return [(a, b, (by_count[b]["driver"] - by_count[a]["driver"]) / (b - a), by_count[b]["gb"]) for a, b in pairs]


def _profiled(work: Callable[[], int | None], folder: str | None, name: str) -> int | None:
    if folder is None:
        return work()
    profile = cProfile.Profile(time.thread_time)
    try:
        return profile.runcall(work)
    finally:
        profile.dump_stats(str(Path(folder) / f"{name}.prof"))


def alone(folder: Path) -> dict[str, float]:
    """Seconds of one trivial trial without Ray and MLflow, a mean over `ALONE` after one to warm up."""
    from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
    from d2l_study.study.commands.trial_requests import make_trial_requests
    from d2l_study.study.trial.trial import run_trial

    study = prepare_study(RunOptions(str(space_of(folder, ALONE + 1)), root=str(folder / "alone")))
    requests, _ = make_trial_requests(study, 1, "benchmark")
    run_trial(requests[0])
    begun, before = time.perf_counter(), time.process_time()
    for request in requests[1:]:
        run_trial(request, lambda step, values: None)
    return {"wall": (time.perf_counter() - begun) / ALONE, "processor": (time.process_time() - before) / ALONE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=whole_number, nargs="+", default=[100, 200, 2000])
    parser.add_argument("--out", type=output_file)
    parser.add_argument("--profile", help="folder for cProfile files of the driver's threads (slows it down)")
    parser.add_argument("--driver", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.driver:
        space, root = arguments.driver
        driver(space, root, arguments.profile)
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        digits(folder)
        found: dict = {"python": platform.python_version(), "cores": len(os.sched_getaffinity(0)),
                       "alone": alone(folder), "runs": {}}  # fmt: skip
        print("one trial alone: {wall:.3f} s wall, {processor:.3f} s of processor".format(**found["alone"]))
        for trials in arguments.trials:
            words = [sys.executable, __file__, "--driver", str(space_of(folder, trials)), str(folder / f"r{trials}")]
            words += ["--profile", arguments.profile] if arguments.profile else []
            load = [os.getloadavg()[0]]
            done = subprocess.run(words, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
            cost = json.loads(done.stdout.strip().splitlines()[-1])
            assert cost["code"] == 0, done.stdout[-2000:]
            cost["load"] = [*load, os.getloadavg()[0]]
            found["runs"][trials] = cost
            each = {name: 1000 * cost[name] / trials for name in ("driver", "main", "mlflow")}
            print(f"{trials} trials: {cost['wall'] / trials:.3f} s wall a trial; processor of the driver "
                  f"{each['driver']:.0f} ms (main thread {each['main']:.0f}, MLflow {each['mlflow']:.0f}); "
                  f"peak {cost['peak_gb']:.2f} GB; load {load[0]:.0f}", flush=True)  # fmt: skip
            for first, last, seconds, gb in growth(cost["marks"], BOUNDS):
                print(f"  trials {first} to {last}: driver {1000 * seconds:.0f} ms each; then {gb:.2f} GB", flush=True)
            if arguments.out:
                arguments.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
