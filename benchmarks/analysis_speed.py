"""How long `analysis` takes for a large study: 10,000 trials of 5 replicates, and a table of 10,000 rows.

The study is synthetic: `make_large_study` writes a plan and a ledger of invented outcomes, drawn from a stated
distribution with a fixed seed, without training anything. Processor seconds (and wall seconds) of:

    load            the rows from the ledger, file by file; from the compacted rows of a study that has ended, which
                    every command below does too; and from the exported Parquet file
    arrange, table  the table of the methods × n, a panel per K, settings as rows of their own (10,000 cells)
    markdown …      its formats
    report          the report of the whole study, from its ledger, as a command, start-up included
    10,000 rows     `analysis tables` as a command, on an export of 10,000 rows, start-up included

    python benchmarks/analysis_speed.py [--root FOLDER] [--trials 10000] [--out raw.json]
"""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from options import output_file, whole_number

from d2l_study.study.ledger.ledger import Ledger, config_id
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder

NAME = "synthetic_large"
METRICS = ("bag_auc", "bag_ap", "bag_accuracy", "bag_precision", "bag_recall", "bag_f1", "instance_auc", "instance_ap",
           "instance_accuracy", "instance_precision", "instance_recall", "instance_f1", "val_bag_auc")  # fmt: skip


def make_large_study(root: Path, trials: int = 10_000, replicates: int = 5, seed: int = 0) -> StudyFolder:
    """A study of two arms, `none` and `vat`, over n, K, λ_adv, ε and the learning rate, `trials` configurations of
    `replicates` runs, 1 % of them failed. Invented outcomes, not measurements:

    metric = sigmoid(2 + log2(n / 50) + 0.3 [vat] + N(0, 0.5) by replicate + N(0, 0.2) by run and metric).
    """
    rng = np.random.default_rng(seed)
    folder = StudyFolder(LocalStorage(root), NAME)
    numbers, sizes = (25, 50, 100, 200, 400), (10, 50)
    each = trials // (2 * len(numbers) * len(sizes))
    drawn = (10 ** rng.uniform(-4, -2, each), rng.uniform(1, 8, each), rng.uniform(0.1, 2, each))
    settings = [(round(float(lr), 8), round(float(e), 6), round(float(w), 6)) for lr, e, w in zip(*drawn, strict=True)]
    shared = rng.normal(0, 0.5, replicates)
    plan: list[dict[str, Any]] = []
    for method in ("none", "vat"):
        for size in sizes:
            for n in numbers:
                for rate, epsilon, weight in settings:
                    values = {"dataset": "mnist", "num_bags": n, "val_bags": max(20, n // 2), "mean_bag_size": size,
                              "pooling": "attention", "learning_rate": rate, "lambda_noise": 0.0, "lambda_ent": 0.0,
                              "lambda_adv": weight if method == "vat" else 0.0,
                              "epsilon": epsilon if method == "vat" else 2.0,
                              **{f"setting_{i}": i for i in range(30)}}  # fmt: skip
                    plan.append({"config_id": config_id("teacher", {"data": values}, "synthetic", seed),
                                 "stage": "teacher", "method": method, "values": values,
                                 "varied": ["num_bags", "mean_bag_size", "learning_rate", "lambda_adv", "epsilon"],
                                 "replicates": list(range(replicates))})  # fmt: skip
    folder.write("description: synthetic, for a benchmark\n", {"space": {"description": "synthetic"}}, plan)
    for entry in plan:
        level = 2 + np.log2(entry["values"]["num_bags"] / 50) + 0.3 * (entry["method"] == "vat")
        for r in entry["replicates"]:
            if rng.random() < 0.01:
                _write(folder.storage.path(f"{folder.key}/failures/{entry['config_id'][:10]}-r{r:03d}.json"),
                       {"cause": "ValueError: invented", "log": ""})  # fmt: skip
                continue
            drawn = 1 / (1 + np.exp(-(level + shared[r] + rng.normal(0, 0.2, len(METRICS)))))
            row = {"repeat": r, "fold": None, "seed": seed, "status": "done", "cause": None,
                   **dict(zip(METRICS, drawn.tolist(), strict=True)), "bag_nll": 0.3, "bag_brier": 0.1,
                   "best_step": 200, "steps_run": 300, "train_seconds": 2.5, "device": "cpu", "precision": "float32",
                   "threads": 1, "code_version": "synthetic", "committed_at": "2026-01-01T00:00:00+00:00"}  # fmt: skip
            record = {"config_id": entry["config_id"], "replicate": r, "attempt": "synthetic", "row": row, "files": {}}
            _write(folder.storage.path(f"{Ledger.run_key(entry['config_id'], r)}/commit.json"), record)
    folder.compact()  # as `run` does at its end
    return folder


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, sort_keys=True))


class Timer:
    def __init__(self) -> None:
        self.found: dict[str, tuple[float, float]] = {}

    def __call__(self, name: str, work: Any) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.found[name] = time.process_time() - processor, time.perf_counter() - wall
        print(f"{name:34} {self.found[name][0]:6.2f} s processor, {self.found[name][1]:6.2f} s wall", flush=True)
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="keep the study there, or use the one that is there")
    parser.add_argument("--trials", type=whole_number, default=10_000)
    parser.add_argument("--out", type=output_file, help="write the seconds there, as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.root or Path(temporary)
        if not (root / "studies" / NAME / "plan.json").exists():
            make_large_study(root, arguments.trials)
        measure = Timer()

        def imports() -> None:
            for name in ("pandas", "scipy.special", "analysis.tables.study_table"):
                importlib.import_module(name)

        measure("imports", imports)
        import analysis
        from analysis.rows.exported_files import export
        from analysis.tables.study_table import table

        folder = StudyFolder(LocalStorage(root), NAME)
        compacted = folder.storage.read(f"{folder.key}/rows.parquet")
        folder.storage.delete(f"{folder.key}/rows.parquet")
        measure("load from the ledger", lambda: analysis.load(NAME, root))
        folder.storage.put(f"{folder.key}/rows.parquet", compacted)
        rows = measure("load from the compacted rows", lambda: analysis.load(NAME, root))
        parquet = root / "rows.parquet"
        measure("export to Parquet", lambda: export(rows, parquet))
        measure("load from Parquet", lambda: analysis.load(parquet))
        made = measure("table (arranged, best, differences)", lambda: table(rows))
        print(f"    {len(rows)} rows, {len(made.layout.cells)} cells")
        for format in ("markdown", "latex", "html", "csv"):
            measure(format, lambda format=format: made.text(format))
        small = root / "rows10000.parquet"
        kept = rows["config_id"].drop_duplicates().iloc[: 10_000 // 5]
        export(rows[rows["config_id"].isin(kept)], small)
        commands = {
            "analysis tables, 10,000 rows": ["tables", str(small), "--out", str(root / "table.md")],
            "analysis tables, 50,000 rows": ["tables", NAME, "--root", str(root), "--out", str(root / "table.md")],
            "analysis report, 50,000 rows": ["report", NAME, "--root", str(root), "--out", str(root / "report.html")],
        }
        for name, command in commands.items():
            before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run([sys.executable, "-m", "analysis", *command], check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            measure.found[name] = seconds, time.perf_counter() - wall
            print(f"{name:34} {seconds:6.2f} s processor, {measure.found[name][1]:6.2f} s wall", flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(measure.found, indent=1))


if __name__ == "__main__":
    main()
