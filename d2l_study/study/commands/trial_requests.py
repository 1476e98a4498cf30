"""The orders of a study: which replicates of which configuration one trial trains."""

from __future__ import annotations

from collections.abc import Sequence

from d2l_study.study.commands.request import Study
from d2l_study.study.plan.cost import work
from d2l_study.study.plan.plan import spread
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.trial.trial_request import TrialRequest


def make_orders(study: Study, concurrent: int, code_version: str) -> tuple[list[TrialRequest], dict[str, float]]:
    """The orders of a study, teachers and then the longest first, and the predicted work of each by its key.

    Which replicates an order carries makes no difference to any result (`plan.spread`).
    """
    trials = study.plan.trials(study.request.limit)
    # A search is told the mean of all replicates, and a schedule compares it: they stay together.
    joined = study.search is not None or study.space.schedule != "none"
    orders = [
        (work(c) * len(replicates), order_of(study, c, replicates, code_version))
        for c, replicates in spread(trials, 1 if joined else concurrent)
    ]
    orders.sort(key=lambda item: (item[1].stage != "teacher", -item[0]))
    return [order for _, order in orders], {order_key(order): weight for weight, order in orders}


def order_of(study: Study, c: Configuration, replicates: Sequence[int], code_version: str) -> TrialRequest:
    space = study.space
    return TrialRequest(
        root=str(study.folder.storage.root), study=study.name, config_id=c.config_id, label=c.label, stage=c.stage,
        sections={name: section.to_dict() for name, section in c.sections.items()}, replicates=tuple(replicates),
        base_seed=space.base_seed, checksum=c.data_checksum, resources=space.resources.to_dict(),
        keep_weights="all" if c.teaches else space.keep_weights, code_version=code_version, teachers=c.teachers,
        fresh=study.request.fresh,
    )  # fmt: skip


def order_key(order: TrialRequest) -> str:
    return f"{order.config_id}-{order.replicates[0]}"
