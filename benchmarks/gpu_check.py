"""What a machine with a GPU does with this program, on one page: `make gpu`. Nothing is installed.

    python benchmarks/gpu_check.py [--out build/gpu] [--root FOLDER] [--parts NAME …] [--device cpu]

Needs torch and numpy. Four parts, each a process of its own, so that one that fails or hangs does not end the others:
- equality: the first steps of packed training against training one by one on the CPU (`first_steps.py`);
- scoring: scores of stored models against those of the CPU, and the time for them (`scoring.py`; needs safetensors);
- steps: what a step takes, in a short form (`packed.py`);
- study: where Ray, MLflow and Optuna are installed, a study through the command: the arms none and adv_low of
  `vat_grid` at K = 10, 14 trials of 20 replicates, without any `--set` about resources.

The page is printed and kept as OUT/page.txt; OUT/gpu_check.json holds the values, OUT/*.log what the parts printed,
OUT/gpu_use.csv the GPU's use in each second, OUT/rows.parquet the study's rows. `--device cpu` runs every part in a
short form, on a machine without a GPU. Exit code 1 if a part failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(REPOSITORY))  # nothing is installed

from options import output_folder  # noqa: E402

PARTS = ("equality", "scoring", "steps", "study")
SECONDS = {"equality": 240, "scoring": 60, "steps": 240, "study": 300}
"""The most that a part may take."""
FOR_SCORING = ("safetensors",)
FOR_STUDIES = ("ray", "mlflow", "optuna")
SPACE = REPOSITORY / "search_spaces" / "vat_grid.yaml"
STUDY_ARMS = ("none", "adv_low")
STUDY = "gpu_check"


@dataclass
class Outcome:
    """How a part ended. text: its table; problem: why it failed, empty if it did not; values: for the JSON file."""

    text: str = ""
    problem: str = ""
    seconds: float = 0.0
    values: dict[str, Any] = field(default_factory=dict)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="cpu: every part in a short form")
    parser.add_argument("--out", type=output_folder, default=REPOSITORY / "build" / "gpu", help="default: build/gpu")
    parser.add_argument("--root", type=Path, help="below which the study's results go; default: OUT/runs")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args(arguments)
    out: Path = output_folder(str(args.out)).resolve()
    about = about_machine()
    lines = ["  ".join(f"{name} {value}" for name, value in about.items())]
    found: dict[str, Any] = {"about": about}
    failed = [problem for problem in (args.device == "cuda" and why_no_gpu(), why_no_mnist()) if problem]
    for part in () if failed else args.parts:  # without a device or data, none can be run
        print(f"{part} … (at most {SECONDS[part]} s)", flush=True)
        begin = time.monotonic()
        try:
            outcome = run_part(part, args.device, out, (args.root or out / "runs").resolve())
        except Exception as error:  # of this part: the next one is run
            outcome = Outcome(problem=f"{type(error).__name__}: {error}")
        outcome.seconds = outcome.seconds or time.monotonic() - begin
        found[part] = {"seconds": outcome.seconds, "problem": outcome.problem, **outcome.values}
        (out / "gpu_check.json").write_text(json.dumps(found, indent=1) + "\n")
        state = f"FAILED: {outcome.problem}" if outcome.problem else "fine"
        lines += ["", f"== {part}: {state} ({outcome.seconds:.0f} s)", *([outcome.text] if outcome.text else [])]
        failed += [f"{part}: {outcome.problem}"] if outcome.problem else []
    lines += ["", *(f"FAILED: {problem}" for problem in failed)] if failed else ["", "Every part was fine."]
    lines.append(f"Values and logs: {out}")
    page = "\n".join(lines) + "\n"
    (out / "page.txt").write_text(page)
    print(f"\n{page}", end="", flush=True)
    return 1 if failed else 0


def run_part(part: str, device: str, out: Path, root: Path) -> Outcome:
    if part == "study":
        return study(device, out, root)
    if part == "scoring" and (missing := not_installed(FOR_SCORING)):
        return Outcome(text=missing)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        short = {
            "equality": ["first_steps.py", *(["--replicates", "2"] if device == "cpu" else [])],
            "scoring": ["scoring.py", *(["--seconds", "0.05"] if device == "cpu" else [])],
            "steps": ["packed.py", *(["--seconds", "0.05", "--replicates", "2"] if device == "cpu" else
                                     ["--seconds", "0.1", "--compiled", "yes"])],
        }[part]  # fmt: skip
        command = [sys.executable, str(HERE / short[0]), *short[1:], "--device", device, "--out", str(file)]
        if part == "steps":
            command += ["--threads", str(min(8, cores()))]
        problem = run_logged(command, out / f"{part}.log", SECONDS[part])
        values = json.loads(file.read_text()) if file.exists() else {}
    outcome = Outcome(problem=problem, values=values)
    if part == "equality":
        outcome.text = equality_table(values)
        unequal = [row["arm"] for row in values.get("rows", []) if not row["equal"]]
        outcome.problem = f"not equal: {', '.join(dict.fromkeys(unequal))}" if unequal else problem
    elif part == "scoring":
        outcome.text = scoring_table(values)
        unequal = [row["network"] for row in values.get("rows", []) if not row["equal"]]
        outcome.problem = f"not equal: {', '.join(unequal)}" if unequal else problem
    else:
        outcome.text = step_table(values)
        rows_failed = sum("failed" in row for row in values.get("rows", []))
        outcome.problem = problem or (f"{rows_failed} rows failed" if rows_failed else "")
    return outcome


def not_installed(names: Sequence[str]) -> str:
    """Why a part is not run, empty if all packages that it needs are there."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"not run: {', '.join(missing)} not installed" if missing else ""


