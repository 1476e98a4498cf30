"""Rows of runs arranged as a table: which configuration stands in which cell, and what its replicates say.

Tables and figures are both drawn from a `Layout`. A cell never mixes configurations: keys that vary within an
arm and have no axis of their own become part of its label, as in `adv (lambda_adv=1)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from analysis import stages
from analysis.intervals import Interval, mean_interval
from analysis.metrics import Metric, describe, find_metric
from d2l_study.errors import UserError, listed, nearest

if TYPE_CHECKING:
    import pandas

SYMBOLS = {"num_bags": "n", "mean_bag_size": "K"}
SYMBOL_MEANINGS = {"num_bags": "n: training bags", "mean_bag_size": "K: mean bag size"}
# Columns that describe a run, not its configuration: they name no cell and lead to no label.
RUN_COLUMNS = frozenset({
    "study", "config_id", "trial_id", "replicate", "repeat", "fold", "teacher_id", "status", "cause", "attempt",
    "device", "precision", "code_version", "best_step", "steps_run", "threads", "made_by", "committed_at", "oracle",
    "instance_threshold",
})  # fmt: skip

TEACHER_FAILED = "its teacher"
"""How the cause of a run begins that was never started because its teacher failed."""

Status = Literal["done", "partial", "failed", "not run", "missing", "undefined", "no such metric", "pruned"]


@dataclass(frozen=True)
class Label:
    """An entry of an axis: its value, then the keys that set it apart from others of the same value."""

    key: str | None
    value: Any
    stage: str | None = None
    keys: tuple[tuple[str, Any], ...] = ()
    names_stage: bool = False
    """The text says the stage too, since the value alone does not tell."""

    @property
    def text(self) -> str:
        parts = [self.stage] if self.stage and self.names_stage else []
        parts += [f"{key}={show(value)}" for key, value in self.keys]
        mark = f" {stages.MARK}" if stages.ORACLE in (self.stage, self.value if self.key == "stage" else None) else ""
        return axis_text(self.key, self.value) + (f" ({', '.join(parts)})" if parts else "") + mark


@dataclass(frozen=True)
class Origin:
    """Which configuration a cell holds, and in a distillation study which arms it comes from."""

    config_id: str
    stage: str
    teacher_id: str | None = None
    """The config_id of the (first) teacher that it learned from."""
    teacher_method: str | None = None
    student_method: str | None = None


@dataclass(frozen=True)
class Cell:
    """One configuration: its replicates' values of the metric, and how many were planned."""

    interval: Interval
    values: Mapping[int, float]
    planned: int
    status: Status
    """`partial`: fewer values than planned; `undefined`: runs are done, but the metric is NaN for all; `not run`: its
    teacher failed; `no such metric`: its stage has none of it, while others have."""
    origin: Origin


@dataclass
class Layout:
    """`cells[panel, row, column]`; a combination that was not planned has no cell."""

    metric: Metric
    study: str
    row_key: str
    column_key: str
    panel_key: str | None
    rows: list[Label]
    columns: list[Label]
    panels: list[Label]
    cells: dict[tuple[Label, Label, Label], Cell]
    notes: list[str] = field(default_factory=list)

    def rows_of(self, panel: Label) -> list[Label]:
        """The rows that have a cell in the panel, in order."""
        return [r for r in self.rows if any((panel, r, c) in self.cells for c in self.columns)]

    def columns_of(self, panel: Label) -> list[Label]:
        return [c for c in self.columns if any((panel, r, c) in self.cells for r in self.rows)]


