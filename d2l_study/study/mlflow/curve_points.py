"""The points of a run's curves in MLflow: the curve of each replicate, and the mean curve."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set

from d2l_study.study.mlflow.limits import allowed_name, finite_or_nan
from d2l_study.study.mlflow.page import Report

Point = tuple[str, float, int, int]
"""Name of the metric, value, time in ms since 1970, step."""


class CurvePoints:
    """Makes the points of one run, report by report, and remembers what the mean curve needs."""

    def __init__(self) -> None:
        self._values: dict[int, dict[int, Mapping[str, float]]] = {}  # step -> replicate -> values

    def add(self, reports: Iterable[Report], averaged: Set[int], ended: bool, start_time: int) -> list[Point]:
        """Add reports; returns their points.

        averaged: the replicates of the mean curve; ended: whether the run has ended; start_time: of the run, in ms
        since 1970. The time of a point is start_time + step, so that a point written twice is one point to the store.

        The mean at a step is made once all averaged replicates have reported it or have stopped before, at the latest
        when the run ends. The averaged replicates never change: MLflow cannot remove points, and a second mean at the
        same steps would draw a zigzag.
        """
        points, touched = [], set()
        for step, values in reports:
            for replicate, metrics in values.items():
                own = int(metrics.get("step", step))
                named = {name: value for name, value in metrics.items() if name != "step"}
                points += [_point(f"{name}/r{replicate:03d}", value, start_time, own) for name, value in named.items()]
                if replicate in averaged:
                    self._values.setdefault(step, {})[replicate] = named if own == step else {}
                    touched.add(step)
        for step in sorted(self._values) if ended else sorted(touched):
            if ended or averaged <= self._values[step].keys():
                points += [_point(name, mean, start_time, step) for name, mean in _means(self._values[step].values())]
        return points


def _point(name: str, value: float, start_time: int, step: int) -> Point:
    return allowed_name(f"curve/{name}"), finite_or_nan(value), start_time + step, step


def _means(reported: Iterable[Mapping[str, float]]) -> Iterable[tuple[str, float]]:
    """The mean of each metric over the replicates that have a finite value of it."""
    together: dict[str, list[float]] = {}
    for values in reported:
        for name, value in values.items():
            together.setdefault(name, []).append(value)
    for name, found in together.items():
        if finite := [value for value in found if math.isfinite(value)]:
            yield name, math.fsum(finite) / len(finite)
