"""What a worker of Ray Tune runs: one trial, whose curves go to the driver while it is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from d2l_study.study.trial.trial_request import TrialRequest

CurvePoint = tuple[int, dict[str, dict[str, float]]]
"""A point of a trial's curves: optimizer step, and replicate (as text) -> values by name."""

REPORT_SECONDS = 1.0
"""Least time between two messages to the driver. A message costs the driver more than the points in it."""


class ReportBuffer:
    """Collects the points of a trial's curves, and sends them in at most one message every `pause` seconds.

    send: takes a message, `{"points": [...]}`.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], pause: float) -> None:
        self._send, self._pause, self._sent = send, pause, time.monotonic()
        self.points: list[CurvePoint] = []

    def __call__(self, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """Add a point: optimizer step, and replicate -> values by name."""
        self.points.append((step, {str(r): dict(v) for r, v in values.items()}))
        if time.monotonic() - self._sent >= self._pause:
            self.flush()

    def flush(self, **more: Any) -> None:
        """Send the points that are left, and `more` in the same message."""
        if self.points or more:
            points, self.points = self.points, []
            self._send({"points": points, **more})
            self._sent = time.monotonic()


def curve_points(message: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, dict[str, float]]]]:
    """The points of a `ReportBuffer`'s message, in the driver: optimizer step, and replicate -> values by name."""
    for step, values in message.get("points", ()):
        yield step, {int(r): v for r, v in values.items()}


def train_in_worker(config: dict[str, Any]) -> None:
    """Run the trial of `config["request"]`, a `TrialRequest` as plain values.

    Its reports wait for at most `config["pause"]` seconds. The last message holds each run's status.
    """
    from ray import tune

    from d2l_study.study.trial.trial import run_trial
    from d2l_study.study.tune.node_checks import check_root_is_shared

    request = TrialRequest.from_dict(config["request"])
    check_root_is_shared(request)
    reports = ReportBuffer(tune.report, config["pause"])
    try:
        statuses = run_trial(request, reports)
    except Exception:
        reports.flush()
        raise
    reports.flush(statuses={str(r): status for r, status in statuses.items()})
