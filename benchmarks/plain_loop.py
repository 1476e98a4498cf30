"""Time to quality on one core: a plain loop in the way of Ilse et al.'s published code against `fit_teacher`.

    python benchmarks/plain_loop.py [--seeds 20] [--out FILE.json]     # --seeds 2 for a quick look

Both train attention MIL on the LeNet on the same n = 100 MNIST bags (K = 10, balanced) and are scored on the same 1000
test bags; a seed is a replicate of base seed 9100, on which nothing was chosen. Processor time, one thread:
- plain loop (https://github.com/AMLab-Amsterdam/AttentionDeepMIL, re-written): one bag per step, Adam 5e-4 with weight
  decay 1e-4, 20 epochs, float32, layers in PyTorch's default layout and order, the last parameters. As in the published
  code a second forward pass of every step computes its training error; `lean` is the time without those passes, which
  change no parameter (they are timed apart in the same run). Loading is not counted: the bags are tensors before the
  clock starts.
- `fit_teacher` in each of `SETTINGS`: drawing, moving and normalising the batches, all steps, and the validations on 50
  further labelled bags (which choose the snapshot of `prototype` and `patient`; `short` keeps the last). Scoring the
  test bags is counted for neither.
Only the first --timed seeds are timed, plain loop and settings one after the other; beyond them the plain loop runs
without its second passes. Written after every seed, so an interrupted run goes on where it was (same --out, base seed
and precision). The interval of the AUC difference is a paired t interval over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import torch
from options import output_file, whole_number
from scipy import stats
from torch import nn

from d2l_study.data import Bags, MnistBags, Pool, Replicate
from d2l_study.learning import Compute, TeacherConfig, fit_teacher
from d2l_study.learning.metrics import auc

BASE_SEED = 9100

SETTINGS: dict[str, dict[str, Any]] = {
    "short": {
        "batch_bags": 4, "steps": 225, "eval_every": 225, "select": "last", "initial_weights": "he",
        "learning_rate": 1e-3, "decay": "linear", "warmup_steps": 20, "augment": "affine", "bag_order": "alternating",
    },
    "prototype": {"batch_bags": 4, "steps": 250, "eval_every": 25},
    "patient": {"batch_bags": 4, "steps": 400, "eval_every": 25, "patience": 4},
}  # fmt: skip
"""Keys of the teacher's configuration that are not its defaults."""


