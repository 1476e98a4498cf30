"""The constants of the cost model on a GPU are those that the script fits to its records."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from d2l_study.study.plan.gpu_cost import STACK_PASS, STACK_RUN, STACK_STEP

ROOT = Path(__file__).parents[2]


def test_the_cost_model_has_the_constants_of_the_records() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fit_gpu_cost.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    *rows, last = done.stdout.splitlines()
    assert len(rows) >= 16 and all("by the formula" in row for row in rows)
    fitted = [float(number) for number in last.split("=")[1].split(",")]
    assert pytest.approx((STACK_STEP, STACK_RUN, STACK_PASS), rel=0.03) == fitted


def test_the_formula_is_near_each_compiled_step_of_a_full_stack() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "fit_gpu_cost.py")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    rows = [re.findall(r"([\d.]+) ms", row) for row in done.stdout.splitlines() if " compiled" in row]
    assert len(rows) == 8
    for measured, by_formula in rows:
        assert 0.7 < float(by_formula) / float(measured) < 1.3