def arrange(
    rows: pandas.DataFrame,
    metric: str | None = None,
    row_key: str = "method",
    column_key: str = "num_bags",
    panel_key: str | None = "mean_bag_size",
) -> Layout:
    """Arrange the rows of a study (`analysis.load`).

    metric: by default `stages.default_metric`
    UserError for an unknown metric or key, a key used twice, or a table without rows.
    """
    if rows.empty:
        raise UserError(f"study {rows.attrs.get('study', '')!r} has no runs: there is nothing to show")
    metric = metric or stages.default_metric(rows)
    measure = find_metric(rows, metric)
    _check_axes(rows, row_key, column_key, panel_key)
    if panel_key is not None and rows[panel_key].isna().all():
        panel_key = None  # the default panel, in a study of another kind of bags
    study = str(rows.attrs.get("study") or _only(rows["study"]) or "")
    notes: list[str] = []
    pruned = rows["status"] == "pruned"
    if pruned.any():
        notes.append(f"{rows.loc[pruned, 'config_id'].nunique()} pruned configurations are left out.")
    frame = rows[~pruned] if not pruned.all() else rows

    axes = [key for key in (row_key, column_key, panel_key) if key is not None]
    label_key = "method" if "method" in axes else row_key
    others = [key for key in axes if key != label_key]
    extra = _label_keys(frame, rows.attrs.get("varied"), label_key, others, notes)
    staged = "stage" not in axes
    stages_of = frame.groupby(label_key, dropna=False)["stage"].nunique()
    ambiguous = {_plain(value) for value, count in stages_of.items() if count > 1} if staged else set()
    lacking = _stages_without(frame, metric)
    notes += [f"{stage} has no {measure.title}." for stage in sorted(lacking, key=stages.place)]

    named_keys = [key for keys in extra.values() for key in keys]
    described = [key for key in ("cause", "teacher_id", "teacher_method", "student_method") if key in frame]
    columns = [*dict.fromkeys([*axes, "stage", "config_id", *named_keys, "replicate", "status", metric, *described])]
    runs: dict[tuple[Label, Label, Label], dict[int, tuple[str, float]]] = {}
    origins: dict[tuple[Label, Label, Label], Origin] = {}
    for run in frame[columns].to_dict("records"):
        labels = {}
        for key in axes:
            value = _plain(run[key])
            if key != label_key:
                labels[key] = Label(key, value)
                continue
            named = extra[value, _plain(run["stage"])]
            keys = tuple((k, _plain(run[k])) for k in named if not _absent(run[k]))
            labels[key] = Label(key, value, str(run["stage"]) if staged else None, keys, value in ambiguous)
        place = (labels[panel_key] if panel_key else Label(None, None), labels[row_key], labels[column_key])
        runs.setdefault(place, {})[int(run["replicate"])] = (_status(run), float(run[metric]))
        if place not in origins:
            arms = (_plain(run.get(key)) for key in ("teacher_id", "teacher_method", "student_method"))
            origins[place] = Origin(str(run["config_id"]), str(run["stage"]), *arms)
    cells = {
        place: _cell(by_replicate, measure, origins[place], origins[place].stage in lacking)
        for place, by_replicate in runs.items()
    }

    ordered = [[*dict.fromkeys(place[i] for place in cells)] for i in range(3)]
    panels, row_labels, column_labels = (_sorted(labels) for labels in ordered)
    if frame["fold"].notna().any():
        notes.append("Folds of one data set are not independent: the intervals are too narrow.")
    return Layout(measure, study, row_key, column_key, panel_key, row_labels, column_labels, panels, cells, notes)


def axis_text(key: str | None, value: Any) -> str:
    """`n = 50`, `none`, `pooling = attention`; empty without a key."""
    if key is None:
        return ""
    if key == "method":
        return show(value)
    return f"{SYMBOLS.get(key, key)} = {show(value)}"


def show(value: Any) -> str:
    """A value as a person writes it: 50, 0.05, attention; `–` for none."""
    if _absent(value):
        return "–"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def _status(run: Mapping[Any, Any]) -> str:
    """A run's status, with `not run` for one that its teacher's failure left without a start."""
    status = str(run["status"])
    waited = status == "failed" and str(run.get("cause") or "").startswith(TEACHER_FAILED)
    return "not run" if waited else status


def _stages_without(frame: pandas.DataFrame, metric: str) -> set[str]:
    """The stages that do not have a metric: their finished runs hold none, while those of another stage do."""
    done = frame[frame["status"] == "done"]
    held = done[metric].notna().groupby(done["stage"]).any()
    return {str(stage) for stage in held.index[~held]} if held.any() else set()


