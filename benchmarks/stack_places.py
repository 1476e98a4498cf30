"""Steps that compiled stacks compute in vain for replicates that have ended, with groups that merge and without.

    python benchmarks/stack_places.py [records/2026-11-27-vat-grid-gpu/rows.parquet]

Nothing is trained: rows of `vat_grid` say after how many steps each run ended. Runs that share a pack (one K, an arm in
both weights, all n) are divided into groups of like sizes, as `d2l_study.learning.packed.training.Pack` does. A group
keeps its places until all of its runs have ended; or, merged, as many groups go on as those in training need. Steps are
weighted by instances and by the time of the arm's step.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd

from d2l_study.learning.packed.structure import STACK_INSTANCES

ROWS = Path(__file__).parent / "records" / "2026-11-27-vat-grid-gpu" / "rows.parquet"
INSTANCES = {10: 24, 50: 64, 100: 112}
"""Places for instances in a step of one bag (`Capacity`), by K; noise instances take a third of it more."""
STEP = {"none": 13.5, "ent": 13.5, "adv": 22.1, "noise": 19.1, "all": 27.6}
"""Microseconds a replicate and step at K = 10, compiled (`records/2026-11-27-packed-h200`)."""


def computed_steps(ends: np.ndarray, most: int, every: int) -> tuple[int, int, int]:
    """Steps of single runs that are needed, that groups compute, and that groups compute which merge. ends: (runs,)
    steps of each, in the pack's order; most: places of a stack at most; every: steps between two validations."""
    groups = math.ceil(len(ends) / most)
    places = math.ceil(len(ends) / groups)
    kept = sum(places * int(part.max()) for part in np.array_split(ends, groups))
    merged = sum(places * math.ceil(int((ends > at).sum()) / places) * every for at in range(0, int(ends.max()), every))
    return int(ends.sum()), kept, merged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="?", type=Path, default=ROWS, help="rows of vat_grid (Parquet)")
    rows = pd.read_parquet(parser.parse_args().rows)
    rows["arm"] = rows["method"].str.replace("_(low|high)", "", regex=True)
    total = np.zeros(3)
    print("| K | arm | runs | groups | computed / needed | merged |\n|---|---|---|---|---|---|")
    for (size, arm), pack in rows.groupby(["mean_bag_size", "arm"]):
        extra = 4 / 3 if arm in ("noise", "all") else 1
        most = int(STACK_INSTANCES / (INSTANCES[int(size)] * extra))
        ends = pack.sort_values(["method", "num_bags", "replicate"])["steps_run"].to_numpy().astype(int)
        found = np.array(computed_steps(ends, most, int(pack["eval_every"].iloc[0])))
        total += found * STEP[arm] * INSTANCES[int(size)]
        needed, kept, merged = found
        groups = math.ceil(len(ends) / most)
        print(f"| {size:g} | {arm} | {len(ends)} | {groups} | {kept / needed:.3f} | {merged / needed:.3f} |")
    print(f"all, weighted: {total[1] / total[0]:.3f}, merged {total[2] / total[0]:.3f}")


if __name__ == "__main__":
    main()
