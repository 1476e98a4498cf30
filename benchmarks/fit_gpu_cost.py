"""The constants of the cost model on a GPU, fitted to what was measured.

    python benchmarks/fit_gpu_cost.py [packed.json …]

Reads the rows of `packed.py --device cuda --out packed.json` and prints STACK_STEP, STACK_RUN and STACK_PASS of
`d2l_study/study/plan/gpu_cost.py`: of the steps that were replayed, the ones with the least squares of relative errors.
Steps of several runs count where they were compiled, as those of studies are; plain ones of one run tell what starting
a step takes. Of each row it prints the milliseconds of a step measured and by the formula.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.study.plan.cost import work_of
from d2l_study.study.plan.plan import make_plan
from d2l_study.study.space.load import load_space

RECORDS = Path(__file__).parent / "records"
FILES = [RECORDS / "2026-11-27-packed-h200" / "compiled.json", RECORDS / "2026-11-26-packed-h100" / "packed.json"]
ARMS = {"plain": "none", "adv": "adv_low", "noise": "noise_low", "all": "all_low"}
"""Of `packed.py`, and which of `vat_grid` they are."""


def measured_steps(rows: list[dict[str, Any]]) -> list[tuple[str, int, float, float]]:
    """(name, runs of the stack, passes of a run's step, milliseconds) of every step that was replayed."""
    planned = make_plan(load_space("vat_grid"), "").configurations
    values = {(c.method, c.values["mean_bag_size"]): c.values for c in planned}
    found = []
    for row in rows:
        if row.get("formulation", "matmul") != "matmul" or not row.get("graphs", True) or "arm" not in row:
            continue
        work = work_of(values[ARMS[row["arm"]], row["K"]])
        how = " compiled" if row.get("compiled") else ""
        for key, milliseconds in row.items():
            runs = key.removeprefix("ms_")
            if key != runs and runs.isdecimal() and row.get(f"steps_{runs}") == "replayed":
                name = f"K = {row['K']}, {row['arm']}{how}, {runs} runs"
                found.append((name, int(runs), work.training / work.steps, float(milliseconds)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=FILES, help="default: the records of November 2026")
    parser.add_argument("--plain", action="store_true", help="plain steps of several runs, too")
    args = parser.parse_args()
    steps = [step for file in args.files for step in measured_steps(json.loads(file.read_text())["rows"])]
    steps = [step for step in steps if args.plain or " compiled" in step[0] or step[1] == 1]
    seconds = np.array([milliseconds / 1e3 for *_, milliseconds in steps])
    terms = np.array([(1.0, runs, runs * passes) for _, runs, passes, _ in steps])
    constants = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(steps)), rcond=None)[0]
    for (name, *_, milliseconds), by_formula in zip(steps, terms @ constants, strict=True):
        print(f"{name}: {milliseconds:.2f} ms, by the formula {1e3 * by_formula:.2f} ms")
    print("STACK_STEP, STACK_RUN, STACK_PASS = " + ", ".join(f"{constant:.2g}" for constant in constants))


if __name__ == "__main__":
    main()
