"""The first steps of packed training against training one by one on the CPU: are they the same?

    python benchmarks/first_steps.py [--device cuda|cpu] [--replicates 4] [--compiled no yes] [--out first_steps.json]

Needs torch and numpy only. Both train the same replicates (20 bags of 10 digits, drawn and initialised alike) in
float32 without TF32: plain, with moved patches (which a GPU moves itself), with R_adv, with noise instances, and with
all three regularizers. On a GPU the stack is trained with and without CUDA graphs, compiled and not; on a CPU only
without, unless `--compiled` asks for more. A row says how far losses of the first step, losses of the first five, and
parameters after them are apart: the largest difference, relative to the loss, and to the norm of a layer's parameters.
Only first steps can be compared number for number, since rounding grows with training.

Pixels get noise first: on a digit's even background neighbouring outputs are equal, and rounding, which differs from
one machine's products to another's, would decide which of them the pooling takes, and so the direction of R_adv.
Exit code 1 if a difference is above its tolerance.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from options import output_file, whole_number

from d2l_study.data import MnistBags
from d2l_study.data.pool import Replicate
from d2l_study.errors import first_line
from d2l_study.learning import TeacherConfig
from d2l_study.learning.packed.batches import ReplicateTask
from d2l_study.learning.packed.training import Pack
from d2l_study.learning.precision import full_float32
from d2l_study.learning.prediction import Compute
from d2l_study.learning.sequential import TeacherTrainer
from d2l_study.learning.teacher_model import teacher_model

ARMS: dict[str, dict[str, float | str]] = {
    "plain": {}, "affine": {"augment": "affine"}, "adv": {"lambda_adv": 0.5}, "noise": {"lambda_noise": 0.3},
    "all": {"lambda_adv": 0.5, "lambda_noise": 0.3, "lambda_ent": 0.02},
}  # fmt: skip
STEPS = 5
TOLERANCES = {"first_loss": 2e-5, "losses": 5e-4, "parameters": 2e-3}
"""Relative. Float32 has 6e-8, and a loss adds up some thousand products; TF32, with 5e-4, would show in the first
loss. From the second step on the differences of Adam's first steps, whose length is that of the learning rate however
small a gradient is, come in: on a CPU, stacks differ by up to 2e-7, 2e-5 and 1e-4."""

States = list[tuple[np.ndarray, dict[str, torch.Tensor]]]
"""Of each replicate the losses of its steps, and its parameters after them, on the CPU."""


def noisy_replicates(count: int) -> list[Replicate]:
    """Replicates of bags of digits with noise on all pixels."""
    data = MnistBags(num_bags=20, mean_bag_size=10, val_bags=4, test_bags=4)
    pool = data.load_pool()
    replicates = [data.replicate(pool, r, base_seed=1) for r in range(count)]
    noise = np.random.default_rng(0).integers(0, 64, pool.instances.shape, dtype=np.uint8)
    noisy = dataclasses.replace(pool, instances=pool.instances ^ noise)
    return [dataclasses.replace(replicate, pool=noisy) for replicate in replicates]


def state(training: Any) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
    losses = np.array([values["train_loss"] for values in training.curve])
    return losses, {name: value.detach().float().cpu().clone() for name, value in training.params.items()}


def one_by_one(config: TeacherConfig, replicates: Sequence[Replicate]) -> States:
    """The first steps as replicates take them by turns on the CPU."""
    model = teacher_model(config, replicates[0])
    trainers = [TeacherTrainer(config, model, replicate, Compute("cpu", packed=False)) for replicate in replicates]
    for trainer in trainers:
        for _ in range(STEPS):
            trainer.advance()
    return [state(trainer.training) for trainer in trainers]


def stacked(config: TeacherConfig, replicates: Sequence[Replicate], compute: Compute) -> tuple[States, str]:
    """The first steps of a stack, and why it took them in another way than was asked for."""
    pack = Pack([ReplicateTask(config, replicate) for replicate in replicates], compute)
    for _ in range(STEPS):
        for i in range(len(replicates)):
            pack.advance(i)
    stack = pack.groups[0].stack
    asked = {"plain_reason": compute.compiles, "eager_reason": compute.graphs and compute.device == "cuda"}
    reasons = [getattr(stack, name, None) for name, wanted in asked.items() if wanted]
    return [state(training) for training in pack.trainings], "; ".join(filter(None, reasons))


def differences(reference: States, found: States) -> dict[str, float]:
    """The largest relative differences."""
    losses = np.array([np.abs(b / a - 1) for (a, _), (b, _) in zip(reference, found, strict=True)])
    parameters = [
        float((b[name] - a[name]).norm() / a[name].norm())
        for (_, a), (_, b) in zip(reference, found, strict=True) for name in a
    ]  # fmt: skip
    return {"first_loss": float(losses[:, 0].max()), "losses": float(losses.max()), "parameters": max(parameters)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--replicates", type=whole_number, default=4)
    parser.add_argument("--compiled", nargs="+", choices=("no", "yes"), help="default: on a GPU both, else no")
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON, after every row")
    args = parser.parse_args()
    cuda = args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("argument --device: cuda, but PyTorch finds no GPU here (torch.cuda.is_available())")
    full_float32()
    replicates = noisy_replicates(args.replicates)
    configs = {
        arm: TeacherConfig(**weights, steps=STEPS + 1, eval_every=1)  # type: ignore[arg-type]
        for arm, weights in ARMS.items()
    }
    references = {arm: one_by_one(config, replicates) for arm, config in configs.items()}
    # First what studies do, should time run out: compilation takes most of it.
    asked = args.compiled or (("yes", "no") if cuda else ("no",))
    ways = [(compiled, graphs) for graphs in ((True, False) if cuda else (False,)) for compiled in asked]
    rows: list[dict[str, Any]] = []
    for (compiled, graphs), arm in itertools.product(ways, ARMS):
        compute = Compute(args.device, packed=True, graphs=graphs, compiled=compiled == "yes")
        row: dict[str, Any] = {"arm": arm, "compiled": compiled, "graphs": "yes" if graphs else "no"}
        begin = time.perf_counter()
        try:
            with warnings.catch_warnings(record=True):
                found, row["note"] = stacked(configs[arm], replicates, compute)
            row |= differences(references[arm], found)
            row["equal"] = all(row[name] <= most for name, most in TOLERANCES.items())
        except Exception as error:  # of this row: the others are still worth having
            row |= {"failed": f"{type(error).__name__}: {first_line(error)}", "equal": False}
        row["seconds"] = time.perf_counter() - begin
        rows.append(row)
        shown = (f"{k} {v:.2g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items() if v != "")
        print("  ".join(shown), flush=True)
        if args.out:
            args.out.write_text(json.dumps({"tolerances": TOLERANCES, "rows": rows}, indent=1) + "\n")
    return 0 if all(row["equal"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
