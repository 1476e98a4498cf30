"""Which configuration stands in which cell of a table, from the rows of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cells.column_codes import Codes
from analysis.cells.labels_used import labels_by_bags, unlabelled_bags
from analysis.cells.layout import LEVEL, METRICS, Cell, CellKey, Label, Layout, Origin, Status, is_missing
from analysis.cells.partitions import DRAWN, Partition, partitions_of
from analysis.rows import stages
from analysis.rows.chosen_snapshots import snapshots_are_chosen
from analysis.rows.display_names import BY_STUDY, SYMBOLS, Names
from analysis.rows.frame_records import records, without_attrs
from analysis.rows.metrics import Metric, find_metric, level_of, metric_of_column, no_metric_error
from analysis.statistics.intervals import mean_interval, unit_count, unit_values
from d2l_study.errors import UserError, counted, listed, nearest
from d2l_study.learning.controls import CONTROL_IDS, OWN_REFERENCES
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS, lacks_instance_labels
from d2l_study.study.space.training_length import FOLLOW_STEPS

if TYPE_CHECKING:
    import pandas

# Columns that describe a run, not its configuration: they name no cell and lead to no label.
RUN_COLUMNS = frozenset({
    "study", "config_id", "trial_id", "replicate", "repeat", "fold", "teacher_id", "status", "cause", "attempt",
    "device", "precision", "code_version", "best_step", "steps_run", "threads", "made_by", "committed_at", "oracle",
    "search_oracle", "instance_threshold", "instance_bias", "host", "warning", "replaces", "replaces_difference",
    "partition", "fold_count", "test_set", "train_bags", "test_bags", "train_instances", "val_instances",
    "test_instances", *CONTROL_IDS, "instance_visits", "labels_used",
})  # fmt: skip

TEACHER_FAILED = "its teacher"
"""How the cause of a run begins that was never started because its teacher failed."""


def arrange(
    rows: pandas.DataFrame,
    metric: str | Sequence[str] | None = None,
    row_key: str = "method",
    column_key: str = "num_bags",
    panel_key: str | None = "mean_bag_size",
    *,
    test_train_ratio: float | None = None,
    by_study: bool = False,
) -> Layout:
    """Arrange the rows of one or more studies (`analysis.load`).

    metric: by default `stages.default_metric`; several only where `column_key` is `METRICS`
    test_train_ratio: of the folds of one data set; by default that of the bags that the runs tested and trained on
    by_study: labels name the study, also where nothing else asks for it
    UserError for an unknown metric or key, a key used twice, a table without rows, or a ratio without folds.
    """
    if rows.empty:
        raise UserError(f"study {rows.attrs.get('study', '')!r} has no runs: there is nothing to show")
    notes = stages.part_teacher_notes(rows)
    rows = stages.without_part_teachers(rows)
    names = [stages.default_metric(rows)] if metric is None else [metric] if isinstance(metric, str) else [*metric]
    if not any(names):
        raise no_metric_error(",".join(names))
    printed = Names.of(rows)
    measures = [find_metric(rows, name) for name in dict.fromkeys(names)]
    measures = [replace(one, title=printed.texts.get(one.name, one.title)) for one in measures]
    if len(measures) > 1 and column_key != METRICS:
        raise UserError(f"{len(measures)} metrics have to be the columns: --columns {METRICS}, found {column_key}")
    _check_axes(rows, row_key, column_key, panel_key)
    if test_train_ratio is not None and not 0 < test_train_ratio < math.inf:
        raise UserError(f"test_train_ratio: {test_train_ratio}: expected a number above 0, for example 0.125")
    partitions = partitions_of(rows, test_train_ratio)
    if test_train_ratio is not None and not any(one.design == "folds" for one in partitions.values()):
        raise UserError(f"--test-train-ratio {test_train_ratio:g}: is of folds, and these replicates are none")
    if panel_key is not None and rows[panel_key].isna().all():
        panel_key = None  # the default panel, in a study of another kind of bags
    study = str(rows.attrs.get("study") or listed(rows["study"].dropna().unique()))
    if rows.attrs.get("search", {}).get("oracle") or ("search_oracle" in rows and rows["search_oracle"].eq(True).any()):
        notes.append(f"{stages.ORACLE_MARK} {stages.ORACLE_SEARCH_NOTE}")
    pruned = rows["status"] == "pruned"
    if pruned.any() and not pruned.all():
        notes += _pruned_notes(rows, pruned)
    frame = rows[~pruned] if pruned.any() and not pruned.all() else rows
    every_study = without_attrs(frame)
    frame = _each_run_once(every_study)

    axes = [key for key in (row_key, column_key, panel_key) if key is not None and key != METRICS]
    label_key = "method" if "method" in axes else row_key
    others = [key for key in axes if key != label_key]
    configurations = _configurations(frame, label_key)
    names_by_config = _names_by_config(rows, printed)
    extra = _label_keys(configurations, rows.attrs.get("varied"), label_key, others, notes, printed)
    told_apart = any("study" in keys for keys in extra.values())
    by_study = by_study or told_apart or _called_differently(configurations, names_by_config)
    if by_study:
        # Named for all rows alike, and shared runs stand in each study: so a method finds the baseline of its own.
        frame = _each_run_once(every_study, by_study)
        configurations = _configurations(frame, label_key, by_study)
        extra = _label_keys(configurations, rows.attrs.get("varied"), label_key, others, [], printed, by_study=True)
    nullable = _nullable(configurations, label_key, extra)
    staged = "stage" not in axes
    stages_of = configurations.groupby(label_key, dropna=False)["stage"].nunique()
    ambiguous = {_plain(value) for value, count in stages_of.items() if count > 1} if staged else set()
    lacking = {measure.name: _stages_without(frame, measure.name) for measure in measures}
    if column_key != METRICS:
        notes += [f"{stage} has no {measures[0].title}." for stage in sorted(lacking[names[0]], key=stages.sort_order)]

    visits = _mean_visits(frame)
    cell_keys: list[CellKey] = []
    origins: list[Origin] = []
    for run in records(configurations):
        labels = {METRICS: Label(None, None)}
        for key in axes:
            value = _plain(run[key])
            if key != label_key:
                labels[key] = Label(key, value, names=printed)
                continue
            named = extra[value, _plain(run["stage"])]
            arm = value, _plain(run["stage"]), _plain(run.get("study"))
            keys = tuple((k, _plain(run[k])) for k in named if not is_missing(run[k]) or (*arm, k) in nullable)
            own = names_by_config.get(str(run["config_id"]), printed)
            if by_study:
                own = Names.of_studies(rows, [str(run["study"])])
            stage = str(run["stage"]) if staged else None
            labels[key] = Label(key, value, stage, keys, value in ambiguous, own)
        cell_keys.append((labels[panel_key] if panel_key else Label(None, None), labels[row_key], labels[column_key]))
        config = str(run["config_id"])
        arms = {key: _plain(run.get(key)) for key in ("teacher_id", "teacher_method", "student_method")}
        controls_named = zip(OWN_REFERENCES, CONTROL_IDS, strict=True)
        controls = {stage: str(run[key]) for stage, key in controls_named if not is_missing(run.get(key))}
        origins.append(
            Origin(config, str(run["stage"]), **arms, control_ids=controls, instance_visits=visits.get(config))
        )

    unlabelled = lacks_instance_labels(frame)
    by_configuration = _runs(
        frame, configurations, _identity(label_key, by_study), [measure.name for measure in measures]
    )
    levels = {level_of(measure.name) for measure in measures} if column_key == METRICS else set()
    cells: dict[CellKey, Cell] = {}
    merged: dict[CellKey, tuple[dict[int, Any], Origin]] = {}
    for cell_key, origin, runs in zip(cell_keys, origins, by_configuration, strict=True):
        merged.setdefault(cell_key, ({}, origin))[0].update(runs)
    for (panel, row, column), (runs, origin) in merged.items():
        partition = partitions.get(origin.config_id, DRAWN)
        hardware = {r: machine for r, (_, _, machine) in runs.items() if machine}
        for i, measure in enumerate(measures):
            by_replicate = {r: (status, values[i]) for r, (status, values, _) in runs.items()}
            where, head = panel, column
            if column_key == METRICS:
                head = Label(METRICS, measure.name, names=printed)
                if len(levels) > 1:
                    where = Label(panel.key, panel.value, keys=((LEVEL, level_of(measure.name)),), names=printed)
            lacks = origin.stage in lacking[measure.name]
            cell = _cell(by_replicate, measure, origin, lacks, partition, hardware)
            if cell.status == "undefined" and unlabelled and level_of(measure.name) == "instance":
                cell = replace(cell, status=NO_INSTANCE_LABELS)
            cells[where, row, head] = cell
    if column_key == METRICS:
        cells = _without_empty_rows(cells)

    ordered = [[*dict.fromkeys(cell_key[i] for cell_key in cells)] for i in range(3)]
    panels, row_labels, column_labels = (_sorted(labels) for labels in ordered)
    if column_key == METRICS:
        column_labels = [Label(METRICS, measure.name, names=printed) for measure in measures]
    datasets = [str(name) for name in frame["dataset"].dropna().unique()] if "dataset" in frame else []
    return Layout(
        measures, study, row_key, column_key, panel_key, row_labels, column_labels, panels, cells, notes, datasets,
        printed, labels_by_bags(frame), unlabelled_bags(frame), snapshots_are_chosen(frame),
    )  # fmt: skip


def _status(status: Any, cause: Any) -> str:
    """A run's status, with `not run` for one that its teacher's failure left without a start."""
    waited = status == "failed" and str(cause or "").startswith(TEACHER_FAILED)
    return "not run" if waited else str(status)


def _mean_visits(frame: pandas.DataFrame) -> dict[str, float]:
    """config_id -> the mean instance visits of its runs, of those whose rows say so."""
    if "instance_visits" not in frame:
        return {}
    found = frame.dropna(subset="instance_visits").groupby("config_id")["instance_visits"].mean()
    return {str(config): float(mean) for config, mean in found.items()}


def _stages_without(frame: pandas.DataFrame, metric: str) -> set[str]:
    """The stages that do not have a metric: their finished runs hold none, while those of another stage do."""
    done = frame["status"] == "done"
    held = frame.loc[done, metric].notna().groupby(frame.loc[done, "stage"]).any()
    return {str(stage) for stage in held.index[~held]} if held.any() else set()


def _each_run_once(frame: pandas.DataFrame, by_study: bool = False) -> pandas.DataFrame:
    """A run that two of the studies share, under one name, counts once, or `by_study` once in each; the finished one
    where one is not."""
    keys = ["config_id", "method", "stage", "replicate", *["study"] * by_study]
    return _first_finished(frame, keys) if frame.duplicated(keys).any() else frame


def _configurations(frame: pandas.DataFrame, label_key: str, by_study: bool = False) -> pandas.DataFrame:
    """One row for each configuration under each of its names, `by_study` in each study."""
    return _first_finished(frame, _identity(label_key, by_study))


def _identity(label_key: str, by_study: bool) -> list[str]:
    """What tells one configuration under one of its names from the others."""
    return [*dict.fromkeys(["config_id", "stage", "method", label_key, *["study"] * by_study])]


def _groups(frame: pandas.DataFrame, keys: list[str]) -> np.ndarray:
    """(rows,) the number of each row's combination of the keys, in order of appearance."""
    return frame.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()