class PlainAttention(nn.Module):
    """Attention MIL of Ilse et al. (2018), layer by layer; a bag is (1, instances, 1, 28, 28)."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2, 2), nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2, 2)
        )
        self.features = nn.Sequential(nn.Linear(800, 500), nn.ReLU())
        self.attention = nn.Sequential(nn.Linear(500, 128), nn.Tanh(), nn.Linear(128, 1))
        self.classifier = nn.Sequential(nn.Linear(500, 1), nn.Sigmoid())

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        h = self.features(self.maps(bag.squeeze(0)).view(-1, 800))
        weight = torch.softmax(self.attention(h).transpose(0, 1), dim=1)
        return self.classifier(weight @ h)


def tensors(pool: Pool, bags: Bags) -> list[torch.Tensor]:
    x = torch.from_numpy((pool.instances[bags.instance] / 255 - 0.1307) / 0.3081).float()
    return [x[a:b][None] for a, b in zip(bags.offsets[:-1], bags.offsets[1:], strict=True)]


def plain(replicate: Replicate, second_passes: bool = True) -> tuple[float, float, float]:
    """(processor seconds of training, those of them outside the second forward passes, test AUC).

    The second passes change no parameter, so the AUC is the same without them.
    """
    torch.manual_seed(replicate.number)
    model = PlainAttention()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4, betas=(0.9, 0.999), weight_decay=1e-4)
    bags = tensors(replicate.pool, replicate.train)
    labels = [torch.tensor([[float(label)]]) for label in replicate.train.label]
    begin, second = time.process_time(), 0.0
    for _ in range(20):
        train_loss = train_error = 0.0
        for i in torch.randperm(len(bags)).tolist():
            optimizer.zero_grad()
            p = model(bags[i]).clamp(1e-5, 1 - 1e-5)
            loss = -(labels[i] * p.log() + (1 - labels[i]) * (1 - p).log())
            train_loss += loss.item()
            mark = time.process_time()
            if second_passes:
                train_error += 1 - (model(bags[i]).ge(0.5).float() == labels[i]).float().mean().item()
            second += time.process_time() - mark
            loss.backward()
            optimizer.step()
    seconds = time.process_time() - begin
    with torch.no_grad():
        score = [model(bag).item() for bag in tensors(replicate.pool, replicate.test)]
    return seconds, seconds - second, auc(replicate.test.label, np.array(score))


def ours(config: TeacherConfig, replicate: Replicate, precision: str) -> tuple[float, float]:
    """(processor seconds of training and validation, test AUC)."""
    marks = [time.process_time()]

    def report(step: int, values: object) -> None:  # the last one comes at the end of training, before the test
        marks.append(time.process_time())

    (fitted,) = fit_teacher(config, [replicate], compute=Compute(precision=precision), report=report)
    return marks[-1] - marks[0], fitted.metrics["bag_auc"]


def faster_precision() -> str:
    """bfloat16 where the product that the second convolution amounts to is at least 1.5 × faster in it."""
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2560, 500).to(dtype), torch.randn(500, 50).to(dtype)
        times = []
        for _ in range(20):
            begin = time.process_time()
            a @ b
            times.append(time.process_time() - begin)
        best[dtype] = min(times)
    return "bfloat16" if best[torch.float32] > 1.5 * best[torch.bfloat16] else "float32"


def measure(row: dict[str, float], replicate: Replicate, names: list[str], precision: str, timed: bool) -> None:
    """Fill in what the row of a seed lacks. timed: all of it one after the other, with its seconds."""
    timed = timed and any(f"{name}_seconds" not in row for name in names)
    if timed:
        row["plain_seconds"], row["lean_seconds"], row["plain_auc"] = plain(replicate)
    elif "plain_auc" not in row:
        _, _, row["plain_auc"] = plain(replicate, second_passes=False)
    for name in names:
        if timed or f"{name}_auc" not in row:
            seconds, row[f"{name}_auc"] = ours(TeacherConfig(**SETTINGS[name]), replicate, precision)
            if timed:
                row[f"{name}_seconds"] = seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=whole_number, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--base-seed", type=int, default=BASE_SEED)
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=["short"], help="none: the plain loop")
    parser.add_argument("--timed", type=int, help="how many of the first seeds are timed; all if not given")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--out", type=output_file, help="where the raw values go, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, float]] = []
    asked: dict[str, object] = {"precision": options.precision, "base_seed": options.base_seed}
    if options.out and options.out.exists():
        try:
            found = json.loads(options.out.read_text())
            found["precision"], found["base_seed"], found["rows"]
        except (ValueError, TypeError, KeyError):
            parser.error(f"{options.out} is no file of this script; name another")
        if asked["precision"] == "auto":
            asked["precision"] = found["precision"]
        if any(found[key] != value for key, value in asked.items()):
            parser.error(f"{options.out} holds other values: { ({key: found[key] for key in asked}) }")
        rows = found["rows"]
    if asked["precision"] == "auto":
        asked["precision"] = faster_precision()
    precision = str(asked["precision"])
    print(f"{precision}, torch {torch.__version__}, settings { ({name: SETTINGS[name] for name in options.settings}) }")
    data = MnistBags(num_bags=100)
    pool = data.load_pool()
    for seed in range(options.first, options.first + options.seeds):
        if not any(row["seed"] == seed for row in rows):
            rows.append({"seed": float(seed)})
        (row,) = (row for row in rows if row["seed"] == seed)
        before = dict(row)
        timed = options.timed is None or seed < options.first + options.timed
        measure(row, data.replicate(pool, seed, options.base_seed), options.settings, precision, timed)
        if row != before:
            print("  ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
            if options.out:
                text = {**asked, "torch": torch.__version__, "settings": SETTINGS, "rows": rows}
                options.out.write_text(json.dumps(text, indent=1))
    for name in options.settings:
        print(summary(name, [row for row in rows if f"{name}_auc" in row]))


def summary(name: str, rows: list[dict[str, float]]) -> str:
    """Times, quality, and the two comparisons of one setting, in words."""

    def column(key: str, rows: list[dict[str, float]] = rows) -> np.ndarray:
        return np.array([row[key] for row in rows])

    beside = [row for row in rows if f"{name}_seconds" in row]
    lines = []
    for which in ("plain", name):
        area = column(f"{which}_auc")
        spread = area.std(ddof=1) if len(rows) > 1 else np.nan
        lines.append(f"{which}: test AUC {area.mean():.4f} ± {spread:.4f} (sd), {len(rows)} seeds")
    for which in ("plain", "lean") if beside else ():
        seconds = column(f"{which}_seconds", beside)
        ratio = seconds / column(f"{name}_seconds", beside)
        low, middle, high = np.percentile(ratio, (25, 50, 75))
        lines.append(
            f"{which} loop {seconds.mean():.2f} s, {middle:.2f} × the time of {name} (median; quartiles {low:.2f} to "
            f"{high:.2f}; all {ratio.min():.2f} to {ratio.max():.2f}; {len(beside)} seeds)"
        )
    difference = column(f"{name}_auc") - column("plain_auc")
    text = f"AUC {name} − plain {difference.mean():+.4f}"
    if len(rows) > 1:
        half = stats.t.ppf(0.975, len(rows) - 1) * difference.std(ddof=1) / len(rows) ** 0.5
        text += f", paired 95 % interval {difference.mean() - half:+.4f} to {difference.mean() + half:+.4f}"
    return "\n  ".join([*lines, text])


if __name__ == "__main__":
    main()
