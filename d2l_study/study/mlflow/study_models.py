"""The models of a study in MLflow: the best of each arm, one for each, and no others but registered ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from d2l_study.study.mlflow.address import one_line
from d2l_study.study.mlflow.logged_models import (
    ModelContent,
    delete_model,
    find_logged_models,
    is_ready,
    log_model,
    versions_of,
)
from d2l_study.study.mlflow.tags import ARMS, CONFIG, MADE_FROM, STUDY

PASSING = ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED")
"""Errors of MLflow after which another attempt may do."""
BEGUN_MS = 3_600_000
"""So long a model that is not finished may be somebody's who is making it."""


@dataclass(frozen=True)
class StudyModels:
    """The models that MLflow is to hold for a study.

    arms: all of its plan; best: arm -> config_id of its best configuration, for those of which that is known; contents:
    one for each best configuration whose weights are stored.
    """

    arms: frozenset[str]
    best: Mapping[str, str]
    contents: Sequence[ModelContent]


def write_models(
    store: Any, experiment: str, study: str, runs: Mapping[str, str], models: Callable[[], StudyModels]
) -> Iterator[str | None]:
    """Make the models that are not there, then delete those that are not wished and not registered.

    runs: config_id -> MLflow run. Yields, for each model made or deleted, None, or a line if it could not be. Raises
    what MLflow raises where another attempt may do; it may be called again.
    """
    try:
        wished = models()
    except Exception as error:
        yield f"the models of the best trials could not be told: {one_line(error)}"
        return
    there = find_logged_models(store, [experiment], STUDY, study)
    kept, failed = set[str](), set[str]()
    for content in wished.contents:
        same = [m for m in there if is_ready(m) and m.tags.get(MADE_FROM) == content.made_from]
        kept.update(m.model_id for m in same[-1:])
        if same:
            continue
        try:
            kept.add(log_model(store, experiment, content, runs.get(content.config_id)).model_id)
        except Exception as error:
            if getattr(error, "error_code", None) in PASSING:
                raise
            failed.update(content.arms)
            yield f"the model of {content.name} could not be made: {one_line(error)}"
        else:
            yield None
    with_content = {content.config_id for content in wished.contents}
    for model in there:
        if model.model_id in kept or _stays(model, wished, with_content, failed) or versions_of(store, model):
            continue
        delete_model(store, model)
        yield None


def _stays(model: Any, wished: StudyModels, with_content: set[str], failed: set[str]) -> bool:
    """Whether a model that is not among the wished ones stays all the same."""
    if not is_ready(model):
        return time.time() * 1000 - model.creation_timestamp < BEGUN_MS
    arms = set(json.loads(model.tags.get(ARMS) or "[]"))
    if arms & failed or any(arm in wished.arms and arm not in wished.best for arm in arms):
        return True  # nothing better is there yet
    config = model.tags.get(CONFIG)  # its weights are stored nowhere else any more
    return config in wished.best.values() and config not in with_content
