"""The runs of a study in an MLflow store: they are found again by tags, and brought to the state of a page.

A study is an experiment. In it are one parent run, and one child run for each configuration. Writing the same page
twice changes nothing. Nothing here starts a thread; `tracker` does.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

from d2l_study.study.mlflow.address import ARTIFACTS, artifact_location, client, is_http, one_line, sqlite_path
from d2l_study.study.mlflow.curve_points import CurvePoints, Point
from d2l_study.study.mlflow.limits import PARAM_LENGTH, TAG_LENGTH, allowed_name, batches, finite_or_nan, short_texts
from d2l_study.study.mlflow.links import experiment_url, run_path
from d2l_study.study.mlflow.notes import NOTE, configuration_note, is_ours
from d2l_study.study.mlflow.notes import STUDY as STUDY_NOTE
from d2l_study.study.mlflow.own_metrics import own_metrics
from d2l_study.study.mlflow.page import PARENT, Page
from d2l_study.study.mlflow.sqlite_points import write_points
from d2l_study.study.mlflow.study_models import StudyModels, write_models
from d2l_study.study.mlflow.tags import (
    CONFIG,
    CURVE_REPLICATES,
    DIGEST,
    KIND,
    STUDY,
    TEACHER,
    TEACHER_RUN,
    runs_of_study,
    tag_filter,
)  # fmt: skip


@dataclass
class StoredRun:
    """The state of one run in MLflow, as far as we know it."""

    run_id: str
    start_time: int
    status: str
    name: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


class StudyRuns:
    """The runs of one study in one store.

    stored: key -> the run, once the store is open; altered: keys of runs to which anything was written; restored:
    whether the experiment had been deleted, from which MLflow brings its runs back too. Every method may raise what
    MLflow raises, and may be called again.
    """

    def __init__(self, uri: str, study: str) -> None:
        self.uri, self.study = uri, study
        self.stored: dict[str, StoredRun] = {}
        self.altered: set[str] = set()
        self.restored = False
        self._curves: dict[str, CurvePoints] = {}  # of runs that have not ended
        self._client: Any = None
        self._experiment = ""

    def open(self) -> None:
        """Find the study's experiment, or make it, and find all its runs. If a run is there twice, because a server
        answered too late, the later one is deleted."""
        self._client = client(self.uri)
        self._experiment = self._open_experiment()
        self.stored = {}
        for run in sorted(runs_of_study(self._client, self._experiment, self.study), key=_age):
            key = PARENT if run.data.tags.get(KIND) == "study" else run.data.tags.get(CONFIG)
            if key is None:
                continue  # a person's own run in the study's experiment
            if key in self.stored:
                self._client.delete_run(run.info.run_id)
                continue
            self.stored[key] = _stored_run(run)

    def _open_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.study)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
            self.restored = True
        path, location = sqlite_path(self.uri), artifact_location(self.uri, self.study)
        if found is None:
            return self._client.create_experiment(self.study, artifact_location=location)
        if path is not None:
            _move_artifacts(path, found.experiment_id, found.artifact_location, self.study)
        return found.experiment_id

    def end_stale_runs(self) -> None:
        """Set runs that a dead driver left RUNNING to KILLED."""
        for stored in self.stored.values():
            if stored.status == "RUNNING":
                self._set_status(stored, "KILLED")

    def delete_runs(self, keys: Iterable[str]) -> int:
        """Delete the runs of these keys; returns how many there were."""
        stored = [self.stored.pop(key) for key in keys if key in self.stored]
        for run in stored:
            self._client.delete_run(run.run_id)
        return len(stored)

    def describe(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment: its kind of page, its note, its table of runs."""
        there = self._client.get_experiment(self._experiment).tags
        for key, value in tags.items():
            if there.get(key) != value:
                self._client.set_experiment_tag(self._experiment, key, value)

    def write(self, key: str, page: Page) -> None:
        """Bring a run to the state of a page, except for artifacts and digest."""
        wished = short_texts({**page.tags, **self._origin(page), NOTE: self._note(key, page)}, TAG_LENGTH)
        stored = self.stored.get(key) or self._create(key, page, wished)
        before = (stored.name, stored.status)
        if not is_ours(stored.tags.get(NOTE, "")):
            del wished[NOTE]
        tags = {k: v for k, v in wished.items() if stored.tags.get(k, "") != v}
        # a parameter cannot be changed in MLflow; the ones of a configuration do not, but their defaults may be added
        params = {k: v for k, v in short_texts(page.params, PARAM_LENGTH).items() if k not in stored.params}
        metrics = {allowed_name(k): finite_or_nan(v) for k, v in page.metrics.items()}
        if page.complete:  # MLflow deletes no metric
            gone = own_metrics(stored.metrics, key == PARENT) - metrics.keys()
            metrics |= dict.fromkeys(sorted(gone), math.nan)
        metrics = {k: v for k, v in metrics.items() if k not in stored.metrics or not _same(stored.metrics[k], v)}
        if page.reports and CURVE_REPLICATES not in stored.tags:
            owners = page.replicates or sorted(page.reports[0][1])
            tags[CURVE_REPLICATES] = ",".join(str(r) for r in owners)
        if page.name != stored.name:
            self._client.update_run(stored.run_id, name=page.name)
            stored.name = page.name
        listed = {**stored.tags, **tags}.get(CURVE_REPLICATES, "") if page.reports else ""
        averaged = {int(replicate) for replicate in listed.split(",") if replicate}
        curves = self._curves.setdefault(key, CurvePoints())
        points = curves.add(page.reports, averaged, page.status != "RUNNING", stored.start_time)
        self._log(stored, [*points, *((k, v, _now(), 0) for k, v in metrics.items())], params, tags)
        stored.metrics.update(metrics)
        if stored.status != page.status:
            self._set_status(stored, page.status)
        if points or metrics or params or tags or before != (stored.name, stored.status):
            self.altered.add(key)
        if page.status != "RUNNING":
            self._curves.pop(key, None)

    def _origin(self, page: Page) -> dict[str, str]:
        """Tags that link a student's run to the run of its first teacher, once that run is there."""
        teacher = self._teacher(page.tags)
        return {TEACHER_RUN: teacher.run_id} if teacher is not None else {}

    def _teacher(self, tags: Mapping[str, str]) -> StoredRun | None:
        key = tags.get(TEACHER, "").split(",")[0]
        return self.stored.get(key) if key else None  # "" is the key of the parent run

    def _note(self, key: str, page: Page) -> str:
        if key == PARENT:
            return STUDY_NOTE
        teacher = self._teacher(page.tags)
        if teacher is None:
            return configuration_note()
        return configuration_note(teacher.name, run_path(self._experiment, teacher.run_id))

    def write_artifacts(self, key: str, page: Page) -> list[str]:
        """Write a page's artifacts, then its digest; returns a line for each artifact that could not be made."""
        stored, problems = self.stored[key], []
        with tempfile.TemporaryDirectory(prefix="d2l-artifacts-") as folder:
            for name, content in page.artifacts.items():
                try:
                    data = content() if callable(content) else content
                except Exception as error:
                    problems.append(f"{page.name}: {name} could not be made: {one_line(error)}")
                    continue
                target = Path(folder) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data.encode() if isinstance(data, str) else data)
            if any(Path(folder).iterdir()):
                self._client.log_artifacts(stored.run_id, folder)
        if page.digest is not None and stored.tags.get(DIGEST) != page.digest:
            self._client.set_tag(stored.run_id, DIGEST, page.digest)
            stored.tags[DIGEST] = page.digest
            self.altered.add(key)
        return problems

    def write_models(self, models: Callable[[], StudyModels]) -> Iterator[str | None]:
        """Bring the models of the study to the wished ones, one after the other; yields a line for each that could not
        be made, and None for the others."""
        runs = {key: stored.run_id for key, stored in self.stored.items() if key != PARENT}
        return write_models(self._client, self._experiment, self.study, runs, models)

    def url(self) -> str | None:
        """The page of the experiment on a tracking server; None for a database."""
        return experiment_url(self.uri, self._experiment) if is_http(self.uri) else None

    def _create(self, key: str, page: Page, wished: Mapping[str, str]) -> StoredRun:
        tags = {**{k: v for k, v in wished.items() if v},
                STUDY: self.study, KIND: "study" if key == PARENT else "configuration",
                "mlflow.source.name": "d2l_study", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}  # fmt: skip
        if key != PARENT:
            tags |= {CONFIG: key, "mlflow.parentRunId": self.stored[PARENT].run_id}
        made = self._made_by_another(key)
        if made is not None:
            return made
        run = self._client.create_run(self._experiment, tags=tags, run_name=page.name)
        info = run.info
        self.stored[key] = StoredRun(info.run_id, info.start_time, info.status, page.name, dict(run.data.tags), {}, {})
        self.altered.add(key)
        return self.stored[key]

    def _made_by_another(self, key: str) -> StoredRun | None:
        """The run of a key, if it was made since the store was opened: by another driver, which took the study over
        while this one still wrote, or by a request of ours that seemed to fail."""
        wanted = tag_filter(KIND, "study") if key == PARENT else tag_filter(CONFIG, key)
        found = self._client.search_runs([self._experiment], wanted, max_results=10)
        ours = sorted((run for run in found if run.data.tags.get(STUDY) == self.study), key=_age)
        if ours:
            self.stored[key] = _stored_run(ours[0])
        return self.stored.get(key)

    def _log(
        self,
        stored: StoredRun,
        metrics: Sequence[Point] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log metrics, params and tags in as few requests as possible: each costs a store several transactions."""
        from mlflow.entities import Metric, Param, RunTag

        distinct, path = list(dict.fromkeys(metrics)), sqlite_path(self.uri)
        if distinct and path is not None and write_points(path, stored.run_id, distinct):
            distinct = []
        parts = (batches(list((tags or {}).items()), 100), batches(list((params or {}).items()), 100),
                 batches(distinct, 1000))  # fmt: skip
        for some_tags, some_params, points in itertools.zip_longest(*parts, fillvalue=()):
            self._client.log_batch(
                stored.run_id, tags=[RunTag(k, v) for k, v in some_tags],
                params=[Param(k, v) for k, v in some_params], metrics=[Metric(*point) for point in points],
            )  # fmt: skip
            stored.tags.update(some_tags)
            stored.params.update(some_params)

    def _set_status(self, stored: StoredRun, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(stored.run_id, status=status)
        else:
            self._client.set_terminated(stored.run_id, status)
        stored.status = status


def _stored_run(run: Any) -> StoredRun:
    return StoredRun(
        run.info.run_id, run.info.start_time, run.info.status, run.info.run_name or "", dict(run.data.tags),
        dict(run.data.params), dict(run.data.metrics),
    )  # fmt: skip


def _age(run: Any) -> tuple[int, str]:
    """An order of runs by age, in which no two are equal."""
    return run.info.start_time, run.info.run_id


def _move_artifacts(store: Path, experiment: str, before: str, name: str) -> None:
    """Change the place of an experiment's artifacts, after the folder with the store was copied or moved.

    The store names artifacts by their old place, where writing would spoil the pages of the first folder, and MLflow
    cannot change the place. A place that a user chose outside of such a folder is left alone."""
    parent, _, folder = before.rpartition("/")
    now = f"{(store.parent / ARTIFACTS).as_uri()}/{folder}"
    ours = (quote(name), quote(quote(name, safe="")))  # the second one of experiments of earlier versions
    if now == before or PurePosixPath(parent).name != ARTIFACTS or unquote(folder) not in map(unquote, ours):
        return
    with contextlib.closing(sqlite3.connect(store, timeout=30)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, int(experiment)))
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (f"{now}/", len(before) + 2, int(experiment), len(before) + 1, f"{before}/"),
        )
        database.execute(
            "UPDATE logged_models SET artifact_location = ? || substr(artifact_location, ?) "
            "WHERE experiment_id = ? AND substr(artifact_location, 1, ?) = ?",
            (f"{now}/", len(before) + 2, int(experiment), len(before) + 1, f"{before}/"),
        )
        database.execute(
            "UPDATE model_versions SET storage_location = ? || substr(storage_location, ?) "
            "WHERE substr(storage_location, 1, ?) = ?",
            (f"{now}/", len(before) + 2, len(before) + 1, f"{before}/"),
        )


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _now() -> int:
    return int(time.time() * 1000)


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
