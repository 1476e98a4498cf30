"""The tags of runs in MLflow. Runs are found again by them, and they hold what MLflow has no other place for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

STUDY, CONFIG, TRIAL = "d2l.study", "d2l.config_id", "d2l.trial_id"
KIND = "d2l.kind"
"""`study` on a study's own run, `configuration` on its children."""

LEFT = "d2l.left"
"""On a study's own run: how many runs are left to do, empty if none."""

REPLICATES, CAUSE = "d2l.replicates", "d2l.cause"
"""Of a configuration: how many replicates are done ("4 of 5"), and why one failed."""

REUSED = "d2l.reused_from"
"""The other studies that trained these runs."""

DIGEST = "d2l.content"
"""The digest of a page (`Page.digest`): everything that it shows has been written."""

CURVE_REPLICATES = "d2l.curve_replicates"
"""The replicates of the mean curve."""

ROWS, VARIED, ARMS, LABELS = "d2l.rows", "d2l.varied", "d2l.arms", "d2l.labels"
"""What rows say besides params and metrics (`configuration_page.row_facts`), the keys that vary, and on a study's own
run its arms and the names in print."""

TEACHER, TEACHER_RUN = "d2l.teacher_id", "d2l.teacher_run"
"""Of a student: the config_ids of its teachers, and the MLflow run of the first."""

REPLICATE, MADE_FROM, WEIGHTS_DIGEST, SEEN = "d2l.replicate", "d2l.made_from", "d2l.model_sha256", "d2l.trained_on"
"""Of a model: its replicate; what it was made from (`ModelContent.made_from`); the digest of its parameters' file;
"known" if its card marks the bags that it has seen."""


def runs_of_study(store: Any, experiment_id: str, study: str) -> Iterator[Any]:
    """All runs of a study in an experiment, page by page. store: an `MlflowClient`."""
    wanted, token = tag_filter(STUDY, study), None
    while True:
        page = store.search_runs([experiment_id], wanted, max_results=500, page_token=token)
        yield from (run for run in page if run.data.tags.get(STUDY) == study)
        token = page.token
        if not token:
            return


def tag_filter(tag: str, value: str) -> str:
    """A filter of MLflow for runs with this value of a tag; empty, which finds all runs, if MLflow's filters cannot
    hold the value."""
    sign = next((s for s in "'\"" if s not in value), None)
    return "" if sign is None or not value.isprintable() else f"tags.`{tag}` = {sign}{value}{sign}"