def _first_finished(frame: pandas.DataFrame, keys: list[str]) -> pandas.DataFrame:
    """For each combination of the keys, in order of appearance, its first finished row: that of a run which is not
    finished lacks what only a run can tell. Without a finished one the first row."""
    group = _groups(frame, keys)
    order = (frame["status"] != "done").to_numpy().argsort(kind="stable")
    _, first = np.unique(group[order], return_index=True)
    return frame.iloc[order[first]]


_Run = tuple[str, tuple[float, ...], tuple[str, str] | None]
"""Status, values of the metrics, and the precision and device of a finished run."""


def _runs(
    frame: pandas.DataFrame, configurations: pandas.DataFrame, identity: list[str], names: list[str]
) -> list[dict[int, _Run]]:
    """For each of the `_configurations`, in order, its runs by replicate. identity: `_identity`."""
    found: list[dict[int, _Run]] = [{} for _ in range(len(configurations))]
    columns = [_groups(frame, identity), frame["replicate"], frame["status"]]
    for i, replicate, status, cause, precision, device, values in zip(
        *(column.tolist() for column in columns),
        *(frame[name].tolist() if name in frame else [None] * len(frame) for name in ("cause", "precision", "device")),
        zip(*(frame[name].astype(float).tolist() for name in names), strict=True),
        strict=True,
    ):
        done = status == "done" and not is_missing(precision) and not is_missing(device)
        machine = (str(precision), str(device).split(":")[0]) if done else None
        found[i][int(replicate)] = (_status(status, cause), values, machine)
    return found


