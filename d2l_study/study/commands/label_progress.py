"""The progress of `label`: a bar on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from d2l_study.study.plan.cost import human_seconds

PLAIN_SECONDS = 30.0
"""Without a terminal, seconds between two lines at least. What takes less gets no line."""


class _RateColumn(ProgressColumn):
    """How many are scored a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


class LabelProgress:
    """Shows how many instances are scored. name, done, count: the input in work, and how many of its instances are
    scored, of how many; noun: what they are called."""

    def __init__(self, console: Console, noun: str = "patches") -> None:
        self.console, self.noun = console, noun
        self.name, self.done, self.count = "", 0, 0
        self.files = 0
        """How many images and files are done."""
        self._bar = Progress(
            TextColumn("  {task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
            TextColumn("{task.fields[noun]}"), _RateColumn(), TimeRemainingColumn(), console=console, transient=True,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task: TaskID | None = None
        self._begun = self._said = time.monotonic()
        self._there = 0

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, name: str, done: int, count: int) -> None:
        if name != self.name:
            self.name, self._there, self._begun = name, done, time.monotonic()
            self._show(name, done, count, self.noun)
            if 0 < done < count:
                self.say(f"{name}: {done:,} of {count:,} {self.noun} are there already")
        self.done, self.count = done, count
        if self._task is not None:
            self._bar.update(self._task, completed=done)
        if not self.console.is_terminal and time.monotonic() - self._said > PLAIN_SECONDS:
            self.say(f"{name}: {done:,} of {count:,} {self.noun} ({done / count:.0%}){self._left()}")

    def checked(self, done: int, count: int) -> None:
        """So many of the files are checked, before anything is scored."""
        if self._task is None:
            self._show("checking", done, count, "files")
        elif done == count:
            self._bar.remove_task(self._task)
            self._task = None
        else:
            self._bar.update(self._task, completed=done)
        if not self.console.is_terminal and time.monotonic() - self._said > PLAIN_SECONDS:
            self.say(f"checked: {done:,} of {count:,} files")

    def _show(self, name: str, done: int, count: int, noun: str) -> None:
        """A new bar, in the place of the last one."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=count, completed=done, noun=noun)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self._said = time.monotonic()
        if self.console.is_terminal:
            self.console.print(f"  {text}", markup=False, highlight=False, soft_wrap=True)
        else:
            print(f"  {text}", file=self.console.file, flush=True)

    def _left(self) -> str:
        """The predicted time left, by the patches that this command has scored; what was there before took no time."""
        scored = self.done - self._there
        if not scored:
            return ""
        each = (time.monotonic() - self._begun) / scored
        return f", {1 / max(each, 1e-9):,.0f}/s, {human_seconds(each * (self.count - self.done))} left"
