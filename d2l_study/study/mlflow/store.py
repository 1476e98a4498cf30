"""What an MLflow store holds of a study: how its runs are found, and written. `mlflow_address` is where it is.

One experiment per study; in it one parent run and one child run per configuration, found again by tags, so
that writing the same thing twice changes nothing. Nothing here runs in a thread; `tracking` does.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from d2l_study.study.mlflow.address import client, is_http, one_line, page_server, sqlite_path

TAG_LENGTH, PARAM_LENGTH, KEY_LENGTH = 5000, 6000, 250
BATCH_BYTES = 300_000
"""Of metrics, params and tags each, which share a request of at most 1 MB; the other limits of `log_batch` are 1000
metrics, 100 params, 100 tags."""

STUDY, CONFIG, TRIAL, KIND = "d2l.study", "d2l.config_id", "d2l.trial_id", "d2l.kind"
LEFT = "d2l.left"
"""On a study's own run: what is left to run of it, empty if nothing is."""
REPLICATES, REUSED, CAUSE, CONTENT = "d2l.replicates", "d2l.reused_from", "d2l.cause", "d2l.content"
CURVE_REPLICATES = "d2l.curve_replicates"
ROWS, VARIED, ARMS, LABELS = "d2l.rows", "d2l.varied", "d2l.arms", "d2l.labels"
TEACHER, TEACHER_RUN = "d2l.teacher_id", "d2l.teacher_run"
PARENT = ""
"""The key of the parent run; a child's key is its config_id."""

Content = bytes | str | Callable[[], bytes]
"""An artifact, or how to make it; a callable is called when it is written, so that waiting costs no memory."""


