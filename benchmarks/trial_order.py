"""The order of a study's trials, simulated: how long the study takes, and what is there when it is stopped early.

    python benchmarks/trial_order.py [--spaces vat_grid distill_grid] [--slots 2 3 4 8 16] [--out FOLDER]

Nothing is trained. The trials of a space are given out in three orders to so many places at a time: the dearest first,
the cheapest first, and as `run` does it (`d2l_study.study.plan.trial_order`). The orders are made from predictions of
`cost.py`. The lengths are
- predicted: those predictions, each times a random factor (log-normal, σ 0.25, the mean of 20 draws), since training
  stops early;
- recorded (`vat_grid`, 20 replicates): milliseconds a step of a stack of 20 on one H100, measured at K = 10 and 100
  (`records/2026-11-26-packed-h100`), between them in a straight line, times 2,500 steps, with the same factors.

Then `vat_grid` in stacks of several configurations, as a GPU takes it, with the recorded times as they are: in the
order of the first configuration of each, and as `run` does it. Places count as independent; on one GPU they share its
time, so that the end costs less.

A cell is a configuration: all its replicates are there. A task is a combination of data keys that are axes (n, K): all
its arms are there, so that they can be compared.
"""

from __future__ import annotations

import argparse
import heapq
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from options import output_folder, whole_number

from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_requests, ordered_pieces, trials_of
from d2l_study.study.plan.cost import TRIAL_SECONDS, work_of
from d2l_study.study.plan.plan import split_for_slots
from d2l_study.study.plan.trial_order import OrderedTrial, results_first
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.trial.packed_trials import packed_trials

STOPS = (0.1, 0.25, 0.5)
"""Shares of the mean load of a place at which it is counted what is there."""
DRAWS, SIGMA = 20, 0.25
RECORD = Path(__file__).parent / "records" / "2026-11-26-packed-h100" / "packed.json"
STEPS = 2500
HEADER = "| places | order | time | cells at 10, 25, 50 % | tasks at 10, 25, 50 % |"
Pieces = Sequence[tuple[Configuration, tuple[int, ...]]]


def predicted_seconds(c: Configuration) -> float:
    """The seconds of one run on one core of a CPU, by the cost model's constants."""
    return work_of(c.values, stage=c.stage).seconds()


def recorded_seconds() -> Callable[[Configuration], float]:
    """Gives the seconds of one run in a stack of 20 on the H100, from the recorded milliseconds a step."""
    rows = json.loads(RECORD.read_text())["rows"]
    steps = {(r["arm"], r["K"]): r["ms_20"] for r in rows if r.get("graphs") and r["formulation"] == "matmul"}

    def seconds(c: Configuration) -> float:
        arm = {"none": "plain", "ent": "plain"}.get(c.method.split("_")[0], c.method.split("_")[0])
        return STEPS * float(np.interp(c.values["mean_bag_size"], (10, 100), [steps[arm, k] for k in (10, 100)])) / 2e4

    return seconds


def ends(trials: Sequence[OrderedTrial], order: Sequence[int], lengths: Sequence[float], slots: int) -> np.ndarray:
    """When each trial ends, if the first of the order that waits for nobody goes to the place that is free first."""
    end = np.full(len(trials), np.inf)
    running: list[tuple[float, int]] = []
    waiting, now = list(order), 0.0
    while waiting:
        ready = next((i for i in waiting if all(end[t] <= now for t in trials[i].waits_for)), None)
        if ready is None or len(running) == slots:
            now, _ = heapq.heappop(running)
            continue
        waiting.remove(ready)
        end[ready] = now + lengths[ready]
        heapq.heappush(running, (end[ready], ready))
    return end


def orders(trials: Sequence[OrderedTrial], slots: int) -> dict[str, list[int]]:
    """Name of an order -> positions of the trials."""
    positions = range(len(trials))
    return {
        "dearest first": sorted(positions, key=lambda i: (not trials[i].teaches, -trials[i].length)),
        "cheapest first": sorted(positions, key=lambda i: (not trials[i].teaches, trials[i].length)),
        "results first": results_first(trials, slots),
    }


