"""A page: the wished state of one run in MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d2l_study.study.mlflow.study_models import StudyModels

PARENT = ""
"""The key of a study's own run. The key of a configuration's run, which is a child of it, is the config_id."""

Content = bytes | str | Callable[[], bytes]
"""An artifact, or a function that makes it, which is called when the artifact is written."""

Report = tuple[int, Mapping[int, Mapping[str, float]]]
"""Optimizer step, and replicate -> metric -> value there."""


@dataclass
class Page:
    """The wished state of one run.

    status: MLflow's word; complete: whether `metrics` are all that the run is to show, so that others of ours go, which
    are of results that are not there any more; replicates: those of the mean curve, empty for the ones of the first
    report; reports, artifacts: what is still to be written; models: of a study's own page, tells the models that MLflow
    is to hold, None leaves them as they are; digest: a hash of what a finished page shows, None while it is not
    finished.
    The digest is written last, as a tag, so that it says that everything else is there; `sync` compares it.
    """

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    complete: bool = False
    status: str = "RUNNING"
    replicates: tuple[int, ...] = ()
    reports: list[Report] = field(default_factory=list)
    artifacts: dict[str, Content] = field(default_factory=dict)
    models: Callable[[], StudyModels] | None = None
    digest: str | None = None
