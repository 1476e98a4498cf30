"""The orders of a study: which replicates of which configuration one trial trains."""

from __future__ import annotations

import math
from collections.abc import Sequence

from d2l_study.study.cost import work
from d2l_study.study.prepared import Study
from d2l_study.study.space import Configuration
from d2l_study.study.trial import TrialOrder


def make_orders(study: Study, concurrent: int, code_version: str) -> tuple[list[TrialOrder], dict[str, float]]:
    """The orders of a study, teachers and then the longest first, and the predicted work of each by its key.

    One order carries all missing replicates of a configuration, unless there are fewer configurations than
    places for trials: then replicates are spread over the places. It makes no difference to any result.
    """
    plan = study.plan
    trials = plan.trials(study.request.limit)
    runs = sum(len(t.replicates) for t in trials)
    # A search is told the mean of all replicates, and a schedule compares it: they stay together.
    whole = len(trials) >= concurrent or study.search is not None or study.space.schedule != "none"
    together = plan.replicates if whole else max(1, math.ceil(runs / concurrent))
    orders: list[tuple[float, TrialOrder]] = []
    for trial in trials:
        c = trial.configuration
        for first in range(0, len(trial.replicates), together):
            replicates = trial.replicates[first : first + together]
            orders.append((work(c) * len(replicates), order_of(study, c, replicates, code_version)))
    orders.sort(key=lambda item: (item[1].stage != "teacher", -item[0]))
    return [order for _, order in orders], {order_key(order): weight for weight, order in orders}


def order_of(study: Study, c: Configuration, replicates: Sequence[int], code_version: str) -> TrialOrder:
    space = study.space
    return TrialOrder(
        root=str(study.folder.storage.root), study=study.name, config_id=c.config_id, label=c.label, stage=c.stage,
        sections={name: section.to_dict() for name, section in c.sections.items()}, replicates=tuple(replicates),
        base_seed=space.base_seed, checksum=c.data_checksum, resources=space.resources.to_dict(),
        keep_weights="all" if c.teaches else space.keep_weights, code_version=code_version, teachers=c.teachers,
        fresh=study.request.fresh,
    )  # fmt: skip


def order_key(order: TrialOrder) -> str:
    return f"{order.config_id}-{order.replicates[0]}"
