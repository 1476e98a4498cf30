"""What bounds a teacher's step on one thread: its arithmetic at this machine's rate, and what the rest of it is.

    python benchmarks/step_bound.py [--bags 4] [--precision float32|bfloat16] [--repeats 40] [--out FILE.json]

A step of `--bags` MNIST bags (n = 100, K = 10) of mean size, without regularizers. In one run, processor milliseconds,
the least and the median of the repeats:
- the whole step, as training takes it, and its parts one after the other: drawing (with normalising), the forward pass
  of the extractor, that of the pooling with the loss, the backward pass, Adam;
- the matrix products that the layers amount to (forward, by weights, by inputs; of the first layer no gradient by
  inputs), each as one product of unfolded shapes, and from them the arithmetic bound: the step's operations, counted
  from the layers, at the rates of these products;
- the first layer's pooling, forward and back, alone;
- memory: additions of two arrays into a third that move as many bytes as Adam does (parameters, gradients and two
  moments read, three of them written), and as the first layer's pooling does forward.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from options import output_file, whole_number

from d2l_study.data import MnistBags
from d2l_study.learning import Compute, TeacherConfig
from d2l_study.learning.batches import draw_batch
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.prediction import Normalise
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training import optimizer_step, parameters_and_optimizer

LAYERS = {"conv1": (576, 25, 20), "conv2": (64, 500, 50), "fc": (1, 800, 500), "attention": (1, 500, 128)}
"""Of a 28×28 patch: places, inputs and outputs of each layer; the attention computes in float32."""


class Clock:
    """Processor milliseconds of named pieces, over repeats."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        result = work()
        self.times.setdefault(name, []).append(1e3 * (time.process_time() - begin))
        return result


def products(instances: int, precision: torch.dtype) -> dict[str, Callable[[], Any]]:
    """The products of a step by name, as calls."""
    found: dict[str, Callable[[], Any]] = {}
    for layer, (places, inputs, outputs) in LAYERS.items():
        dtype = torch.float32 if layer == "attention" else precision
        rows = instances * places
        x, w, dy = (torch.randn(*shape).to(dtype) for shape in ((rows, inputs), (inputs, outputs), (rows, outputs)))
        found[f"{layer} forward"] = lambda x=x, w=w: x @ w
        found[f"{layer} by weights"] = lambda x=x, dy=dy: x.T @ dy
        if layer != "conv1":
            found[f"{layer} by inputs"] = lambda w=w, dy=dy: dy @ w.T
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bags", type=whole_number, default=4)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--repeats", type=whole_number, default=40)
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = MnistBags(num_bags=100)
    replicate = data.replicate(data.load_pool(), 0, base_seed=5000)
    compute = Compute(precision=options.precision)
    config = TeacherConfig(batch_bags=options.bags)
    normalise, model = Normalise.of(replicate, compute), teacher_model(config, replicate)
    params, optimizer = parameters_and_optimizer(config, model.init(replicate.streams.rng("init")), compute)
    leaves = list(params.values())
    # The step whose bags are nearest to mean size stands for all, and is drawn again and again.
    mean = options.bags * float(replicate.train.sizes.mean())
    counts = [len(draw_batch(config, replicate.pool, replicate.train, replicate.streams, s, normalise).x)
              for s in range(25)]  # fmt: skip
    step = int(np.argmin(np.abs(np.array(counts) - mean)))
    instances, clock = counts[step], Clock()

    def draw() -> Any:
        return draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)

    def whole() -> None:
        optimizer_step(teacher_loss(model, params, draw(), config, 1.0, compute)[0], leaves, optimizer)

    def extracted(batch: Any) -> Any:
        with compute.autocast():
            return model.terms(params, batch.x)

    def loss_of(batch: Any, terms: Any) -> torch.Tensor:
        logit = model.pool(params, terms, batch.bag_index, options.bags)
        return F.binary_cross_entropy_with_logits(logit, batch.label)

    maps = torch.randn(instances, 20, 24, 24).to(memory_format=torch.channels_last)
    maps = maps.to(torch.bfloat16 if options.precision == "bfloat16" else torch.float32).requires_grad_(True)
    calls = products(instances, maps.dtype)
    parameters = sum(leaf.numel() for leaf in leaves)
    moved = {"Adam": 7 * 4 * parameters, "max-pooling and ReLU of layer 1, forward": maps.nbytes * 5 // 4}
    thirds = {name: [torch.zeros(count // 12) for _ in range(3)] for name, count in moved.items()}
    for repeat in range(options.repeats + 3):
        if repeat == 3:
            clock.times.clear()
        clock("step", whole)
        batch = clock("draw", draw)
        terms = clock("extractor and attention, forward", lambda batch=batch: extracted(batch))
        loss = clock("pooling of instances and loss, forward", lambda b=batch, t=terms: loss_of(b, t))
        gradients = clock("all, backward", lambda loss=loss: torch.autograd.grad(loss, leaves))
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        clock("Adam", optimizer.step)
        pooled = clock("max-pooling and ReLU of layer 1, forward", lambda: F.relu(F.max_pool2d(maps, 2)))
        clock("max-pooling and ReLU of layer 1, backward", lambda y=pooled: torch.autograd.grad(y.sum(), maps))
        for name, (a, b, c) in thirds.items():
            clock(f"memory: {name}", lambda a=a, b=b, c=c: torch.add(a, b, out=c))
        for name, call in calls.items():
            clock(f"product: {name}", call)
    flops = {
        f"product: {layer} {way}": 2.0 * instances * places * inputs * outputs
        for layer, (places, inputs, outputs) in LAYERS.items()
        for way in ("forward", "by weights", "by inputs")
        if f"{layer} {way}" in calls
    }
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {options.precision}, one thread, "
          f"{options.bags} bags, {instances} instances, {options.repeats} repeats")  # fmt: skip
    least = {name: min(times) for name, times in clock.times.items()}
    for name, times in clock.times.items():
        rate = f"   {flops[name] / least[name] / 1e6:6.0f} GFLOP/s" if name in flops else ""
        if name.startswith("memory: "):
            rate = f"   {moved[name.removeprefix('memory: ')] / least[name] / 1e6:6.0f} GB/s"
        print(f"{name:42s} least {least[name]:7.3f} ms   median {float(np.median(times)):7.3f}{rate}")
    bound = sum(least[name] for name in flops)
    print(f"arithmetic: {sum(flops.values()) / 1e9:.3f} GFLOP, {bound:.2f} ms at the rates of its products, "
          f"{bound / least['step']:.0%} of the step")  # fmt: skip
    if options.out:
        kept = vars(options) | {"out": str(options.out), "instances": instances, "torch": torch.__version__}
        options.out.write_text(
            json.dumps({"options": kept, "flops": flops, "bytes": moved, "milliseconds": clock.times})
        )


if __name__ == "__main__":
    main()
