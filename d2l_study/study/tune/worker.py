"""What a worker of Ray Tune runs: one trial, whose curves go to the driver while it is trained.

A trial may be of several configurations that are packed. Messages know them by the number of their request.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from d2l_study.errors import SlowStepsWarning
from d2l_study.study.trial.trial_request import TrialRequest

CurvePoint = tuple[int, int, dict[str, dict[str, float]]]
"""A point of a trial's curves: number of the request, optimizer step, and replicate (as text) -> values by name."""

REPORT_SECONDS = 1.0
"""Least time between two messages to the driver. A message costs the driver more than the points in it."""


class ReportBuffer:
    """Collects the points of a trial's curves, and which of its requests have ended, and sends them in at most one
    message every `pause` seconds.

    send: takes a message, `{"points": [...], "ended": [...], "warnings": [...]}`.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], pause: float) -> None:
        self._send, self._pause, self._sent = send, pause, time.monotonic()
        self.points: list[CurvePoint] = []
        self._ended: list[int] = []
        self._warnings: list[str] = []

    def __call__(self, number: int, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """Add a point: number of the request, optimizer step, and replicate -> values by name."""
        self.points.append((number, step, {str(r): dict(v) for r, v in values.items()}))
        self._send_in_time()

    def ended(self, number: int) -> None:
        """All runs of a request are committed."""
        self._ended.append(number)
        self._send_in_time()

    def warn(self, text: str) -> None:
        """Training warns of something."""
        self._warnings.append(text)
        self._send_in_time()

    def _send_in_time(self) -> None:
        if time.monotonic() - self._sent >= self._pause:
            self.flush()

    def flush(self, **more: Any) -> None:
        """Send what is left, and `more` in the same message."""
        if self.points or self._ended or self._warnings or more:
            message = {"points": self.points, "ended": self._ended, "warnings": self._warnings, **more}
            self.points, self._ended, self._warnings = [], [], []
            self._send(message)
            self._sent = time.monotonic()


def curve_points(message: Mapping[str, Any]) -> Iterator[tuple[int, int, dict[int, dict[str, float]]]]:
    """The points of a `ReportBuffer`'s message, in the driver: number of the request, optimizer step, and replicate ->
    values by name."""
    for number, step, values in message.get("points", ()):
        yield number, step, {int(r): v for r, v in values.items()}


@contextlib.contextmanager
def warnings_told(tell: Callable[[str], None]) -> Iterator[None]:
    """While the block runs, each `SlowStepsWarning` goes to `tell` as well: nobody reads the worker's log."""
    with warnings.catch_warnings():
        before = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            before(message, category, *where)
            if issubclass(category, SlowStepsWarning):
                tell(str(message))

        warnings.simplefilter("always", SlowStepsWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def train_in_worker(config: dict[str, Any]) -> None:
    """Run the trial of `config["requests"]`, each a `TrialRequest` as plain values.

    Its reports wait for at most `config["pause"]` seconds. The last message holds each run's status.
    """
    from ray import tune

    from d2l_study.study.trial.trial import run_packed_trial
    from d2l_study.study.tune.node_checks import check_root_is_shared

    requests = [TrialRequest.from_dict(values) for values in config["requests"]]
    check_root_is_shared(requests[0])
    reports = ReportBuffer(tune.report, config["pause"])
    try:
        with warnings_told(reports.warn):
            statuses = run_packed_trial(requests, reports, reports.ended)
    except Exception:
        reports.flush()
        raise
    reports.flush(statuses=[{str(r): status for r, status in own.items()} for own in statuses])
