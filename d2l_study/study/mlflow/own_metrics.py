"""Which metrics of a run in MLflow are ours to take back: a person may have logged others to it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from d2l_study.study.mlflow.study_page import BEST

_OF_REPLICATE = re.compile(r"(?!curve/)(.+)/r\d{3,}$")


def own_metrics(names: Iterable[str], of_study: bool) -> set[str]:
    """Those of a run's metrics that `final_metrics` or, of a study's own run, `study_metrics` gave it once.

    An outcome of a configuration always comes with its values of replicates (`bag_auc/r000`), by which it is known.
    Curves are none of them: what was trained stays to be seen."""
    names = set(names)
    if of_study:
        return {name for name in names if name == BEST or name.startswith(f"{BEST}/")}
    outcomes = {found[1] for name in names if (found := _OF_REPLICATE.match(name))}
    return {
        name for name in names
        if _OF_REPLICATE.match(name) or name in outcomes or name.removesuffix("_std") in outcomes
    }  # fmt: skip
