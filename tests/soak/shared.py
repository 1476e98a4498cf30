"""Several studies under one root, each a process of its own; a watch on what they commit."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

from few_digits import digits
from studies import Place, hear_interrupts

import analysis
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.run_files import WEIGHTS

HEAD = """
description: a study that shares runs with others
data: {{num_bags: 6, mean_bag_size: 3, test_bags: 50, root: {digits}, verify: false}}
teacher: {{steps: {steps}, eval_every: 20, feature_width: 16, attention_width: 8, patience: 0}}
replicates: {replicates}
base_seed: 3
resources: {{checkpoint_every: 20, retries: 3}}
"""
TEACHERS = "methods: {none: {}, vat: {teacher: {lambda_adv: [0.5, 1.0]}}}\n"
STUDENTS = """
student: {steps: 40, eval_every: 20, feature_width: 16}
teachers: {none: {}, vat: {teacher: {lambda_adv: [0.5, 1.0]}}}
methods: {plain: {}, cool: {student: {temperature: 1}}}
"""
KEPT = "keep_weights: all\n"
BEST = "keep_weights: best\n"
TIMED = ("seconds", "committed_at", "made_by", "attempt", "replaces", "study", "host", "code_version")
"""Parts of the names of columns that tell how a run was made, not what came out."""


class Shared(Place):
    """A root of several studies. spaces: name -> what follows the head of its space."""

    def __init__(self, folder: Path, spaces: dict[str, str], steps: int = 100, replicates: int = 2) -> None:
        super().__init__(folder)
        self.names = tuple(spaces)
        for name, text in spaces.items():
            head = HEAD.format(digits=digits(), steps=steps, replicates=replicates)
            (folder / f"{name}.yaml").write_text(head + text)

    def begin(self, name: str, *words: object) -> subprocess.Popen:
        """`run` of one study as a process with a session of its own; its output is added to that of earlier ones."""
        asked = self.command("run", "--space", self.folder / f"{name}.yaml", "--root", self.root, *words)
        with self.log(name).open("a") as log:
            return subprocess.Popen(asked, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=self.environment,
                                    start_new_session=True, preexec_fn=hear_interrupts)  # fmt: skip

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def told(self) -> str:
        return "\n".join(f"---- {name}\n{self.log(name).read_text()}" for name in self.names if self.log(name).exists())

    def table(self, name: str) -> list[dict[str, Any]]:
        """What came out of each run of a study."""
        frame = analysis.load(name, self.root)
        kept = sorted(c for c in frame if not any(part in c for part in TIMED))
        rows = json.loads(frame[kept].to_json(orient="records", double_precision=15))
        return sorted(rows, key=lambda row: (row["method"], row["config_id"], row["replicate"]))

    def check_whole(self) -> None:
        """Every run done; the files of every commit are what it says; no student without its teacher's weights."""
        ledger = Ledger(LocalStorage(self.root))
        for name in self.names:
            for row in analysis.load(name, self.root).to_dict("records"):
                where = f"{name} {row['config_id'][:10]} r{row['replicate']:03d}"
                assert row["status"] == "done", f"{where}: {row['status']} {row['cause']}\n{self.told()}"
                record = ledger.read(row["config_id"], row["replicate"])
                for file in record["files"]:
                    if file != WEIGHTS or ledger.has_weights(row["config_id"], row["replicate"]):
                        ledger.read_file(row["config_id"], row["replicate"], file)
                if row["stage"] == "student":
                    for teacher in row["teacher_id"].split(","):
                        assert ledger.read_file(teacher, row["replicate"], WEIGHTS), where

    def trained(self) -> dict[str, int]:
        """How often each run was trained to its end, told by the predictions that each attempt leaves."""
        found: dict[str, int] = {}
        for path in (self.root / "results").glob("*/*/r*/*.predictions.parquet"):
            key = f"{path.parent.parent.name[:10]} {path.parent.name}"
            found[key] = found.get(key, 0) + 1
        return found


class Watch(threading.Thread):
    """Reads every commit again and again: `broken` says where one went, or took anything away."""

    def __init__(self, root: Path) -> None:
        super().__init__(daemon=True)
        self.root, self.over, self.broken = root, threading.Event(), []  # type: ignore[var-annotated]
        self.seen: dict[Path, dict[str, Any]] = {}

    def run(self) -> None:
        while not self.over.wait(0.2):
            self.look()

    def look(self) -> None:
        for path in {*self.seen, *(self.root / "results").glob("*/*/*/commit.json")}:
            try:
                now = json.loads(path.read_bytes())
            except (OSError, ValueError) as error:
                self.broken.append(f"{path}: {error}")
                continue
            before = self.seen.get(path, now)
            for name in before["files"]:
                if name not in now["files"]:
                    self.broken.append(f"{path}: it had {name}")
            for name, value in before["row"].items():
                if value == value and now["row"].get(name) != value:
                    self.broken.append(f"{path}: {name} was {value!r}, is {now['row'].get(name)!r}")
            self.seen[path] = now

    def end(self) -> None:
        self.over.set()
        self.join()
        self.look()
        assert not self.broken, "\n".join(self.broken[:20])
        assert self.seen, "nothing was committed"
