"""The first layer of the LeNet (conv 20@5×5, pool, ReLU), as PyTorch's layers and as a matrix product, in one run.

    python benchmarks/first_layer.py [--repeats 30] [--out FILE.json]

Prints milliseconds of processor time (the least of the repeats, one thread, float32) for 10 and 40 MNIST-sized
instances, and their ratio: `layers, plain` in PyTorch's default layout, `layers` channels last (d2l_study's way where
no gradient of the pixels is asked for), `product` (its way where one is).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from options import output_file, whole_number

from d2l_study.models.convolution import channels_last, conv_relu_pool, plain_conv_relu_pool


def least(function: Callable[[], object], repeats: int) -> float:
    """Milliseconds of the cheapest of `repeats` calls, after three that are not counted."""
    for _ in range(3):
        function()
    times = []
    for _ in range(repeats):
        begin = time.process_time()
        function()
        times.append(time.process_time() - begin)
    return 1e3 * min(times)


def gradients(way: Callable[..., torch.Tensor], leaves: list[torch.Tensor], asked: list[torch.Tensor]) -> object:
    return torch.autograd.grad(way(*leaves).sum(), asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=whole_number, default=30)
    parser.add_argument("--out", type=output_file, help="where the milliseconds go, as JSON")
    options = parser.parse_args()
    repeats = options.repeats
    torch.set_num_threads(1)
    ways = {
        "layers, plain": plain_conv_relu_pool,
        "layers": lambda x, w, b: plain_conv_relu_pool(channels_last(x), w, b),
        "product": conv_relu_pool,
    }
    weight, bias = torch.randn(20, 1, 5, 5) / 5, torch.randn(20)
    rows = []
    print("instances  gradient of        " + "".join(f"{name:>16s}" for name in ways) + "   layers/product")
    for count in (10, 40):
        x = torch.randn(count, 1, 28, 28)
        for of in ("pixels", "pixels, filters"):
            leaves = [v.clone().requires_grad_(True) for v in (x, weight, bias)]
            asked = leaves[:1] if of == "pixels" else leaves
            found = {name: least(partial(gradients, way, leaves, asked), repeats) for name, way in ways.items()}
            rows.append({"instances": count, "gradient of": of, **found})
            ratio = found["layers"] / found["product"]
            print(f"{count:9d}  {of:18s} " + "".join(f"{value:16.2f}" for value in found.values()) + f"{ratio:17.2f}")
    if options.out:
        kept = {"repeats": repeats, "torch": torch.__version__, "rows": rows}
        options.out.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