def _pruned_notes(rows: pandas.DataFrame, pruned: pandas.Series) -> list[str]:
    """What is left out of a table since it was ended early. pruned: whether each row was."""
    configurations = set(rows.loc[pruned, "config_id"])
    partly = len(configurations & set(rows.loc[~pruned, "config_id"]))
    wholly = len(configurations) - partly
    notes = [f"{counted(wholly, 'pruned configuration')} {'is' if wholly == 1 else 'are'} left out."] if wholly else []
    if partly:
        notes.append(f"Of {counted(partly, 'configuration')} some replicates were pruned; the others are in the table.")
    return notes


def _without_empty_rows(cells: dict[CellKey, Cell]) -> dict[CellKey, Cell]:
    """Without the rows of a panel whose stage has none of its metrics."""
    some = {(panel, row) for (panel, row, _), cell in cells.items() if cell.status != "no such metric"}
    return {cell_key: cell for cell_key, cell in cells.items() if cell_key[:2] in some}


def _cell(
    by_replicate: Mapping[int, tuple[str, float]],
    metric: Metric,
    origin: Origin,
    lacking: bool,
    partition: Partition,
    hardware: Mapping[int, tuple[str, str]],
) -> Cell:
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
    interval = mean_interval(
        unit_values(values, partition.units),
        unit_interval=metric.unit_interval,
        test_train_ratio=partition.test_train_ratio,
    )
    return Cell(
        interval,
        values,
        len(by_replicate),
        status,
        origin,
        metric,
        partition,
        unit_count(by_replicate, partition.units),
        hardware,
    )