def study(device: str, out: Path, root: Path) -> Outcome:
    """A study by the command, if what it needs is installed."""
    if missing := not_installed(FOR_STUDIES):
        return Outcome(text=missing)
    space = out / f"{STUDY}.yaml"
    space.write_text(space_of_arms(SPACE.read_text(), STUDY_ARMS))
    asked = ["data.mean_bag_size=10"]
    if device == "cpu":
        asked += ["data.num_bags=20", "data.test_bags=20", "teacher.steps=10", "teacher.eval_every=5",
                  "resources.device=cpu"]  # fmt: skip
    root = root / datetime.now().strftime("%Y-%m-%dT%H-%M-%S")  # nothing to go on with
    command = [sys.executable, "-m", "d2l_study", "run", "--space", str(space), "--study", STUDY, "--root", str(root),
               "--tracking-uri", f"sqlite:///{root}/mlflow.db",
               "--replicates", "2" if device == "cpu" else "20", "--set", *asked]  # fmt: skip
    begin = time.monotonic()
    with gpu_use(out / "gpu_use.csv") as use:
        problem = run_logged(command, out / "study.log", SECONDS["study"])
    seconds = time.monotonic() - begin
    rows = root / "studies" / STUDY / "rows.parquet"
    if rows.exists():
        shutil.copy(rows, out / "rows.parquet")
    printed = (out / "study.log").read_text(errors="replace").splitlines()
    shown = [line for line in printed if not re.match(r"\[\d+ of \d+ ", line)]  # without lines of progress
    text = [f"{seconds / 60:.1f} min by the command, start of Ray and MLflow included", *use.lines(), *shown[-60:]]
    return Outcome("\n".join(text), problem, seconds, {"command": command, "gpu_use": use.summary()})


def space_of_arms(text: str, arms: Sequence[str]) -> str:
    """The text of a space with these of its arms alone, each of which is one line."""
    before, methods, after = text.partition("\nmethods:\n")
    kept, inside = [], True
    for line in after.splitlines():
        inside = inside and (line.startswith(" ") or not line.strip())
        arm = re.match(r"  (\S+):", line)
        if not inside or arm is None or arm[1] in arms:
            kept.append(line)
    return before + methods + "\n".join(kept) + "\n"


