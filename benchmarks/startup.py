"""Start-up and memory: the command line, the plan, and what a trial process of MNIST takes.

    python benchmarks/startup.py [--repeats 5] [--out FILE.json]

Prints the least processor and wall seconds of `--help` and of `plan --space vat_quick`, each in a process of its own,
and the resident memory of a process that trained (VAT, batches of 4, K = 10 and 100), without and with Ray and MLflow
imported: in all, and the part that is its own (`anonymous`; the rest are files, MNIST and libraries, that the processes
of a node share).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time

from options import output_file, whole_number

TRIAL = """
import sys
import torch
torch.set_num_threads(1)
from d2l_study.data import MnistBags
from d2l_study.learning import TeacherConfig, fit_teacher
if "machinery" in sys.argv:
    import mlflow
    import ray
    from ray import tune
data = MnistBags(num_bags=50, mean_bag_size=int(sys.argv[1]))
config = TeacherConfig(lambda_adv=0.5, steps=20, eval_every=10, batch_bags=4)
fit_teacher(config, [data.replicate(data.load_pool(), 0, 1)])
status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
print(*(int(status[key].split()[0]) // 1024 for key in ("VmHWM", "VmRSS", "RssAnon")))
"""


def command(words: list[str], repeats: int) -> tuple[float, float]:
    """The least processor and wall seconds of a command."""
    costs = []
    for _ in range(repeats):
        begin, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        processor = after.children_user + after.children_system - before.children_user - before.children_system
        costs.append((processor, time.perf_counter() - begin))
    return min(c for c, _ in costs), min(w for _, w in costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=whole_number, default=5)
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as root:
        for name, words in {
            "--help": ["-m", "d2l_study", "--help"],
            "plan": ["-m", "d2l_study", "plan", "--space", "vat_quick", "--root", root],
        }.items():
            processor, wall = command(words, options.repeats)
            found[name] = {"processor": processor, "wall": wall}
            print(f"{name:8s} {processor:5.2f} s of processor time, {wall:5.2f} s of wall time")
    for size in ("10", "100"):
        for machinery in ("", "machinery"):
            out = subprocess.run(
                [sys.executable, "-c", TRIAL, size, machinery], check=True, capture_output=True, text=True
            ).stdout
            peak, resident, own = map(int, out.split())
            found[f"trial K={size} {machinery}"] = {"peak": peak, "resident": resident, "anonymous": own}
            print(f"trial, K = {size:3s}{' with Ray and MLflow' if machinery else '':20s} "
                  f"{peak} MiB at most, {resident} at the end, {own} of it anonymous")  # fmt: skip
    if options.out:
        options.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