def _check_axes(rows: pandas.DataFrame, row_key: str, column_key: str, panel_key: str | None) -> None:
    given = {"rows": row_key, "columns": column_key, "panel": panel_key}
    for axis, key in given.items():
        if key is None or _is_known(rows, key) or (axis == "panel" and key in rows and key in SYMBOLS):
            continue
        if axis == "columns" and key == METRICS:
            continue
        known = [str(c) for c in rows if _is_known(rows, str(c))]
        more = [METRICS] if axis == "columns" else []
        hint = f"{nearest(key, [*known, *more])} (keys: {listed(known, 40)}{''.join(f', {name}' for name in more)})"
        raise UserError(f"--{axis} {key}: the study has no such key{hint}")
    used = [key for key in given.values() if key is not None]
    for key in used:
        if used.count(key) > 1:
            raise UserError(f"{key} is asked for on two axes: --rows, --columns and --panel have to differ")


def _is_known(rows: pandas.DataFrame, column: str) -> bool:
    """Whether some row has a value of a setting."""
    return column in rows and _is_setting(column) and bool(rows[column].notna().any())


def _label_keys(
    frame: pandas.DataFrame,
    varied: list[str] | None,
    label_key: str,
    others: list[str],
    notes: list[str],
    names: Names,
    *,
    by_study: bool = False,
) -> dict[tuple[Any, Any], list[str]]:
    """From one row per configuration: for each arm (value of the label key, stage) the keys its labels have to name,
    those that vary within it, and whatever else sets apart two configurations that would share a cell. by_study: the
    study before all else."""
    settings = [str(c) for c in frame if _is_setting(str(c)) and c not in (label_key, *others, "stage")]
    codes = Codes(frame)
    settings = [key for key in settings if codes.vary(key)]
    if label_key != "method" and "method" in settings:
        settings.sort(key=lambda key: key != "method")
    named = {*(varied or ()), "generation", "dataset", "method"}
    following = {key for key in settings if not codes.vary(key, others)}
    for key in (k for k in settings if k in named & following and frame[k].nunique() > 1):
        notes.append(f"{names.key(key)} follows {' and '.join(map(names.key, others))}.")

    telling = sorted(settings, key=lambda key: key in FOLLOW_STEPS)  # these last, since they say less
    by_arm: dict[tuple[Any, Any], list[str]] = {}
    for arm in codes.groups([label_key, "stage"]):
        keys = ["study"] if by_study else []
        keys += [k for k in settings if k in named - following and arm.vary(k)]
        # What the study does not call varied (rows without that list, two base seeds) is not averaged either.
        for key in [k for k in (*telling, "study", "trial_id") if k not in keys]:
            cell = [*others, *keys]
            mixed = arm.where_it_varies("config_id", cell)
            if not mixed.vary("config_id"):
                break
            if mixed.vary(key, cell) and not mixed.vary(key, ["config_id"]):
                keys.append(key)
        first = frame.iloc[arm.rows[0]]
        by_arm[_plain(first[label_key]), _plain(first["stage"])] = keys
    return by_arm