def run_logged(command: Sequence[str], log: Path, most_seconds: float) -> str:
    """Run a command, with what it prints in a file; returns why it failed, or nothing. One that takes too long is
    interrupted, as by Ctrl-C, and killed after a minute more."""
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, cwd=log.parent, start_new_session=True
        )
        try:
            code = process.wait(most_seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            return f"not done after {most_seconds:.0f} s; {log.name} says how far it came"
        finally:  # also where this program is stopped
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code == 0:
        return ""
    last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"exit code {code}: {last[-1].strip() if last else 'nothing printed'}"


# ---- the page
def equality_table(values: Mapping[str, Any]) -> str:
    """The largest relative differences of the first steps, beside their tolerances."""
    if not values:
        return ""
    most = values["tolerances"]
    head = ["arm", "compiled", "graphs", *(f"{name.replace('_', ' ')} ≤ {most[name]:g}" for name in most), "", "note"]
    rows = [
        [row["arm"], row["compiled"], row["graphs"], *(f"{row[n]:.1e}" if n in row else "–" for n in most),
         "equal" if row["equal"] else "NOT EQUAL", row.get("failed") or row.get("note", "")]
        for row in values["rows"]
    ]  # fmt: skip
    return text_table([head, *rows])


def scoring_table(values: Mapping[str, Any]) -> str:
    """The largest differences of scores, and the time for a thousand instances on both devices."""
    if not values:
        return ""
    most = values["tolerance"]
    head = f"network|instances ≤ {most:g}|bags ≤ {most:g}|ms per 1,000 on the CPU|on the device|times as fast||note"
    rows = [
        [row["network"], *(f"{row[n]:.1e}" if n in row else "–" for n in ("instances", "bags")),
         *(f"{row[n]:.3g}" if n in row else "–" for n in ("ms_cpu", "ms_device")),
         f"{row['ms_cpu'] / row['ms_device']:.2g}" if "ms_device" in row else "–",
         "equal" if row["equal"] else "NOT EQUAL", row.get("failed", "")]
        for row in values["rows"]
    ]  # fmt: skip
    return text_table([head.split("|"), *rows])


def step_table(values: Mapping[str, Any]) -> str:
    """The rows of `packed.py`, a line for each size of a stack, and the other values below."""
    rows = values.get("rows", [])
    rates = {row["K"]: row["products layers"] for row in rows if "products layers" in row}
    head = "K|arm|compiled|replicates|ms a step|of one alone|TFLOP/s|of its products|drawn in|first step|note"
    table = [head.split("|")]
    others = []
    for row in rows:
        counts = sorted(int(name.removeprefix("ms_")) for name in row if re.fullmatch(r"ms_\d+", name))
        for count in counts:
            flops = row.get(f"tflops_{count}", math.nan)
            notes = [row.get(f"{name}_{count}") for name in ("compiled", "steps")]
            reached = f"{flops / rates[row['K']]:.0%}" if row["K"] in rates else ""
            ratio = f"{row[f'ms_{count}'] / row['ms_1']:.2f} ×" if "ms_1" in row else ""
            table.append([
                str(row["K"]), row["arm"], "yes" if row.get("compiled") else "no", str(count),
                f"{row[f'ms_{count}']:.3g}", ratio, f"{flops:.3g}", reached,
                f"{row.get(f'draw_ms_{count}', math.nan):.2g} ms", f"{row.get(f'first_s_{count}', math.nan):.2g} s",
                "; ".join(note for note in notes if note and note not in ("compiled", "replayed")),
            ])  # fmt: skip
        if not counts:
            others.append("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    return "\n".join([text_table(table), *others]) if rows else ""


def text_table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)


# ---- the machine
def about_machine() -> dict[str, Any]:
    """The device, and the versions of what is used."""
    import torch

    about: dict[str, Any] = {"device": "none"}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        about = {"device": f"{torch.cuda.device_count()} × {properties.name}",
                 "memory": f"{properties.total_memory / 2**30:.0f} GiB"}  # fmt: skip
    about |= {"cores": cores(), "python": platform.python_version(), "torch": torch.__version__,
              "cuda": torch.version.cuda, "machine": platform.machine()}  # fmt: skip
    for name in ("numpy", "triton", *FOR_STUDIES):
        try:
            about[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            about[name] = "missing"
    return about


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def why_no_gpu() -> str:
    import torch

    found = torch.cuda.is_available()
    return "" if found else "PyTorch finds no GPU here; --device cpu runs every part in a short form"


def why_no_mnist() -> str:
    from d2l_study.data.mnist import EMBEDDED, find_files

    missing = [path.name for path in find_files().values() if not path.exists()]
    return f"MNIST is missing: no {', '.join(missing)} in {EMBEDDED}; put its four files there" if missing else ""


class GpuUse:
    """What `nvidia-smi` said of the GPU, once a second."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def rows(self) -> list[list[float]]:
        """(busy %, memory MiB, watts) of each second in which all of them are known."""
        found = []
        for line in self._said():
            with contextlib.suppress(ValueError):  # [N/A], as of a part of a GPU; or a message
                found.append([float(value) for value in line.split(",")[1:]])
        return [row for row in found if len(row) == 3]

    def _said(self) -> list[str]:
        text = self.file.read_text(errors="replace") if self.file.exists() else ""
        return [line.strip() for line in text.splitlines() if line.strip()]

    def summary(self) -> dict[str, float]:
        rows = self.rows()
        if not rows:
            return {}
        busy, memory, watts = zip(*rows, strict=True)
        work = [b > 0 for b in busy]
        begun, end = (work.index(True), len(work) - work[::-1].index(True)) if any(work) else (0, len(work))
        return {"seconds": len(rows), "working": end - begun, "busy": sum(busy[begun:end]) / max(1, end - begun),
                "idle": sum(not w for w in work[begun:end]), "memory": max(memory), "watts": max(watts)}  # fmt: skip

    def lines(self) -> list[str]:
        if not (use := self.summary()):
            said = self._said()
            return [f"The GPU's use could not be read; nvidia-smi says: {said[0]}"] if said else []
        return [f"GPU between its first and last work ({use['working']:.0f} s): busy {use['busy']:.0f} % in the mean, "
                f"idle in {use['idle']:.0f} s; at most {use['memory']:.0f} MiB and {use['watts']:.0f} W"]  # fmt: skip


def visible_gpu() -> str:
    """What `nvidia-smi` calls the first GPU that is used here. It numbers all GPUs, and otherwise than CUDA does."""
    import torch

    if torch.cuda.is_available():
        identity = getattr(torch.cuda.get_device_properties(0), "uuid", None)
        if identity is not None:
            return f"GPU-{identity}"
    return os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip() or "0"


@contextlib.contextmanager
def gpu_use(file: Path) -> Iterator[GpuUse]:
    """Write the GPU's use to a file during the block, where there is `nvidia-smi`."""
    file.unlink(missing_ok=True)
    watcher = None
    if shutil.which("nvidia-smi"):
        query = "timestamp,utilization.gpu,memory.used,power.draw"
        with file.open("w") as target:
            watcher = subprocess.Popen(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits",
                                        f"--id={visible_gpu()}", "--loop=1"],
                                       stdout=target, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        yield GpuUse(file)
    finally:
        if watcher is not None:
            watcher.terminate()
            watcher.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))  # so that no part is left at work
    sys.exit(main())
