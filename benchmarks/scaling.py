"""What the machinery costs when trials run side by side: trials per minute, and a driver with many trials queued.

A trial here sleeps (`sleeping/sitecustomize.py`): it takes its time and no processor, reports 20 times and commits what
a trial commits. All the rest is the real study: Ray Tune, workers, ledger, MLflow in a new sqlite store.

Workers: trials of `--seconds` with 1, 2, 4 and 8 workers on this machine. If the machinery cost nothing, N workers made
60 N / seconds trials a minute. Counted from the first trial's begin to the last one's end, start-up apart.

Queue: `--queue` trials of `--queue-seconds` with `--queue-workers` workers: seconds from the command to the first
trial's begin, and the driver's processor time per trial and memory as the study goes on.

    python benchmarks/scaling.py [--workers 1 2 4 8] [--queue 1000] [--out raw.json]

Driver: processor seconds of the process that says `run` (main thread and the thread that writes MLflow); Ray: those
of all it started (GCS, raylet, workers), start-up included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import orchestration
from options import output_file, positive_number, whole_number

REPORTS = 20


def run(folder: Path, name: str, trials: int, workers: int, seconds: float) -> dict[str, Any]:
    """One study of sleeping trials in a process of its own: what it cost, and when its trials began and ended."""
    space = orchestration.space_of(folder, trials).rename(folder / f"{name}.yaml")
    space.write_text(space.read_text().replace("checkpoint_every: 0", f"checkpoint_every: 0, cpus: {CPUS / workers:g}"))
    root = folder / f"runs-{name}"
    environment = {**os.environ, "D2L_SLEEP": str(seconds), "D2L_REPORTS": str(REPORTS), "D2L_REPORT": "no",
                   "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent / "sleeping"),
                                                  *filter(None, [os.environ.get("PYTHONPATH")])])}  # fmt: skip
    load = [os.getloadavg()[0]]
    words = [sys.executable, orchestration.__file__, "--driver", str(space), str(root)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    cost = json.loads(done.stdout.strip().splitlines()[-1])
    rows = [json.loads(path.read_text())["row"] for path in root.glob("results/*/*/*/commit.json")]
    assert cost["code"] == 0 and len(rows) == trials, done.stdout[-2000:]
    first, last = min(float(row["began"]) for row in rows), max(float(row["slept"]) for row in rows)
    when = {"to_first": first - cost["began"], "span": last - first, "at_end": cost["began"] + cost["wall"] - last}
    load.append(os.getloadavg()[0])
    return {**cost, **when, "trials": trials, "workers": workers, "seconds": seconds, "load": load}


CPUS = len(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=whole_number, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=positive_number, default=2.0, help="that a trial sleeps")
    parser.add_argument("--each", type=whole_number, default=25, help="trials for each worker")
    parser.add_argument("--queue", type=whole_number, nargs="*", default=[1000])
    parser.add_argument("--queue-seconds", type=positive_number, default=0.2)
    parser.add_argument("--queue-workers", type=whole_number, default=4)
    parser.add_argument("--out", type=output_file)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[str, Any] = {"python": platform.python_version(), "cores": CPUS, "workers": [], "queue": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        orchestration.digits(folder)
        for workers in arguments.workers:
            cost = run(folder, f"workers{workers}", arguments.each * workers, workers, arguments.seconds)
            found["workers"].append(cost)
            ideal = 60 * workers / arguments.seconds
            reached = 60 * cost["trials"] / cost["span"]
            print(f"{workers} workers: {reached:.0f} trials a minute of {ideal:.0f} ({reached / ideal:.0%}); "
                  f"{each(cost)}; load {cost['load'][0]:.0f}", flush=True)  # fmt: skip
            save(arguments.out, found)
        for trials in arguments.queue:
            cost = run(folder, f"queue{trials}", trials, arguments.queue_workers, arguments.queue_seconds)
            found["queue"].append(cost)
            print(f"{trials} trials queued: first begins after {cost['to_first']:.1f} s; {trials} in "
                  f"{cost['span']:.0f} s ({cost['span'] / trials:.3f} s each), then {cost['at_end']:.0f} s to the end; "
                  f"{each(cost)}; peak {cost['peak_gb']:.2f} GB; load {cost['load'][0]:.0f}", flush=True)  # fmt: skip
            for first, last, seconds, gb in orchestration.growth(cost["marks"], orchestration.BOUNDS):
                print(f"  trials {first} to {last}: driver {1000 * seconds:.0f} ms each; then {gb:.2f} GB", flush=True)
            save(arguments.out, found)


def each(cost: dict[str, Any]) -> str:
    """Processor milliseconds per trial."""
    parts = {name: 1000 * cost[name] / cost["trials"] for name in ("driver", "main", "mlflow", "ray")}
    return ("driver {driver:.0f} ms a trial (main thread {main:.0f}, MLflow {mlflow:.0f}), "
            "Ray and workers {ray:.0f}").format(**parts)  # fmt: skip


def save(path: Path | None, found: dict[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
