"""Packed training: one replicate against many in one process, formulations, arithmetic rate, and what a grid takes.

    python benchmarks/packed.py [--device cuda|cpu] [--replicates 20] [--threads 8] [--seconds 2] [--out packed.json]

Needs torch and numpy only. For n = 100 bags of K = 10 and K = 100 digits, plain, with R_adv, with noise instances and
with all three regularizers, every row is measured in this one run: milliseconds per step (median of intervals; on CUDA
wall time after synchronising, replayed from CUDA graphs; on a CPU processor time) of a stack of one, of many and of as
many replicates as suit the device, compiled and not. Then the achieved rate (operations counted from the plain layers)
against the measured rate of batched matrix products of the very shapes and of large squares, the share of padding, the
seconds of a stack's first step with compilation and capture, the host's wall time to draw a step on `--threads`
threads, and `vat_grid` added up from it. On a CPU K = 10 alone is measured, with a loop over the replicates beside.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from options import output_file, positive_number, whole_number

from d2l_study.data import MnistBags
from d2l_study.data.pool import Replicate
from d2l_study.errors import first_line
from d2l_study.learning import TeacherConfig
from d2l_study.learning.batches import draw_batch
from d2l_study.learning.noise_instances import noise_counts
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.packed.batches import ReplicateTask, block_steps, draw_block, padding_share
from d2l_study.learning.packed.host_blocks import PinnedBlocks, staged
from d2l_study.learning.packed.instances import means_and_stds
from d2l_study.learning.packed.model import FORMULATIONS, StackedModel, layer_flops
from d2l_study.learning.packed.prediction import StackedSets, on_host
from d2l_study.learning.packed.stack import Stack
from d2l_study.learning.packed.training import Pack, most_in_a_stack
from d2l_study.learning.precision import full_float32
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.training import optimizer_step, parameters_and_optimizer
from d2l_study.models import MilModel

ARMS: dict[str, tuple[dict[str, float], int]] = {
    "plain": ({}, 3), "adv": ({"lambda_adv": 0.5}, 2), "noise": ({"lambda_noise": 0.3}, 2),
    "all": ({"lambda_adv": 0.5, "lambda_noise": 0.3, "lambda_ent": 0.02}, 2),
}  # fmt: skip
"""Overrides, and for how many of the nine arms of `vat_grid` an arm stands (entropy as plain)."""
STEPS = {"cuda": 50, "cpu": 5}
"""Steps of a timed interval."""


def step_flops(model: MilModel, arm: str, noise: float) -> float:
    """Operations of a step per instance of its bags, counted from the layers; noise: noise instances per instance.

    Forward once, back twice (by weights and by inputs), but for the gradient of the first layer's inputs, which only
    the direction of R_adv needs: R_adv alone takes it from the loss's own backward pass, all three from one more.
    """
    layers = layer_flops(model)
    forward = sum(layers.values())
    plain = 3 * forward - layers["conv1"]
    return {
        "plain": plain,
        "adv": plain + layers["conv1"] + plain,
        "noise": plain + noise * plain,
        "all": plain + forward + (1 + noise) * plain,
    }[arm]


def seconds_of(function: Callable[[], object], device: str, least: float) -> float:
    """The median time of one call, over calls that take `least` seconds together, three at least."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    clock = time.perf_counter if device == "cuda" else time.process_time
    function()
    wait()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        begin = clock()
        function()
        wait()
        times.append(clock() - begin)
    return statistics.median(times)


def stack_of(config: TeacherConfig, replicates: list[Replicate], compute: Compute) -> tuple[Stack, Pack]:
    pack = Pack([ReplicateTask(config, r) for r in replicates], compute)
    stack = Stack(StackedModel(pack.model, len(replicates), compute), pack.pool_instances)
    stack.load(pack.problems, pack.trainings)
    return stack, pack


def step_seconds(stack: Stack, least: float) -> float:
    """One step of the block that the stack holds."""
    steps = STEPS[stack.device.type]

    def interval() -> None:
        stack._at.zero_()
        stack.run(steps)

    return seconds_of(interval, stack.device.type, least) / steps


def loop_seconds(config: TeacherConfig, replicate: Replicate, compute: Compute, least: float) -> float:
    """One step of one replicate as the loop takes it, drawing included."""
    pack = Pack([ReplicateTask(config, replicate)], compute)
    normalise = Normalise.of(replicate, compute)
    params, optimizer = parameters_and_optimizer(config, pack.model.init(replicate.streams.rng("init")), compute)
    leaves, at = list(params.values()), iter(range(10**9))

    def step() -> None:
        batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, next(at), normalise)
        loss, _ = teacher_loss(pack.model, params, batch, config, 1.0, compute)
        optimizer_step(loss, leaves, optimizer)

    return seconds_of(step, compute.device, least)