# ---- what a run is to show
@dataclass
class Page:
    """The wished state of one run. `reports` and `artifacts` are what is still to be written."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    status: str = "RUNNING"
    replicates: tuple[int, ...] = ()
    """Those of the mean curve; without them, the ones of the first report."""
    reports: list[tuple[int, Mapping[int, Mapping[str, float]]]] = field(default_factory=list)
    artifacts: dict[str, Content] = field(default_factory=dict)
    seal: str | None = None
    """Written as the last tag of all, when everything else is there; `sync` compares it."""


@dataclass
class Known:
    """What MLflow holds of one run, as far as we know."""

    run_id: str
    start_time: int
    status: str
    name: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]


class StudyRuns:
    """The runs of one study in one store. Every method may raise what MLflow raises; each may be called again."""

    def __init__(self, uri: str, study: str) -> None:
        self.uri, self.study = uri, study
        self.known: dict[str, Known] = {}
        self._curves: dict[str, dict[int, dict[int, Mapping[str, float]]]] = {}  # run -> step -> replicate -> values
        self._client: Any = None
        self._experiment = ""

    def open(self) -> None:
        """Find or make the experiment and find all runs of the study; of runs that are there twice (a server that
        answered too late), the first stays."""
        self._client = client(self.uri)
        self._experiment = self._open_experiment()
        self.known = {}
        found = (run for run in self._search() if run.data.tags.get(STUDY) == self.study)
        for run in sorted(found, key=_age):
            key = PARENT if run.data.tags.get(KIND) == "study" else run.data.tags.get(CONFIG)
            if key is None:
                continue  # a person's own run in the study's experiment
            if key in self.known:
                self._client.delete_run(run.info.run_id)
                continue
            self.known[key] = _known(run)

    def _open_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self.study)
        if found is not None and found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        path = sqlite_path(self.uri)  # MLflow's own default would be a folder under the working directory
        location = (path.parent / "mlartifacts" / quote(self.study, safe="")).as_uri() if path else None
        if found is None:
            return self._client.create_experiment(self.study, artifact_location=location)
        if path is not None and location is not None and found.artifact_location != location:
            _move_artifacts(path, found.experiment_id, found.artifact_location, location)
        return found.experiment_id

    def _search(self) -> Iterator[Any]:
        token = None
        wanted = tag_filter(STUDY, self.study)
        while True:
            page = self._client.search_runs([self._experiment], wanted, max_results=500, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def mend_stale(self, keep: Iterable[str] = ()) -> None:
        """End the runs that a driver which died left RUNNING, except those in `keep`."""
        alive = set(keep)
        for key, known in self.known.items():
            if known.status == "RUNNING" and key not in alive:
                self._set_status(known, "KILLED")

    def forget(self, keys: Iterable[str]) -> int:
        """Delete the runs of these keys, as far as they are there; returns how many were."""
        known = [self.known.pop(key) for key in keys if key in self.known]
        for run in known:
            self._client.delete_run(run.run_id)
        return len(known)

    def describe(self, tags: Mapping[str, str]) -> None:
        """Tags of the experiment: what kind of page MLflow makes of it, its note, its table of runs."""
        there = self._client.get_experiment(self._experiment).tags
        for key, value in tags.items():
            if there.get(key) != value:
                self._client.set_experiment_tag(self._experiment, key, value)

    def write(self, key: str, page: Page) -> None:
        """Bring a run to a page's state, artifacts and seal excepted."""
        wished = _texts({**page.tags, **self._origin(page)}, TAG_LENGTH)
        known = self.known.get(key) or self._create(key, page, wished)
        tags = {k: v for k, v in wished.items() if known.tags.get(k, "") != v}
        # a parameter cannot be changed in MLflow; the ones of a configuration do not, but their defaults may be added
        params = {k: v for k, v in _texts(page.params, PARAM_LENGTH).items() if k not in known.params}
        metrics = {_name(k): _finite(v) for k, v in page.metrics.items()}
        metrics = {k: v for k, v in metrics.items() if k not in known.metrics or not _same(known.metrics[k], v)}
        if page.reports and CURVE_REPLICATES not in known.tags:
            owners = page.replicates or sorted(page.reports[0][1])
            tags[CURVE_REPLICATES] = ",".join(str(r) for r in owners)
        if page.name != known.name:
            self._client.update_run(known.run_id, name=page.name)
            known.name = page.name
        points = self._points(key, known, page, {**known.tags, **tags}.get(CURVE_REPLICATES, ""))
        self._log(known, [*points, *((k, v, _now(), 0) for k, v in metrics.items())], params, tags)
        known.metrics.update(metrics)
        if known.status != page.status:
            self._set_status(known, page.status)
        if page.status != "RUNNING":
            self._curves.pop(key, None)

    def _origin(self, page: Page) -> dict[str, str]:
        """Tags that lead from a student's run to that of its (first) teacher, once that one is there."""
        key = page.tags.get(TEACHER, "").split(",")[0]
        teacher = self.known.get(key) if key else None  # "" is the key of the parent run
        if teacher is None:
            return {}
        link = run_path(self._experiment, teacher.run_id)
        return {TEACHER_RUN: teacher.run_id, "mlflow.note.content": f"Learned from [{teacher.name}]({link})."}

    def write_artifacts(self, key: str, page: Page) -> list[str]:
        """Write a page's artifacts, then its seal; returns a line for each artifact that could not be made."""
        known, problems = self.known[key], []
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
                self._client.log_artifacts(known.run_id, folder)
        if page.seal is not None and known.tags.get(CONTENT) != page.seal:
            self._client.set_tag(known.run_id, CONTENT, page.seal)
            known.tags[CONTENT] = page.seal
        return problems

    def url(self) -> str | None:
        """The page of the experiment on a tracking server; None for a database."""
        return experiment_url(self.uri, self._experiment) if is_http(self.uri) else None

    def _create(self, key: str, page: Page, wished: Mapping[str, str]) -> Known:
        tags = {**{k: v for k, v in wished.items() if v},
                STUDY: self.study, KIND: "study" if key == PARENT else "configuration",
                "mlflow.source.name": "d2l_study", "mlflow.source.type": "LOCAL", "mlflow.user": _user()}  # fmt: skip
        if key != PARENT:
            tags |= {CONFIG: key, "mlflow.parentRunId": self.known[PARENT].run_id}
        made = self._made_by_another(key)
        if made is not None:
            return made
        run = self._client.create_run(self._experiment, tags=tags, run_name=page.name)
        info = run.info
        self.known[key] = Known(info.run_id, info.start_time, info.status, page.name, dict(run.data.tags), {}, {})
        return self.known[key]

    def _made_by_another(self, key: str) -> Known | None:
        """The run of a key that somebody has made since the store was opened: of two drivers, where one took a study up
        that the other had not lost yet, or of a request that failed and was carried out all the same."""
        wanted = tag_filter(KIND, "study") if key == PARENT else tag_filter(CONFIG, key)
        found = self._client.search_runs([self._experiment], wanted, max_results=10)
        ours = sorted((run for run in found if run.data.tags.get(STUDY) == self.study), key=_age)
        if ours:
            self.known[key] = _known(ours[0])
        return self.known.get(key)

    def _points(self, key: str, known: Known, page: Page, averaged: str) -> list[tuple[str, float, int, int]]:
        """The metrics of a page's reports: each replicate's curve, and the mean of the curves.

        The mean at a step comes when all replicates of the curve (`averaged`, as its tag names them) have reported
        it or stopped before, at the latest when the run ends. The replicates of the mean stay those it began with:
        MLflow cannot take points back, and a second mean at the same steps would draw a zigzag. The time of a point
        follows from its step, so that a point written twice is the same point to the store.
        """
        owners = {int(r) for r in averaged.split(",")} if page.reports else set()
        so_far = self._curves.setdefault(key, {})
        points, touched = [], set()
        for step, values in page.reports:
            for replicate, metrics in values.items():
                own = int(metrics.get("step", step))
                named = {name: value for name, value in metrics.items() if name != "step"}
                for name, value in named.items():
                    point = (_name(f"curve/{name}/r{replicate:03d}"), _finite(value), known.start_time + own, own)
                    points.append(point)
                if replicate in owners:
                    so_far.setdefault(step, {})[replicate] = named if own == step else {}
                    touched.add(step)
        ended = page.status != "RUNNING"
        for step in sorted(so_far) if ended else sorted(touched):
            if ended or owners <= so_far[step].keys():
                together: dict[str, list[float]] = {}
                for reported in so_far[step].values():
                    for name, value in reported.items():
                        together.setdefault(name, []).append(value)
                for name, found in together.items():
                    finite = [v for v in found if math.isfinite(v)]
                    if finite:
                        mean = math.fsum(finite) / len(finite)
                        points.append((_name(f"curve/{name}"), mean, known.start_time + step, step))
        return points

    def _log(
        self,
        known: Known,
        metrics: Sequence[tuple[str, float, int, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """In as few requests as their limits allow: each costs a store several transactions."""
        from mlflow.entities import Metric, Param, RunTag

        parts = (_chunks(list((tags or {}).items()), 100), _chunks(list((params or {}).items()), 100),
                 _chunks(list(dict.fromkeys(metrics)), 1000))  # fmt: skip
        for some_tags, some_params, points in itertools.zip_longest(*parts, fillvalue=()):
            self._client.log_batch(
                known.run_id, tags=[RunTag(k, v) for k, v in some_tags],
                params=[Param(k, v) for k, v in some_params], metrics=[Metric(*point) for point in points],
            )  # fmt: skip
            known.tags.update(some_tags)
            known.params.update(some_params)

    def _set_status(self, known: Known, status: str) -> None:
        if status == "RUNNING":
            self._client.update_run(known.run_id, status=status)
        else:
            self._client.set_terminated(known.run_id, status)
        known.status = status


def _known(run: Any) -> Known:
    return Known(
        run.info.run_id, run.info.start_time, run.info.status, run.info.run_name or "", dict(run.data.tags),
        dict(run.data.params), dict(run.data.metrics),
    )  # fmt: skip


def _age(run: Any) -> tuple[int, str]:
    """By which of two runs of the same everybody takes the same for the first."""
    return run.info.start_time, run.info.run_id


def tag_filter(tag: str, value: str) -> str:
    """A filter for the runs that have this value of a tag; all runs, for a value that MLflow's filters cannot hold."""
    sign = next((s for s in "'\"" if s not in value), None)
    return "" if sign is None or not value.isprintable() else f"tags.`{tag}` = {sign}{value}{sign}"


TRAINING = "workflowType=machine_learning"
"""MLflow's mode for training; without it a page opens among those about language models."""


def run_path(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """The page of a run, or of one of its artifacts, behind the address of a server."""
    shown = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{shown}?{TRAINING}"


def experiment_url(server: str, experiment_id: str) -> str:
    """The page of an experiment with the table that `table_view` describes, in MLflow's mode for training (its
    first page would otherwise be about language models)."""
    return f"{page_server(server)}/#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&{TRAINING}"


VIEW = "d2l"


def table_view(params: Sequence[str], metrics: Sequence[str], order_by: str) -> dict[str, str]:
    """Tags of an experiment that make MLflow's page of it a table with these columns, best first.

    The columns are a shared view of the MLflow UI (`?viewStateShareKey=d2l`): a tag with its JSON state. An older
    or newer UI that does not know it shows its usual page.
    """
    columns = [f"params.`{p}`" for p in params] + [f"metrics.`{m}`" for m in metrics] + [f"tags.`{REPLICATES}`"]
    state = {
        "searchFilter": "", "orderByKey": f"metrics.`{order_by}`", "orderByAsc": False, "startTime": "ALL",
        "lifecycleFilter": "Active", "selectedColumns": columns,
    }  # fmt: skip
    return {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(state),
    }


def _move_artifacts(store: Path, experiment: str, before: str, now: str) -> None:
    """A folder that holds a store and its artifacts was copied or moved, and the store names them by where they were:
    written there, they would spoil the pages of the first one. MLflow itself cannot change the place. One that
    somebody chose outside such a folder is left alone."""
    if PurePosixPath(before).parts[-2:] != PurePosixPath(now).parts[-2:]:
        return
    with contextlib.closing(sqlite3.connect(store, timeout=30)) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (now, int(experiment)))
        database.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (f"{now}/", len(before) + 2, int(experiment), len(before) + 1, f"{before}/"),
        )


def _texts(values: Mapping[str, Any], most: int) -> dict[str, str]:
    return {_name(k): str(v)[:most] for k, v in values.items() if v is not None}


def _name(key: str) -> str:
    """MLflow's alphabet for the names of metrics, params and tags."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:KEY_LENGTH]


def _finite(value: float) -> float:
    """MLflow stores infinity as 1.8e308, which no axis survives: not a number is what a chart can show."""
    value = float(value)
    return value if math.isfinite(value) else math.nan


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


def _chunks(items: list[Any], most: int) -> Iterator[list[Any]]:
    """Parts of at most `most` items and `BATCH_BYTES` bytes."""
    part: list[Any] = []
    size = 0
    for item in items:
        length = 60 + sum(len(str(x).encode()) for x in item)
        if part and (len(part) == most or size + length > BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(item)
        size += length
    if part:
        yield part
