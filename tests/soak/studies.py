"""Studies as real processes: start them, watch their ledger, end them and what Ray leaves, read what they made."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from few_digits import digits
from process_sessions import end_ray_of, session_members

import analysis

SPACE = """
description: a study of half a minute
data: {{num_bags: 6, mean_bag_size: 3, test_bags: 50{digits}}}
teacher: {{steps: {steps}, eval_every: 20, feature_width: 16, attention_width: 8, patience: 0}}
methods:
  none: {{}}
  vat: {{teacher: {{lambda_adv: [0.5, 1.0], epsilon: [1.0, 2.0]}}}}
replicates: {replicates}
base_seed: 3
resources: {{checkpoint_every: 20, retries: {retries}}}
"""
SCIENCE = ["config_id", "method", "replicate", "status", "bag_auc", "bag_nll", "instance_auc", "val_bag_auc",
           "best_step", "steps_run"]  # fmt: skip

FAULTY = os.pathsep.join([str(Path(__file__).parent / "faults"), *filter(None, [os.environ.get("PYTHONPATH")])])
"""PYTHONPATH of a study whose workers fail as `faults/training_faults.py` says."""


DIGITS = ", root: {folder}, verify: false"


class Place:
    """A folder with a space `few.yaml` and a root `runs`. whole: measured on all 10,000 test digits."""

    def __init__(self, folder: Path, steps: int = 100, replicates: int = 4, retries: int = 1, whole: bool = False,
                 **environment: str):  # fmt: skip
        self.folder, self.root = folder, folder / "runs"
        folder.mkdir(parents=True, exist_ok=True)
        few = "" if whole else DIGITS.format(folder=digits())
        (folder / "few.yaml").write_text(SPACE.format(steps=steps, replicates=replicates, retries=retries, digits=few))
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}

    def command(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "d2l_study", *map(str, words)]

    def run_words(self, *words: object) -> list[str]:
        return self.command("run", "--space", self.folder / "few.yaml", "--root", self.root, *words)

    def call(self, *words: object, code: int = 0, timeout: float = 300) -> str:
        """A command to its end; its output."""
        done = subprocess.run(self.command(*words, "--root", self.root), capture_output=True, text=True,
                              timeout=timeout, cwd=self.folder, env=self.environment)  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
        return done.stdout + done.stderr

    def run(self, *words: object, code: int = 0, timeout: float = 600) -> str:
        """`run` to its end."""
        driver = self.start(*words)
        assert self.wait(driver, timeout) == code, self.said()
        assert "Traceback" not in self.said().replace("      Traceback", ""), self.said()
        return self.said()

    def start(self, *words: object) -> subprocess.Popen:
        """`run` as a process with a session of its own."""
        with (self.folder / "log").open("w") as log:
            return subprocess.Popen(
                self.run_words(*words), stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, env=self.environment,
                start_new_session=True, preexec_fn=hear_interrupts,
            )  # fmt: skip

    def wait(self, driver: subprocess.Popen, timeout: float = 300) -> int:
        try:
            return driver.wait(timeout)
        finally:
            end_session(driver)

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def committed(self) -> list[Path]:
        return list((self.root / "results").glob("*/*/*/commit.json"))

    def until(self, condition, driver: subprocess.Popen, what: str, timeout: float = 200) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert driver.poll() is None, f"ended before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.said()}"
            time.sleep(0.02)

    def rows(self) -> list[dict]:
        """The science of the table, all that an undisturbed study has too."""
        frame = analysis.load("few", self.root).reindex(columns=SCIENCE)  # without a finished run some are not there
        return json.loads(frame.to_json(orient="records", double_precision=15))

    def children(self, uri: str | None = None) -> tuple[list, list]:
        """The child runs of the study, and all its runs, asked of MLflow."""
        from mlflow import MlflowClient

        client = MlflowClient(uri or f"sqlite:///{self.root}/mlflow.db")
        runs = client.search_runs([client.get_experiment_by_name("few").experiment_id], max_results=1000)
        return [r for r in runs if "mlflow.parentRunId" in r.data.tags], runs


def hear_interrupts() -> None:
    """Ctrl-C, which a process that a shell started in the background ignores, and its children too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def workers(driver: subprocess.Popen) -> list[int]:
    """Process ids of the driver's Ray workers that have a trial; Ray's own agents are called `ray::…` as well."""
    found = []
    for pid in session_members(driver.pid):
        try:
            title = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::ImplicitFunc"):
            found.append(pid)
    return found


def end_session(driver: subprocess.Popen, patience: float = 5.0) -> None:
    """What Ray started, and the driver if it still runs."""
    end_ray_of(driver.pid, patience)
    if driver.poll() is None:
        driver.kill()
        driver.wait()