def simulate(pieces: Pieces, trials: Sequence[OrderedTrial], lengths: np.ndarray, slots: int) -> list[dict]:
    """For each order the time of the study in mean loads of a place, and the shares of cells and tasks that are there
    at each stop; means over the rows of `lengths`."""
    found = []
    cells = np.unique([c.config_id for c, _ in pieces], return_inverse=True)[1]
    tasks = np.array([sorted({t.task for t in trials}, key=str).index(t.task) for t in trials])
    for name, order in orders(trials, slots).items():
        values = []
        for row in lengths:
            end, load = ends(trials, order, row, slots), row.sum() / slots
            by = [np.array([end[group == g].max() for g in range(group.max() + 1)]) for group in (cells, tasks)]
            values.append([end.max() / load, *((by[k] <= s * load).mean() for k in (0, 1) for s in STOPS)])
        mean = np.mean(values, axis=0)
        found.append({"order": name, "time": mean[0], "cells": list(mean[1:4]), "tasks": list(mean[4:7])})
    return found


def single_trials(space: str, slots: int, root: str) -> tuple[Pieces, list[OrderedTrial]]:
    """The trials of a space with 20 replicates as `run` makes them, in the order of the plan."""
    study = prepare_study(RunOptions(space, root=root, replicates=20))
    pieces = split_for_slots(study.plan.trials(), slots)
    return pieces, ordered_pieces(study.space, pieces)


def stacks(slots: int, root: str) -> list[dict]:
    """`vat_grid` in stacks of several configurations, a row for each of two orders, as of `simulate`."""
    study = prepare_study(RunOptions("vat_grid", root=root, replicates=20, overrides=("resources.pack=280",)))
    requests, _ = make_trial_requests(study, slots, "benchmark")
    by_id = {c.config_id: c for c in study.plan.configurations}
    seconds = recorded_seconds()
    found = []
    for name, trials in {
        "of the first": packed_trials(requests, study.space.resources, slots),
        "results first": trials_of(study, requests, slots),
    }.items():
        mine = [[by_id[request.config_id] for request in trial] for trial in trials]
        lengths = [sum(20 * seconds(c) for c in held) for held in mine]
        end = ends([OrderedTrial(0, length) for length in lengths], range(len(trials)), lengths, slots)
        load, tasks = sum(lengths) / slots, {}
        for held, at in zip(mine, end, strict=True):
            for c in held:
                tasks.setdefault((c.values["num_bags"], c.values["mean_bag_size"]), []).append(at)
        cells = np.concatenate(list(tasks.values()))
        shares = [[float((np.array(when) <= stop * load).mean()) for stop in STOPS]
                  for when in (cells, [max(when) for when in tasks.values()])]  # fmt: skip
        found.append({"order": name, "time": float(end.max() / load), "cells": shares[0], "tasks": shares[1]})
    return found


def line(row: Mapping[str, Any]) -> str:
    """A line of a table."""
    shares = [", ".join(f"{100 * share:.0f}" for share in row[key]) for key in ("cells", "tasks")]
    return f"| {row['slots']} | {row['order']} | {row['time']:.3f} | {shares[0]} % | {shares[1]} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spaces", nargs="+", default=["vat_grid", "distill_grid"])
    parser.add_argument("--slots", nargs="+", type=whole_number, default=[2, 3, 4, 8, 16], help="trials at a time")
    parser.add_argument("--out", type=output_folder, help="folder for order.json and tables.md")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    rows, lines = [], []
    for space in options.spaces:
        for kind in ("predicted", "recorded") if space == "vat_grid" else ("predicted",):
            seconds = predicted_seconds if kind == "predicted" else recorded_seconds()
            lines += [f"\n**{space}, {kind} times**\n", HEADER, "|---|---|---|---|---|"]
            for slots in options.slots:
                with tempfile.TemporaryDirectory() as root:
                    pieces, trials = single_trials(space, slots, root)
                means = np.array([TRIAL_SECONDS + len(replicates) * seconds(c) for c, replicates in pieces])
                lengths = means * rng.lognormal(-(SIGMA**2) / 2, SIGMA, (DRAWS, len(pieces)))
                for row in simulate(pieces, trials, lengths, slots):
                    rows.append({"space": space, "times": kind, "slots": slots, **row})
                    lines.append(line(rows[-1]))
    if "vat_grid" in options.spaces:
        lines += ["\n**vat_grid in stacks, recorded times**\n", HEADER, "|---|---|---|---|---|"]
        for slots in options.slots:
            with tempfile.TemporaryDirectory() as root:
                for row in stacks(slots, root):
                    rows.append({"space": "vat_grid in stacks", "times": "recorded", "slots": slots, **row})
                    lines.append(line(rows[-1]))
    print("\n".join(lines).strip())
    if options.out:
        (options.out / "order.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.out / "tables.md").write_text("\n".join(lines).strip() + "\n")


if __name__ == "__main__":
    main()