def product_rates(replicates: int, instances: int, device: str, dtype: torch.dtype, least: float) -> dict[str, float]:
    """TFLOP/s of batched products: of the LeNet's shapes as `matmul` has them, and of large squares."""
    large = 4096 if device == "cuda" else 512
    shapes = {
        "conv1": (replicates, instances * 144, 36, 80), "conv2": (replicates, instances * 16, 720, 200),
        "fc": (replicates, instances, 800, 500), "square": (4 if device == "cuda" else 1, large, large, large),
    }  # fmt: skip
    rates = {}
    for name, (batch, rows, inner, columns) in shapes.items():
        a = torch.randn(batch, rows, inner, device=device).to(dtype)
        b = torch.randn(batch, inner, columns, device=device).to(dtype)
        calls = 20 if device == "cuda" else 1
        taken = seconds_of(lambda a=a, b=b, calls=calls: [torch.bmm(a, b) for _ in range(calls)], device, least) / calls
        rates[name] = 2.0 * batch * rows * inner * columns / taken / 1e12
    counted = {"conv1": 144 * 36 * 80, "conv2": 16 * 720 * 200, "fc": 800 * 500}
    rates["layers"] = sum(counted.values()) / sum(count / rates[name] for name, count in counted.items())
    return rates


def validation_seconds(stack: Stack, pack: Pack, least: float) -> float:
    sets = StackedSets([[p.replicate.val] for p in pack.problems], stack.device)
    norm = means_and_stds(pack.problems).to(stack.device)
    return seconds_of(
        lambda: on_host(sets.logits(stack.model, stack.params, stack.pool_instances, norm)), stack.device.type, least
    )


def measured(
    size: int, arm: str, compute: Compute, replicates: list[Replicate], counts: Sequence[int | None], least: float,
    profile: Path | None,
) -> dict[str, Any]:  # fmt: skip
    """One row. counts: of replicates in a stack; None: as many as suit the device, replicates repeated."""
    config = TeacherConfig(**ARMS[arm][0], eval_every=STEPS[compute.device])  # type: ignore[arg-type]
    row: dict[str, Any] = {"K": size, "arm": arm, "formulation": compute.formulation, "graphs": compute.graphs,
                           "compiled": compute.compiles}  # fmt: skip
    for asked in counts:
        count = asked
        if count is None:
            one = Pack([ReplicateTask(config, r) for r in replicates], compute)
            count = most_in_a_stack(one.problems, one.capacity, compute)
        mine = [replicates[i % len(replicates)] for i in range(count)]
        stack, pack = stack_of(config, mine, compute)
        stack.put_block(staged(draw_block(pack.problems, pack.capacity, 0, STEPS[compute.device])))
        begin = time.perf_counter()
        stack.run(1)
        row[f"loss_{count}"] = stack.take_sums()[:, 0].mean().item()
        row[f"first_s_{count}"] = time.perf_counter() - begin  # with compilation and capture
        row[f"compile_s_{count}"] = stack.compile_seconds
        row[f"ms_{count}"] = 1e3 * step_seconds(stack, least)
        row[f"steps_{count}"] = stack.eager_reason or "replayed"
        if compute.compiles:
            row[f"compiled_{count}"] = stack.plain_reason or "compiled"
        sizes = np.concatenate([p.replicate.train.sizes for p in pack.problems])
        noise = float(noise_counts(config.noise_rate, sizes).sum() / sizes.sum())
        flops = count * float(sizes.mean()) * step_flops(pack.model, arm, noise)
        row[f"tflops_{count}"] = flops / row[f"ms_{count}"] / 1e9
        row[f"memory_gb_{count}"] = torch.cuda.max_memory_allocated() / 1e9 if compute.device == "cuda" else math.nan
        row[f"draw_ms_{count}"] = 1e3 * draw_seconds(pack, compute.device)
        if profile is not None and asked is None:
            keep_profile(stack, profile / f"profile-{arm}-{size}-{'compiled' if compute.compiles else 'plain'}.txt")
    row["most"] = count
    row["padding"] = padding_share(pack.problems, pack.capacity)
    row["val_ms"] = 1e3 * validation_seconds(stack, pack, least)
    return row


def draw_seconds(pack: Pack, device: str) -> float:
    """The host's wall time to draw a step, into memory that it has drawn into before."""
    steps = min(50, block_steps(pack.problems, pack.capacity))
    pinned = PinnedBlocks() if device == "cuda" else None
    times = []
    for turn in range(4):
        begin = time.perf_counter()
        into = None if pinned is None else pinned.next(pack.problems, pack.capacity, steps)[0]
        draw_block(pack.problems, pack.capacity, turn * steps, (turn + 1) * steps, into)
        times.append((time.perf_counter() - begin) / steps)
    return min(times[1:])


