"""The trials of a study: which replicates of which configuration each of them trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from d2l_study.study.commands.prepare_study import PreparedStudy
from d2l_study.study.plan.cost import gpus_of, predicted_seconds, runs_of_full_stack, training_work, work
from d2l_study.study.plan.plan import split_for_slots
from d2l_study.study.plan.trial_order import OrderedTrial, results_first
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.keys import TEACHING
from d2l_study.study.space.space import Space
from d2l_study.study.trial.packed_trials import Trial, packed_trials
from d2l_study.study.trial.trial_request import TrialRequest


def make_trial_requests(
    study: PreparedStudy, concurrent: int, code_version: str
) -> tuple[list[TrialRequest], dict[str, float]]:
    """The requests of a study in the order in which they are given out (`trial_order`), and the predicted work of each
    in training, by its `trial_key`.

    How replicates are spread over trials changes no result (`plan.spread`), and neither does the order.
    """
    trials = study.plan.trials(study.options.limit)
    # A search learns from the mean of all replicates, and a schedule compares it: they stay in one trial.
    in_one = study.search is not None or study.space.schedule != "none"
    resources = study.space.resources
    pieces = split_for_slots(
        trials, 1 if in_one else concurrent, lambda c: runs_of_full_stack(c, resources), gpus_of(resources, concurrent)
    )
    ordered = ordered_pieces(study.space, pieces)
    order = results_first(ordered, concurrent)
    requests = [make_trial_request(study, *pieces[position], code_version) for position in order]
    in_training = [training_work(c) * len(replicates) for c, replicates in pieces]
    return requests, {trial_key(r): in_training[position] for r, position in zip(requests, order, strict=True)}


Piece = tuple[Configuration, tuple[int, ...]]
"""A configuration, and the replicates of it that a trial trains."""


def ordered_trials(
    space: Space, trials: Sequence[Sequence[Piece]], length: Callable[[Configuration, int], float]
) -> list[OrderedTrial]:
    """What the order of each trial depends on: the combinations that it holds of the data keys that are axes of the
    space, its length, and the trials of its teachers. length: configuration and runs of the trial -> of one run."""
    axes = [key for key, written in space.sections["data"].items() if isinstance(written, tuple)]
    position = {(c.config_id, r): i for i, trial in enumerate(trials) for c, replicates in trial for r in replicates}
    found = []
    for trial in trials:
        runs = sum(len(replicates) for _, replicates in trial)
        task = frozenset(tuple(c.values.get(key) for key in axes) for c, _ in trial)
        needed = ((teacher, r) for c, replicates in trial for teacher in c.teachers for r in replicates)
        waits_for = tuple(dict.fromkeys(position[run] for run in needed if run in position))
        whole = sum(length(c, runs) * len(replicates) for c, replicates in trial)
        found.append(OrderedTrial(task, whole, trial[0][0].stage in TEACHING, waits_for))
    return found


def ordered_pieces(space: Space, pieces: Sequence[Piece]) -> list[OrderedTrial]:
    """The same of trials of one configuration each, by their work."""
    return ordered_trials(space, [(piece,) for piece in pieces], lambda c, _: work(c))


def trials_of(study: PreparedStudy, requests: Sequence[TrialRequest], concurrent: int) -> list[Trial]:
    """The requests of a study as trials: packed where runs of several configurations can be trained together. Those
    that hold several are few and long, so their order is made anew (`results_first`), with a short lead: on a GPU
    trials share its time, and the last ones have it for themselves."""
    if study.search is not None or study.space.schedule != "none":  # both end or compare single configurations
        return [(request,) for request in requests]
    resources, by_id = study.space.resources, {c.config_id: c for c in study.plan.configurations}
    trials = packed_trials(
        requests, resources, concurrent, lambda request: runs_of_full_stack(by_id[request.config_id], resources),
        gpus_of(resources, concurrent),
    )  # fmt: skip
    if len(trials) == len(requests):
        return trials
    # What the order of a pack depends on: the time that runs of such a stack take.
    pieces = [[(by_id[request.config_id], request.replicates) for request in trial] for trial in trials]
    ordered = ordered_trials(study.space, pieces, lambda c, runs: predicted_seconds(c, resources, runs))
    return [trials[position] for position in results_first(ordered, concurrent, lead=1.0)]


def make_trial_request(
    study: PreparedStudy, c: Configuration, replicates: Sequence[int], code_version: str
) -> TrialRequest:
    """The request for one trial of a study."""
    space = study.space
    return TrialRequest(
        root=str(study.folder.storage.root), study=study.name, config_id=c.config_id, label=c.label, stage=c.stage,
        sections={name: section.to_dict() for name, section in c.sections.items()}, replicates=tuple(replicates),
        base_seed=space.base_seed, data_checksum=c.data_checksum, resources=space.resources.to_dict(),
        keep_weights="all" if c.teaches else space.keep_weights, code_version=code_version, teachers=c.teachers,
        fresh=study.options.fresh, once_fresh=study.folder.fresh_of is not None,
    )  # fmt: skip


def trial_key(request: TrialRequest) -> str:
    """What tells the trials of one command apart."""
    return f"{request.config_id}-{request.replicates[0]}"


def kind_of(request: TrialRequest) -> str:
    """What the trials of one kind share, whose times are predicted from each other: stage and arm."""
    arm = " ".join(word for word in request.label.split() if "=" not in word)
    return f"{request.stage} {arm}"


def is_part_of(piece: TrialRequest, request: TrialRequest) -> bool:
    """Whether a request is for runs of another one."""
    return piece.config_id == request.config_id and set(piece.replicates) <= set(request.replicates)
