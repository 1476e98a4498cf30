"""What the three regularizers cost: whole optimizer steps, plain, with each and with all, interleaved in one run.

    python benchmarks/regularizer_cost.py [--batch-bags 1] [--precision float32] [--rounds 30] [--out FILE.json]

A step is drawing the batch, the loss, its gradient and Adam, on MNIST bags (n = 100, K = 10), one thread. Each round
times every arm once on the same bags, so that a disturbance of the machine falls on all of them; printed are the median
processor time of a step and the median over rounds of its ratio to the plain step of the same round.
Counted in passes, all three with the direction from the logit are 2.5 plain steps at ρ = 0.2, with a power iteration
2.9.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from options import output_file, whole_number

from d2l_study.data import MnistBags
from d2l_study.learning import Compute, TeacherConfig
from d2l_study.learning.batches import draw_batch
from d2l_study.learning.objective import teacher_loss
from d2l_study.learning.prediction import Normalise
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training import optimizer_step, parameters_and_optimizer

THREE = {"lambda_adv": 0.5, "lambda_noise": 0.3, "lambda_ent": 0.02}
ARMS = {
    "plain": {}, "adversarial": {"lambda_adv": 0.5}, "noise": {"lambda_noise": 0.3}, "entropy": {"lambda_ent": 0.02},
    "all three": THREE, "all three, power": {**THREE, "direction": "power"},
}  # fmt: skip
STEPS = 5  # of an arm in a round


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-bags", type=whole_number, default=1)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rounds", type=whole_number, default=30)
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = MnistBags(num_bags=100)
    replicate = data.replicate(data.load_pool(), 0, base_seed=5000)
    compute = Compute(precision=options.precision)
    normalise = Normalise.of(replicate, compute)
    arms = {}
    for name, keys in ARMS.items():
        config = TeacherConfig(batch_bags=options.batch_bags, **keys)
        model = teacher_model(config, replicate)
        arms[name] = (
            config,
            model,
            *parameters_and_optimizer(config, model.init(replicate.streams.rng("init")), compute),
        )

    def seconds(name: str, first: int) -> float:
        config, model, params, optimizer = arms[name]
        begin = time.process_time()
        for step in range(first, first + STEPS):
            batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, step, normalise)
            loss, _ = teacher_loss(model, params, batch, config, 1.0, compute)
            optimizer_step(loss, list(params.values()), optimizer)
        return (time.process_time() - begin) / STEPS

    rounds = [{name: seconds(name, STEPS * i) for name in arms} for i in range(options.rounds + 2)][2:]
    print(
        f"{options.rounds} rounds, batches of {options.batch_bags} bags, {options.precision}, torch {torch.__version__}"
    )
    for name in arms:
        times = np.array([r[name] for r in rounds])
        ratio = times / [r["plain"] for r in rounds]
        low, middle, high = np.quantile(ratio, (0.25, 0.5, 0.75))
        print(
            f"{name:17s} {1e3 * np.median(times):7.2f} ms   {middle:5.2f} × plain (quartiles {low:.2f} to {high:.2f})"
        )
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options) | {"out": str(options.out)}, "rounds": rounds}))


if __name__ == "__main__":
    main()