def keep_profile(stack: Stack, path: Path) -> None:
    """Write where the device's time goes in ten steps."""
    from torch.profiler import ProfilerActivity, profile

    stack._at.zero_()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as found:
        stack.run(10)
        torch.cuda.synchronize()
    path.write_text(found.key_averages().table(sort_by="cuda_time_total", row_limit=40, max_name_column_width=90))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--replicates", type=whole_number)
    parser.add_argument("--precision", choices=("float32", "bfloat16"))
    parser.add_argument("--seconds", type=positive_number)
    parser.add_argument("--threads", type=whole_number, default=1)
    parser.add_argument("--counts", nargs="+", choices=("1", "many", "most"), default=["1", "many", "most"])
    parser.add_argument("--compiled", nargs="+", choices=("no", "yes"), default=["no", "yes"], help="on a GPU")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--formulations", nargs="+", choices=FORMULATIONS, default=["matmul"])
    parser.add_argument("--profile", type=Path, metavar="FOLDER", help="where the profiles of full stacks go")
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON, after every row")
    args = parser.parse_args()
    device, cuda = args.device, args.device == "cuda"
    if cuda and not torch.cuda.is_available():
        parser.error("argument --device: cuda, but PyTorch finds no GPU here (torch.cuda.is_available())")
    torch.set_num_threads(args.threads)  # which draw the noise of a pack, too
    full_float32()
    many = args.replicates or (20 if cuda else 4)
    precision = args.precision or ("bfloat16" if cuda else "float32")
    least = args.seconds or (2.0 if cuda else 1.0)
    name = torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine()
    about = {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda,
             "python": platform.python_version(), "precision": precision, "replicates": many,
             "threads": args.threads, "least seconds": least}  # fmt: skip
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        if args.out:
            args.out.write_text(json.dumps({"about": about, "rows": rows}, indent=1))

    of_row: dict[tuple[int, str], dict[str, Any]] = {}
    for size in (10, 100) if cuda else (10,):
        data = MnistBags(num_bags=100, mean_bag_size=size)
        pool = data.load_pool()
        replicates = [data.replicate(pool, r, base_seed=1) for r in range(many)]
        for arm in args.arms:
            for formulation in args.formulations:
                for compile_it in [c == "yes" for c in args.compiled] if cuda else (False,):
                    compute = Compute(device, precision, packed=True, formulation=formulation, compiled=compile_it)
                    counts = [None if c == "most" else many if c == "many" else 1 for c in args.counts]
                    if not cuda:  # where all that there are share a stack
                        counts = [c for c in counts if c is not None] or [many]
                    try:
                        row = measured(size, arm, compute, replicates, counts, least, args.profile)
                    except RuntimeError as error:  # out of memory, say: the other rows are still worth having
                        keep({"K": size, "arm": arm, "formulation": formulation, "compiled": compile_it,
                              "failed": first_line(error)})  # fmt: skip
                        continue
                    if not cuda:
                        row["loop_ms"] = 1e3 * many * loop_seconds(
                            TeacherConfig(**ARMS[arm][0]), replicates[0], Compute(), least  # type: ignore[arg-type]
                        )  # fmt: skip
                    keep(row)
                    best = of_row.setdefault((size, arm), row)
                    if _of_one(row) < _of_one(best):
                        of_row[size, arm] = row
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        try:
            rates = product_rates(many, size, device, dtype, least)
        except RuntimeError as error:
            keep({"K": size, "failed": first_line(error)})
            continue
        keep({"K": size, **{f"products {name}": rate for name, rate in rates.items()}})
        for arm in args.arms:
            if (size, arm) in of_row:
                row = of_row[size, arm]
                reached = row[f"tflops_{row['most']}"]
                print(f"K {size} {arm}: {reached:.3g} TFLOP/s, {reached / rates['layers']:.0%} of the rate of the "
                      f"layers' products, {reached / rates['square']:.0%} of large squares'")  # fmt: skip
    if cuda and len(of_row) == 2 * len(ARMS):
        keep({"vat_grid minutes": grid_minutes(of_row)})


def _of_one(row: dict[str, Any]) -> float:
    """A step in ms, drawn by the host meanwhile, for each replicate."""
    most = row["most"]
    return float(max(row[f"ms_{most}"], row[f"draw_ms_{most}"]) / most)


def grid_minutes(rows: dict[tuple[int, str], dict[str, Any]]) -> float:
    """An estimate of `vat_grid` with 20 replicates from the rows, all on the device one after the other: 7 values of n,
    2500 steps in stacks as large as suit the device, 25 validations, and one compilation for each arm and K; K = 50 as
    half of K = 100. Early stopping would save some of it. Not in it: what the host does between."""
    total = 0.0
    for size, share in ((10, 1.0), (100, 0.5), (100, 1.0)):
        for arm, (_, arms) in ARMS.items():
            row = rows[size, arm]
            stacks = 7 * arms * 20 / row["most"]
            total += share * stacks * (2500 * _of_one(row) * row["most"] + 25 * row["val_ms"]) / 1e3
            total += arms / 2 * row[f"first_s_{row['most']}"]
    return total / 60


if __name__ == "__main__":
    main()
