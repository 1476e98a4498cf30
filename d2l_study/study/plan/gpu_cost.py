"""The cost model on a GPU: its own time, and the time of the processor beside it.

    seconds of a step of a stack of R runs = STACK_STEP + STACK_PASS × R × passes of a step of one run

The first term is what starting the step's kernels takes, the second their arithmetic. A step of a run that is trained
by turns takes `TURN_STEP`, in which the processor starts its kernels one by one, and the GPU its arithmetic alone.

Trials that share a GPU add up in its time, while each hides what the processor does for the others. So a study takes
the longer of two times: that of all trials on the places that there are, and that of all the GPU's work on the GPUs.

`benchmarks/fit_gpu_cost.py` fits the constants of stacks to the rows of `benchmarks/packed.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STACK_STEP, STACK_PASS = 6.9e-4, 3.1e-7
"""Seconds, on an H100 in bfloat16 (benchmarks/records/2026-11-26-packed-h100): within a factor of two of its rows."""

TURN_STEP = 5e-3
"""Seconds of a step by turns: on that GPU 4.4 without regularizers and 9.8 with all of them."""

STACK_INSTANCES = 4096
"""Instances of a step of a stack at most."""

GPU_RUN_SECONDS = 0.15
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


def stacked(steps: float, passes: float, runs: float) -> RunSeconds:
    """A run's part of its stack. steps: of the run; passes: all of them; runs: of the stack."""
    return RunSeconds(steps * STACK_STEP / max(1.0, runs) + passes * STACK_PASS)


def by_turns(steps: float, passes: float) -> RunSeconds:
    """A run that is trained by itself."""
    return RunSeconds(passes * STACK_PASS, steps * TURN_STEP)


def stack_form(values: Mapping[str, Any], stage: str) -> tuple[Any, ...]:
    """Equal for runs that can share a stack, by the keys in which studies differ most. values: flat values of a
    configuration, or a row."""
    return (stage, *(values[key] > 0 for key in _WEIGHTS), *(str(values.get(key)) for key in _FORM))


def stack_size(runs: int, instances: float, pack: int | None) -> float:
    """The runs of a stack. runs: that can share one; instances: of a step of one run; pack: `resources.pack`."""
    most = max(1.0, STACK_INSTANCES / max(1.0, instances))
    return min(float(runs), most if pack is None else float(pack))
