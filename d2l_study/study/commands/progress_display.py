"""The progress of a study while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from d2l_study.study.commands.time_left import TimeLeft, rounded_seconds
from d2l_study.study.plan.cost import human_seconds
from d2l_study.study.trial.trial_request import TrialRequest

PLAIN_SECONDS = 30.0
"""Without a terminal, a line of progress at least this often."""


class RunningTrial:
    """A trial in training: its last optimizer step, and the mean of its replicates' validation AUC."""

    def __init__(self, label: str, steps: int, replicates: int) -> None:
        self.label, self.steps, self.replicates = label, steps, replicates
        self.step, self.val_auc, self.begun = 0, float("nan"), time.monotonic()


class ProgressDisplay:
    """The progress of one command's trials. work, kinds: of each trial by its key, for the predicted time left
    (`TimeLeft`); there: trials of the study that were done before, so that the counts are of all, as `plan` and
    `status` give them."""

    def __init__(
        self, console: Console, work: Mapping[str, float], concurrent: int, kinds: Mapping[str, str] | None = None,
        there: int = 0,
    ) -> None:  # fmt: skip
        self.console, self.concurrent = console, concurrent
        self._keys = list(work)
        self._later, self._there = 0, there
        self._running: dict[str, RunningTrial] = {}
        self._left = TimeLeft(work, kinds or {}, concurrent)
        self.done = self.failed = 0
        self.best: tuple[float, str] | None = None
        self.note: str | None = None
        self._warnings: set[str] = set()
        self._begun = self._said = time.monotonic()
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._table, console=self.console, refresh_per_second=2)
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    # ---- what is not known at the beginning
    def expect_trials(self, count: int, work: float) -> None:
        """So many trials will be added, of so much work each: those that a search has not asked for yet."""
        self._later = count
        self._left.expect(count, work)

    def add_trial(self, key: str, work: float, kind: str) -> None:
        self._keys.append(key)
        self._later = max(0, self._later - 1)
        self._left.add(key, work, kind)

    # ---- events
    def trial_started(self, key: str, request: TrialRequest) -> None:
        self._running[key] = RunningTrial(request.label, max(request.steps, 1), len(request.replicates))
        self._left.started(key)

    def trial_reported(self, key: str, step: int, val_auc: float) -> None:
        running = self._running[key]
        running.step, running.val_auc = step, val_auc
        self._left.reported(key, min(1.0, step / running.steps))
        if self._live is None and time.monotonic() - self._said > PLAIN_SECONDS:
            self._say(f"{running.label}: step {step} of {running.steps}, {_val_auc_text(val_auc)}")

    def trial_retried(self, key: str, request: TrialRequest, cause: str, keys: Sequence[str]) -> None:
        """A trial was lost. It is run again, in pieces that have these keys."""
        self._running.pop(key, None)
        if key in self._keys:
            self._keys.remove(key)
        self._keys += [piece for piece in keys if piece not in self._keys]
        self._left.replaced(key, keys)
        if self._live is None:
            self._say(
                f"{request.label}: {cause}; attempt {request.attempt + 1}" + (", in halves" if len(keys) > 1 else "")
            )

    def trial_ended(self, key: str, request: TrialRequest, failed: int, val_auc: float | None) -> None:
        """A trial has ended. failed: how many of its runs failed; val_auc: the mean validation AUC of the others."""
        running = self._running.pop(key, None)
        self.done += 1
        self.failed += failed > 0
        self._left.ended(key)
        if val_auc is not None and val_auc == val_auc and (self.best is None or val_auc > self.best[0]):
            self.best = (val_auc, request.label)
        took = human_seconds(time.monotonic() - running.begun) if running else "?"
        result = f"{failed} of {len(request.replicates)} failed" if failed else ""
        shown = _val_auc_text(val_auc) if val_auc is not None else ""
        if self._live is None:
            self._say(f"{request.label}: " + ", ".join(part for part in (shown, result, took) if part), ended=True)

    def warn(self, text: str) -> None:
        """Say what a worker warns of, once."""
        if text not in self._warnings:
            self._warnings.add(text)
            self.console.print(f"warning: {text}")

    def progress(self) -> dict[str, Any]:
        """The progress as `status` shows it: trials by state, those in training, predicted seconds left."""
        running = [
            {"label": r.label, "step": r.step, "steps": r.steps, "replicates": r.replicates}
            for r in list(self._running.values())
        ]
        return {"done": self.done, "failed": self.failed, "trials": len(self._keys) + self._later,
                "running": running, "left": self.left()}  # fmt: skip

    # ---- pictures
    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def left(self) -> float | None:
        """Predicted seconds left; None while too little is known."""
        return self._left.seconds()

    def _counts(self, ended: bool = False) -> str:
        """ended: a trial has just ended, and the next one of its place has not begun."""
        left = self.left()
        noun = self._noun()
        there = self._there if noun == "trials" else 0  # those of other commands were not spread
        parts = [
            f"{there + self.done} of {there + len(self._keys) + self._later} {noun} done",
            f"{len(self._running)} {'still ' if ended else ''}running",
            f"{self.failed} failed",
            f"{human_seconds(self.elapsed)} elapsed",
            f"about {human_seconds(rounded_seconds(left))} left" if left is not None and left >= 1 else "",
        ]
        return ", ".join(part for part in parts if part)

    def _noun(self) -> str:
        """A trial whose replicates are spread over several places counts once for each."""
        return "parts of trials" if len({key.rsplit("-", 1)[0] for key in self._keys}) < len(self._keys) else "trials"

    def _say(self, text: str, ended: bool = False) -> None:
        self._said = time.monotonic()
        print(f"[{self._counts(ended)}] {text}", file=self.console.file, flush=True)

    def _table(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("trial", "replicates", "progress", "step", "val AUC", "time"):
            table.add_column(name, justify="left" if name in ("trial", "progress") else "right", no_wrap=True)
        for running in list(self._running.values())[:20]:
            bar = ProgressBar(total=running.steps, completed=running.step, width=24)
            auc = _number(running.val_auc) if running.step else "…"
            table.add_row(running.label, str(running.replicates), bar, f"{running.step}/{running.steps}", auc,
                          human_seconds(time.monotonic() - running.begun))  # fmt: skip
        lines: list[Text | Table] = [Text(self._counts(), style="bold")]
        if self.best:
            lines.append(Text(f"best validation AUC so far {self.best[0]:.3f} ({self.best[1]})"))
        if self.note:
            lines.append(Text(self.note, style="yellow"))
        return Group(*lines, table)


def _number(auc: float) -> str:
    """A mean validation AUC; without validation bags, or of bags of one class, there is none."""
    return "none" if auc != auc else f"{auc:.3f}"


def _val_auc_text(auc: float) -> str:
    return "no validation AUC" if auc != auc else f"validation AUC {_number(auc)}"


def stdout() -> Console:
    """The console of this command. Lines are never wrapped or cut where the output is no terminal."""
    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty(), emoji=False, markup=False)
