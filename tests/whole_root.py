"""A root that holds every kind of file, made by the commands themselves; its trials run in this process, without Ray.

For tests of what becomes of a root that is damaged, pruned or cleaned: a `run` takes a second here.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from few_digits import digits

STUDENTS = """
description: students of a teacher and of one that fails
data: {{num_bags: 6, mean_bag_size: 3, test_bags: 20, root: {digits}, verify: false}}
teacher: {{steps: 6, eval_every: 3, feature_width: 8, attention_width: 4}}
student: {{steps: 6, eval_every: 3, feature_width: 8}}
teachers:
  none: {{}}
  broken: {{teacher: {{learning_rate: 1.0e+30}}}}
methods:
  plain: {{}}
references: [attention]
keep_weights: all
replicates: 2
base_seed: 3
"""
SEARCH = """
description: a search that ends trials early
data: {{num_bags: 6, mean_bag_size: 3, test_bags: 20, root: {digits}, verify: false}}
teacher: {{steps: 12, eval_every: 2, feature_width: 8, attention_width: 4, patience: 0}}
methods:
  vat: {{teacher: {{lambda_adv: {{low: 0.1, high: 3}}, learning_rate: {{low: 1.0e-6, high: 1.0e-2, log: true}}}}}}
replicates: 1
base_seed: 3
search: {{method: tpe, trials: 5, startup: 4}}
schedule: asha
resources: {{checkpoint_every: 2}}
"""
DRAWN = """
description: the same without a sampler
data: {{num_bags: 6, mean_bag_size: 3, test_bags: 20, root: {digits}, verify: false}}
teacher: {{steps: 6, eval_every: 3, feature_width: 8, attention_width: 4}}
methods:
  none: {{}}
  vat: {{teacher: {{lambda_adv: {{low: 0.1, high: 3}}}}}}
replicates: 2
base_seed: 3
search: {{method: random, trials: 2}}
"""
SPACES = {"students": STUDENTS, "search": SEARCH, "drawn": DRAWN}
CODES = {"students": 1, "search": 0, "drawn": 0}
"""Of `run`: one of the teachers fails."""


class EndedEarly(BaseException):
    """A schedule ends a trial: not an exception of the trial's own, which would be kept as a failure."""


def run_trials_here(
    queue: Any, resources: Any, concurrent: int, callback: Any, early_stopping: Any = None, stop: Any = None
) -> None:
    """In the place of `run_trials`: one trial after the other, in this process."""
    from d2l_study.study.trial.trial import run_packed_trial
    from d2l_study.study.tune.run_trials import root_errors_reported

    while not queue.idle and not (stop is not None and stop.is_set()):
        trial = None
        with root_errors_reported(callback):
            trial = queue.next()
            while queue.blocked:
                callback.on_trial_blocked(queue.blocked.pop())
        if trial is None:
            if queue.idle or (stop is not None and stop.is_set()):
                return
            time.sleep(0.01)
            continue
        for request in trial:
            callback.on_trial_start(request)

        def report(number: int, step: int, values: Any, trial: Any = trial) -> None:
            callback.on_trial_report(trial[number], step, values)
            if early_stopping is not None and early_stopping(trial[number], step, values):
                raise EndedEarly

        with contextlib.suppress(EndedEarly), root_errors_reported(callback):
            run_packed_trial(trial, report)
        for request in trial:
            with root_errors_reported(callback):
                queue.trial_ended(request)
                callback.on_trial_end(request)


@contextlib.contextmanager
def without_ray() -> Iterator[None]:
    """Commands of this process train here."""
    from d2l_study.study.tune import capacity, cluster, node_watch, run_trials

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "cluster", lambda address: contextlib.nullcontext())
        patch.setattr(capacity, "concurrent_trials", lambda ray, resources, address, most: 1)
        patch.setattr(run_trials, "run_trials", run_trials_here)
        patch.setattr(node_watch, "node_watched", lambda ray, stop: contextlib.nullcontext())
        yield


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


def command(main: Callable[[list[str]], int], *words: object) -> Said:
    """A command in this process; what it raises is a defect."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Said(code, out.getvalue(), err.getvalue())


class WholeRoot:
    """A folder with spaces and a root `runs` of three studies; `again` brings it back to how it was made."""

    def __init__(self, folder: Path, names: tuple[str, ...] = tuple(SPACES)) -> None:
        self.folder, self.root, self.names = folder, folder / "runs", names
        for name in names:
            (folder / f"{name}.yaml").write_text(SPACES[name].format(digits=digits()))
            said = self.run(name)
            assert said.code == CODES[name], said.text
        self._leave_behind()
        self._kept = folder / "kept"
        shutil.copytree(self.root, self._kept)

    def _leave_behind(self) -> None:
        """What only a kill, a loss or an older command leaves."""
        from d2l_study.study.ledger.local_storage import LocalStorage
        from d2l_study.study.ledger.study_folder import StudyFolder

        for name in self.names:
            folder = StudyFolder(LocalStorage(self.root), name)
            (entry, *_) = folder.plan()
            folder.write_lost_attempt(entry["config_id"], 0, {"cause": "its node was lost", "kind": "node"})
            gone = {"mark": "0", "host": "elsewhere", "pid": 1, "begun": 1.0, "beat": 1.0}
            folder.storage.put(f"{folder.key}/lease.json", json.dumps(gone).encode())
            folder.storage.put(f"{folder.key}/stop.json", json.dumps({"mark": "0", "host": "elsewhere"}).encode())
            folder.storage.put(f"{folder.key}/report.html", b"<!DOCTYPE html><title>a report</title>\n")
            folder.storage.put(f"{folder.key}/local-1a2b3c4d.diff", b"--- a\n+++ b\n")

    def again(self) -> None:
        """All but the MLflow store, which follows the results and which this process has open."""
        for name in ("results", "studies"):
            shutil.rmtree(self.root / name, ignore_errors=True)
            shutil.copytree(self._kept / name, self.root / name)

    def files(self) -> list[Path]:
        """All files, relative to the root."""
        return sorted(path.relative_to(self._kept) for path in self._kept.rglob("*") if path.is_file())

    def study(self, *words: object) -> Said:
        """A command of d2l_study."""
        from d2l_study import cli

        return command(cli.main, *words, "--root", self.root)

    def analysis(self, *words: object) -> Said:
        from analysis.cli import main

        return command(main, *words, "--root", self.root)

    def run(self, name: str, *words: object) -> Said:
        with without_ray():
            return self.study("run", "--space", self.folder / f"{name}.yaml", *words)

    def rows(self, name: str) -> tuple[str, str]:
        """The exported rows of a study as text, and what was said."""
        target = self.folder / "rows.csv"
        target.unlink(missing_ok=True)
        said = self.analysis("export", name, "--out", target)
        return target.read_text() if target.exists() else "", said.text
