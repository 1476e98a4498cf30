"""The constants of the cost model on a GPU are those that the script fits to its record."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from d2l_study.study.plan.gpu_cost import STACK_PASS, STACK_STEP

ROOT = Path(__file__).parents[2]


def test_the_cost_model_has_the_constants_of_the_record() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "fit_gpu_cost.py")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    *rows, last = done.stdout.splitlines()
    assert len(rows) >= 16 and all("by the formula" in row for row in rows)
    step, passes = map(float, re.findall(r"[\d.e-]+$|[\d.e-]+(?=,)", last.split("=")[1].strip()))
    assert pytest.approx((STACK_STEP, STACK_PASS), rel=0.03) == (step, passes)