def _cell(by_replicate: Mapping[int, tuple[str, float]], metric: Metric, origin: Origin, lacking: bool) -> Cell:
    done = {r: value for r, (status, value) in by_replicate.items() if status == "done"}
    values = {r: value for r, value in sorted(done.items()) if not math.isnan(value)}
    states = {status for status, _ in by_replicate.values()}
    status: Status
    if values:
        status = "done" if len(values) == len(by_replicate) else "partial"
    elif lacking:
        status = "no such metric"
    elif done:
        status = "undefined"
    elif "failed" in states:
        status = "failed"
    elif "not run" in states:
        status = "not run"
    else:
        status = "pruned" if states == {"pruned"} else "missing"
    interval = mean_interval(values.values(), unit_interval=metric.unit_interval)
    return Cell(interval, values, len(by_replicate), status, origin)


def _check_axes(rows: pandas.DataFrame, row_key: str, column_key: str, panel_key: str | None) -> None:
    known = [str(c) for c in rows if _is_setting(str(c)) and rows[c].notna().any()]
    given = {"rows": row_key, "columns": column_key, "panel": panel_key}
    for axis, key in given.items():
        if key is None or key in known or (axis == "panel" and key in rows and key in SYMBOLS):
            continue
        hint = f"{nearest(key, known)} (keys: {listed(known, 40)})"
        raise UserError(f"--{axis} {key}: the study has no such key{hint}")
    used = [key for key in given.values() if key is not None]
    for key in used:
        if used.count(key) > 1:
            raise UserError(f"{key} is asked for on two axes: --rows, --columns and --panel have to differ")


def _label_keys(
    frame: pandas.DataFrame, varied: list[str] | None, label_key: str, others: list[str], notes: list[str]
) -> dict[tuple[Any, Any], list[str]]:
    """For each arm (value of the label key, stage) the keys its labels have to name: those that vary within it,
    and whatever else sets apart two configurations that would share a cell."""
    settings = [str(c) for c in frame if _is_setting(str(c)) and c not in (label_key, *others, "stage")]
    if label_key != "method" and "method" in settings:
        settings.sort(key=lambda key: key != "method")
    named = {*(varied or ()), "generation", "dataset", "method"}
    following = {key for key in settings if not _varies(frame, key, others)}
    for key in (k for k in settings if k in named & following and frame[k].nunique() > 1):
        notes.append(f"{key} follows {' and '.join(SYMBOLS.get(k, k) for k in others)}.")

    by_arm: dict[tuple[Any, Any], list[str]] = {}
    for (value, stage), arm in frame.groupby([label_key, "stage"], dropna=False, sort=False):
        keys = [k for k in settings if k in named - following and arm[k].nunique(dropna=False) > 1]
        # What the study does not call varied (rows without that list, two base seeds) is not averaged either.
        for key in [*(k for k in settings if k not in keys), "trial_id"]:
            cell = [*others, *keys]
            mixed = arm[arm.groupby(cell, dropna=False)["config_id"].transform("nunique") > 1]
            if mixed.empty:
                break
            if _varies(mixed, key, cell) and not _varies(mixed, key, ["config_id"]):
                keys.append(key)
        by_arm[_plain(value), _plain(stage)] = keys
    return by_arm


def _is_setting(column: str) -> bool:
    """Whether a column says how a run was configured, and not how it went."""
    return column not in RUN_COLUMNS and describe(column) is None


def _varies(frame: pandas.DataFrame, key: str, within: list[str]) -> bool:
    """Whether the key takes several values (missing is one) where those of `within` are equal."""
    return bool((frame.groupby(within, dropna=False)[key].nunique(dropna=False) > 1).any())


def _sorted(labels: list[Label]) -> list[Label]:
    """By stage; within one numbers in ascending order, names as they first appear; then by the keys."""
    seen = {value: i for i, value in enumerate(dict.fromkeys(label.value for label in labels))}

    def place(label: Label) -> tuple[Any, ...]:
        value = (0, label.value) if isinstance(label.value, int | float) else (1, seen[label.value])
        keys = tuple((k, 0, v, "") if isinstance(v, int | float) else (k, 1, 0, str(v)) for k, v in label.keys)
        return (stages.place(label.value if label.key == "stage" else label.stage), *value, keys)

    return sorted(labels, key=place)


def _plain(value: Any) -> Any:
    """A hashable value in which 50.0, 50 and NumPy's 50 are the same."""
    if _absent(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value if isinstance(value, int | float | str) else str(value)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _only(column: pandas.Series) -> Any:
    values = column.dropna().unique()
    return values[0] if len(values) == 1 else None