def _nullable(
    frame: pandas.DataFrame, label_key: str, extra: Mapping[tuple[Any, Any], list[str]]
) -> set[tuple[Any, Any, Any, str]]:
    """(value of the label key, stage, study, key) of the keys of labels that some configurations of an arm have, so
    that of its others a missing value is the value null. Rows of another study may lack the key altogether."""
    studies = frame["study"] if "study" in frame else [None] * len(frame)
    found = set()
    for key in dict.fromkeys(key for keys in extra.values() for key in keys):
        for value, stage, study, own in zip(frame[label_key], frame["stage"], studies, frame[key], strict=True):
            if not is_missing(own):
                found.add((_plain(value), _plain(stage), _plain(study), key))
    return found


def _names_by_config(rows: pandas.DataFrame, printed: Names) -> dict[str, Names]:
    """The names for print of each configuration where rows are of several studies: those of the studies it is in."""
    if not rows.attrs.get(BY_STUDY):
        return {}
    pairs = rows[["config_id", "study"]].drop_duplicates().groupby("config_id", sort=False)["study"]
    return {str(config): Names.of_studies(rows, map(str, studies)) for config, studies in pairs}


def _called_differently(configurations: pandas.DataFrame, names: Mapping[str, Names]) -> bool:
    """Whether studies call one arm by two names, or two arms by one."""
    texts: dict[str, str] = {}
    methods: dict[str, str] = {}
    for config, method in zip(configurations["config_id"].astype(str), configurations["method"], strict=True):
        if config in names:
            arm = str(method)
            text = names[config].arm(arm)
            if texts.setdefault(arm, text) != text or methods.setdefault(text, arm) != arm:
                return True
    return False


def _is_setting(column: str) -> bool:
    """Whether a column says how a run was configured, and not how it went."""
    return column not in RUN_COLUMNS and metric_of_column(column) is None


def _sorted(labels: list[Label]) -> list[Label]:
    """By stage; within one numbers in ascending order, names as they first appear; then by the keys."""
    seen = {value: i for i, value in enumerate(dict.fromkeys(label.value for label in labels))}

    def sort_key(label: Label) -> tuple[Any, ...]:
        value = (0, label.value) if isinstance(label.value, int | float) else (1, seen[label.value])
        keys = tuple((k, 0, v, "") if isinstance(v, int | float) else (k, 1, 0, str(v)) for k, v in label.keys)
        return (stages.sort_order(label.value if label.key == "stage" else label.stage), *value, keys)

    return sorted(labels, key=sort_key)


def _plain(value: Any) -> Any:
    """A hashable value in which 50.0, 50 and NumPy's 50 are the same."""
    if is_missing(value):
        return None
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return int(value)
    return value if isinstance(value, int | float | str) else str(value)
