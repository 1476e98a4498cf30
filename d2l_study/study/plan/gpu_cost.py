"""The cost model on a GPU: its own time, and the time of the processor beside it.

    seconds of a step of a stack of R runs = STACK_STEP + R × (STACK_RUN + STACK_PASS × passes of a step of one run)

The first term is what starting the step's kernels takes, the second what each run's parameters take whatever its bag
holds, the third the arithmetic. In a study a stack takes `STUDY_FACTOR` times as long. A step of a run that is trained
by turns takes `TURN_STEP`, in which the processor starts its kernels one by one, and the GPU its arithmetic alone.

Trials that share a GPU add up in its time, while each hides what the processor does for the others. So a study takes
the longer of two times: that of all trials on the places that there are, and that of all the GPU's work on the GPUs.

`benchmarks/fit_gpu_cost.py` fits the constants of stacks to the rows of `benchmarks/packed.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from d2l_study.learning.packed.structure import STACK_INSTANCES

STACK_STEP, STACK_RUN, STACK_PASS = 6.7e-4, 1.1e-5, 5e-8
"""Seconds, in bfloat16. They are fitted to compiled steps of full stacks on an H200, within 30 % of each
(benchmarks/records/2026-11-27-packed-h200), and, because these do not tell the first term, to plain steps of one run on
an H100, within a factor of 2.2 (benchmarks/records/2026-11-26-packed-h100)."""

STUDY_FACTOR = 1.5
"""How many times as long stacks take in a study, which validates, compiles and waits for the processor's draws: 1,540
runs took 335 s from the first step on, and their steps take 222 s by the formula
(benchmarks/records/2026-11-27-vat-grid-gpu)."""

PLAIN_FACTOR = 2.3
"""How many times as long steps take that are not compiled: 1.9 to 2.9 (benchmarks/records/2026-11-27-packed-h200)."""

TURN_STEP, TURN_PASS = 5e-3, 3.1e-7
"""Seconds of a step by turns, and of a pass that is not compiled: on that H100 a step took 4.4 ms without regularizers
and 9.8 with all of them."""

GPU_RUN_SECONDS = 0.05
"""Seconds of the processor for a run besides its steps: its bags, its evaluation, writing its results."""

_FORM = (
    "dataset", "mean_bag_size", "extractor", "pooling", "direction", "steps", "epochs", "batch_bags",
    "instances_per_bag",
)  # fmt: skip
_WEIGHTS = ("lambda_adv", "lambda_noise", "lambda_ent")


@dataclass(frozen=True)
class RunSeconds:
    """The time of one run: of the GPU, and of the processor beside it or alone."""

    gpu: float = 0.0
    processor: float = 0.0

    @property
    def alone(self) -> float:
        """The time that the run takes if it has the GPU for itself."""
        return self.gpu + self.processor


def stacked(steps: float, passes: float, runs: float, compiled: bool = True) -> RunSeconds:
    """A run's part of its stack. steps: of the run; passes: all of them; runs: of the stack; compiled: its steps."""
    each = STACK_STEP / max(1.0, runs) + STACK_RUN
    seconds = steps * each + passes * STACK_PASS
    return RunSeconds(STUDY_FACTOR * seconds * (1.0 if compiled else PLAIN_FACTOR))


def by_turns(steps: float, passes: float) -> RunSeconds:
    """A run that is trained by itself."""
    return RunSeconds(passes * TURN_PASS, steps * TURN_STEP)


def stack_form(values: Mapping[str, Any], stage: str) -> tuple[Any, ...]:
    """Equal for runs that can share a stack, by the keys in which studies differ most. values: flat values of a
    configuration, or a row."""
    return (stage, *(values[key] > 0 for key in _WEIGHTS), *(str(values.get(key)) for key in _FORM))


def stack_size(runs: int, instances: float, pack: int | None) -> float:
    """The runs of a stack. runs: that can share one; instances: of a step of one run; pack: `resources.pack`."""
    most = max(1.0, STACK_INSTANCES / max(1.0, instances))
    return min(float(runs), most if pack is None else float(pack))
