"""The trials of a study: which replicates of which configuration each of them trains."""

from __future__ import annotations

from collections.abc import Sequence

from d2l_study.study.commands.prepare_study import PreparedStudy
from d2l_study.study.plan.cost import work
from d2l_study.study.plan.plan import split_for_slots
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.keys import TEACHING
from d2l_study.study.trial.trial_request import TrialRequest


def make_trial_requests(
    study: PreparedStudy, concurrent: int, code_version: str
) -> tuple[list[TrialRequest], dict[str, float]]:
    """The requests of a study, and the predicted work of each by its `trial_key`. Teachers come first, then the rest;
    among each the longest first.

    How replicates are spread over trials changes no result (`plan.spread`).
    """
    trials = study.plan.trials(study.options.limit)
    # A search learns from the mean of all replicates, and a schedule compares it: they stay in one trial.
    in_one = study.search is not None or study.space.schedule != "none"
    requests = [
        (work(c) * len(replicates), make_trial_request(study, c, replicates, code_version))
        for c, replicates in split_for_slots(trials, 1 if in_one else concurrent)
    ]
    requests.sort(key=lambda item: (item[1].stage not in TEACHING, -item[0]))
    return [request for _, request in requests], {trial_key(request): weight for weight, request in requests}


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
        fresh=study.options.fresh,
    )  # fmt: skip


def trial_key(request: TrialRequest) -> str:
    """What tells the trials of one command apart."""
    return f"{request.config_id}-{request.replicates[0]}"
