"""Packed trials: runs of several configurations, trained in one stack.

Teachers whose configurations differ in numbers only (weights of the loss, ε, learning rate, number of training bags)
have steps of one form. On a GPU a stack of all their runs takes little longer than a stack of one configuration's.
Each configuration stays a request of its own, with its own reports, checkpoints and results.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.packed.structure import structure
from d2l_study.study.plan.plan import runs_together
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.stages import TRAINED_AS_TEACHERS
from d2l_study.study.trial.trial_request import TrialRequest

if TYPE_CHECKING:
    from d2l_study.data import Replicate
    from d2l_study.learning.prediction import Compute
    from d2l_study.learning.training_result import FittedTeacher

MOST_RUNS = 280
"""Runs of several configurations in one trial: two arms of `vat_grid` at its seven n, with 20 replicates each."""

BAG_COUNTS = ("num_bags", "val_bags")
"""The keys of data that say how many bags there are. They change neither the pool nor the form of a step."""

Trial = tuple[TrialRequest, ...]
"""What one worker trains together: the request of one configuration, or of several that are packed."""


# ---- in the driver: which requests share a trial
def packed_trials(
    requests: Sequence[TrialRequest], resources: Resources, places: int,
    fills: Callable[[TrialRequest], int] | None = None, gpus: int = 1,
) -> list[Trial]:  # fmt: skip
    """The requests as trials, packed where that is possible. A trial stands where its first request stood.

    places: trials at a time; there are at least as many packed trials, if there are as many requests and runs enough.
    fills: the runs of a request's kind that fill a GPU, of `gpus`; see `runs_together`.
    """
    if not resources.packs:
        return [(request,) for request in requests]
    keys = [_pack_key(request) for request in requests]
    runs = sum(len(request.replicates) for request, key in zip(requests, keys, strict=True) if key is not None)
    limit = min(MOST_RUNS, resources.pack or MOST_RUNS)
    trials: list[list[TrialRequest]] = []
    last: dict[str, list[TrialRequest]] = {}  # key -> its last trial
    for request, key in zip(requests, keys, strict=True):
        trial = last.get(key, []) if key is not None else []
        most = min(limit, runs_together(runs, places, 1 if fills is None else fills(request), gpus))
        if not trial or sum(len(other.replicates) for other in trial) + len(request.replicates) > most:
            trial = []
            trials.append(trial)
        trial.append(request)
        if key is not None:
            last[key] = trial
    return [tuple(trial) for trial in trials]


def _pack_key(request: TrialRequest) -> str | None:
    """Equal for requests that can be packed; None for one that is trained alone."""
    if request.stage not in TRAINED_AS_TEACHERS:
        return None
    data = {name: value for name, value in request.sections["data"].items() if name not in BAG_COUNTS}
    form = structure(TeacherConfig(**request.sections["teacher"]))
    return json.dumps([data, request.data_checksum, request.base_seed, form], sort_keys=True, default=str)


# ---- in the worker: how they are trained
@dataclasses.dataclass(frozen=True)
class Part:
    """The runs of one request in a packed trial. options: the arguments that a fitting function of `learning` has for
    them, callbacks included, which know a run by its replicate."""

    config: TeacherConfig
    replicates: Sequence[Replicate]
    options: Mapping[str, Any]


def can_be_packed(config: TeacherConfig, replicates: Sequence[Replicate], compute: Compute) -> bool:
    """Whether all runs of a configuration have steps of one form, and are trained packed."""
    from d2l_study.learning.packing import packed_or_by_turns
    from d2l_study.learning.unlabelled_bags import unlabelled_task

    forms = {
        (config.in_steps(replicate.epoch_bags), unlabelled_task(config, replicate) is None) for replicate in replicates
    }
    return len(forms) == 1 and packed_or_by_turns(config, replicates, compute).packs


def fit_packed(parts: Sequence[Part], compute: Compute) -> list[Sequence[FittedTeacher]]:
    """Train the runs of several configurations together. Returns those of each part, in the order of its replicates.

    Each part's callbacks are called as if it were trained alone.
    """
    from d2l_study.learning.packed.training import fit_teachers
    from d2l_study.learning.packing import packed_or_by_turns

    places = [(part, replicate) for part in parts for replicate in part.replicates]
    position = {(id(part), replicate.number): i for i, (part, replicate) in enumerate(places)}

    def report(step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        for part in parts:
            mine = {r.number: values[i] for r in part.replicates if (i := position[id(part), r.number]) in values}
            if mine and part.options.get("report") is not None:
                part.options["report"](max(int(found["step"]) for found in mine.values()), mine)

    def checkpoint(i: int, state: bytes) -> None:
        part, replicate = places[i]
        part.options["checkpoint"](replicate.number, state)

    callbacks: dict[str, Any] = {name: value for name, value in parts[0].options.items() if name != "compute"}
    callbacks |= {"report": report, "resume": {
        position[id(part), number]: state
        for part in parts for number, state in (part.options.get("resume") or {}).items()
    }}  # fmt: skip
    if callbacks.get("checkpoint") is not None:
        callbacks["checkpoint"] = checkpoint
    packs = [packed_or_by_turns(part.config, part.replicates, compute).pack for part in parts]
    most = min((pack for pack in packs if pack is not None), default=None)
    fitted = iter(fit_teachers(
        [(part.config, replicate) for part, replicate in places], compute=dataclasses.replace(compute, pack=most),
        **callbacks,
    ))  # fmt: skip
    return [[next(fitted) for _ in part.replicates] for part in parts]
