"""What the host does for a packed study: `vat_grid` with 20 replicates a configuration, without the network.

    python benchmarks/packed_host.py [--replicates 20] [--threads 1] [--root FOLDER] [--out FILE.json]

On a GPU the device computes steps, while the host draws those of the next block; before, between and after, the device
waits for it. Wall seconds, one process, in one run:
- drawing of a packed step, for each bag size and kind of arm (median of the repeats), on `--threads` threads;
- per run: drawing its bags, the figures of a validation, a checkpoint (as bytes, then stored), and its end (figures of
  the test bags and instances, row, predictions, weights where they are kept, commit), from random logits.
Then `vat_grid` added up: what hides behind the device, and what does not. Torch tensors stay on the CPU here, so a
checkpoint lacks its way from the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from options import existing_folder, output_file, whole_number

from d2l_study.data import DATASETS
from d2l_study.learning import Compute, TeacherConfig
from d2l_study.learning.evaluation import evaluation_bags, validation_metrics
from d2l_study.learning.packed.batches import Capacity, ReplicateTask, draw_block
from d2l_study.learning.sequential import TeacherTrainer
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.learning.training_result import fitted_teacher
from d2l_study.study.commands.prepare_study import RunOptions, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_requests
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.trial.stages import run_results
from d2l_study.study.trial.trial_request import TrialRequest

ARMS = {"none": 1, "adv_low": 2, "noise_low": 2, "ent_low": 2, "all_low": 2}
"""Arms that stand for the nine of `vat_grid`, each for so many."""
BLOCK = 50
"""Steps of a block that is timed."""
REPEATS = 5
BAGS = 200
"""The bag count that stands for all seven."""


def median(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median wall seconds of a call."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def draw_ms(request: TrialRequest, replicates: int) -> float:
    data = DATASETS["mnist"](**request.sections["data"])
    pool = data.load_pool()
    config = TeacherConfig(**request.sections["teacher"])
    problems = [ReplicateTask(config, data.replicate(pool, r, request.base_seed)) for r in range(replicates)]
    capacity = Capacity.of(problems)
    draw_block(problems, capacity, 0, BLOCK)
    return 1e3 * median(lambda: draw_block(problems, capacity, BLOCK, 2 * BLOCK)) / BLOCK


def run_ms(request: TrialRequest) -> dict[str, float]:
    """Milliseconds of one run, by part."""
    folder = StudyFolder(open_storage(request.root, known=True), request.study)
    data = DATASETS["mnist"](**request.sections["data"])
    pool = data.load_pool()
    config = TeacherConfig(**request.sections["teacher"])
    replicate = data.replicate(pool, 0, request.base_seed)
    training = TeacherTrainer(config, teacher_model(config, replicate), replicate, Compute()).training
    for value in training.params.values():
        value.grad = torch.randn_like(value)
    training.optimizer.step()
    training.best_params = {name: value.detach().clone() for name, value in training.params.items()}
    training.curve = [{"step": 100.0 * i, "train_loss": 0.1, "bce": 0.1, "r_adv": 0.1, "r_noise": 0.1, "r_ent": 0.1,
                       "val_bag_auc": 0.9, "val_bag_nll": 0.3} for i in range(1, 26)]  # fmt: skip
    rng = np.random.default_rng(0)
    state = training.to_bytes()
    training.status = "done"
    logits = [rng.standard_normal(len(bags)).astype(np.float32) for bags in evaluation_bags(replicate)]
    numbers = iter(range(10**6))

    def end() -> None:
        number = next(numbers)
        result = fitted_teacher(dataclasses.replace(replicate, number=number), training, logits, time.perf_counter())
        row, files = run_results(request, replicate, result, "cuda", timestamp(), request.keeps_weights)
        assert folder.ledger.commit(request.config_id, number, row, files)

    return {
        "its bags": 1e3 * median(lambda: data.replicate(pool, 0, request.base_seed)),
        "figures of a validation": 1e3
        * median(lambda: validation_metrics(replicate, logits[-1][: len(replicate.val)])),
        "checkpoint as bytes": 1e3 * median(training.to_bytes),
        "checkpoint stored": 1e3 * median(lambda: folder.ledger.save_checkpoint(request.config_id, 0, state)),
        "end": 1e3 * median(end),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=whole_number, default=20)
    parser.add_argument("--threads", type=whole_number, default=1)
    parser.add_argument(
        "--root", type=existing_folder, help="where runs are committed; a temporary folder if not given"
    )
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, numpy {np.__version__}, "
          f"{options.replicates} replicates, {options.threads} threads")  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.root) as folder:
        study = prepare_study(RunOptions("vat_grid", root=folder))
        requests = {
            (r.sections["data"]["mean_bag_size"], r.label.split()[0]): r
            for r in make_trial_requests(study, 1, "benchmark")[0] if r.sections["data"]["num_bags"] == BAGS
        }  # fmt: skip
        sizes = sorted({size for size, _ in requests})
        draws = {(size, arm): draw_ms(requests[size, arm], options.replicates) for size in sizes for arm in ARMS}
        for size in sizes:
            print(f"K {size}: drawing of a packed step, ms: "
                  + ", ".join(f"{arm} {draws[size, arm]:.2f}" for arm in ARMS))  # fmt: skip
        runs = {size: run_ms(requests[size, "all_low"]) for size in sizes}
        for size in sizes:
            print(f"K {size}: of a run, ms: " + ", ".join(f"{name} {value:.1f}" for name, value in runs[size].items()))
        request = requests[sizes[0], "none"]
    steps, validations = request.steps, request.steps // request.interval
    every = request.resources["checkpoint_every"]
    checkpoints = (request.steps - 1) // every if every else 0
    hidden = sum(7 * count * steps * draws[size, arm] for size in sizes for arm, count in ARMS.items()) / 1e3
    each = {"its bags": 1, "figures of a validation": validations, "checkpoint as bytes": checkpoints,
            "checkpoint stored": checkpoints, "end": 1}  # fmt: skip
    shown = {name: 63 * options.replicates * count * sum(runs[size][name] for size in sizes) / 1e3
             for name, count in each.items()}  # fmt: skip
    print(f"vat_grid, {189 * options.replicates} runs of {steps} steps, {validations} validations and {checkpoints} "
          f"checkpoints: drawing {hidden / 60:.1f} min behind the device; before it "
          + ", ".join(f"{name} {value / 60:.1f}" for name, value in shown.items())
          + f", together {sum(shown.values()) / 60:.1f} min")  # fmt: skip
    if options.out:
        kept = {"options": vars(options) | {"out": str(options.out)}, "runs": runs,
                "draw_ms": {f"{size} {arm}": value for (size, arm), value in draws.items()}}  # fmt: skip
        options.out.write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
