"""Which configuration stands in which cell of a table, from the rows of runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from analysis.cells.arm_labels import ArmLabels, arms_labelled
from analysis.cells.bag_source import BagSource, bag_sources
from analysis.cells.configurations import mean_visits, runs_of, stages_without
from analysis.cells.labels_used import labels_by_bags, thinned_datasets, unlabelled_bags
from analysis.cells.layout import LEVEL, METRICS, Cell, CellKey, Label, Layout, Origin, Status, is_missing
from analysis.cells.partitions import DRAWN, Partition, partitions_of
from analysis.cells.setting_columns import is_setting, plain_value
from analysis.rows import stages
from analysis.rows.chosen_snapshots import snapshots_are_chosen
from analysis.rows.display_names import SYMBOLS, Names
from analysis.rows.frame_records import records, without_attrs
from analysis.rows.metrics import Metric, find_metric, level_of, no_metric_error
from analysis.statistics.intervals import mean_interval, unit_count, unit_values
from d2l_study.errors import UserError, counted, listed, nearest
from d2l_study.learning.controls import CONTROL_IDS, OWN_REFERENCES
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS, lacks_instance_labels

if TYPE_CHECKING:
    import pandas


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
    printed = Names.of(rows)
    metrics = _metrics(rows, metric, column_key, printed)
    _check_axes(rows, row_key, column_key, panel_key)
    partitions = _partitions(rows, test_train_ratio)
    if panel_key is not None and rows[panel_key].isna().all():
        panel_key = None  # the default panel, in a study of another kind of bags
    study = str(rows.attrs.get("study") or listed(rows["study"].dropna().unique()))
    if rows.attrs.get("search", {}).get("oracle") or ("search_oracle" in rows and rows["search_oracle"].eq(True).any()):
        notes.append(f"{stages.ORACLE_MARK} {stages.ORACLE_SEARCH_NOTE}")

    axes = [key for key in (row_key, column_key, panel_key) if key is not None and key != METRICS]
    label_key = "method" if "method" in axes else row_key
    labels = arms_labelled(without_attrs(_unpruned(rows, notes)), rows, axes, label_key, notes, printed, by_study)
    frame = labels.runs
    lacking = {one.name: stages_without(frame, one.name) for one in metrics}
    if column_key != METRICS:
        lack = sorted(lacking[metrics[0].name], key=stages.sort_order)
        notes += [f"{stage} has no {metrics[0].title}." for stage in lack]

    visits, sources = mean_visits(frame), bag_sources(frame)
    runs_by_configuration = runs_of(frame, [one.name for one in metrics], label_key, labels.by_study)
    merged: dict[CellKey, tuple[dict[int, Any], Origin]] = {}
    for run, runs in zip(records(labels.configurations), runs_by_configuration, strict=True):
        cell_key = _cell_key(run, labels, row_key, column_key, panel_key, printed)
        merged.setdefault(cell_key, ({}, _origin(run, visits)))[0].update(runs)

    unlabelled = lacks_instance_labels(frame)
    levels = {level_of(one.name) for one in metrics} if column_key == METRICS else set()
    cells: dict[CellKey, Cell] = {}
    for (panel, row, column), (runs, origin) in merged.items():
        partition = partitions.get(origin.config_id, DRAWN)
        hardware = {r: machine for r, (_, _, machine) in runs.items() if machine}
        for i, one in enumerate(metrics):
            by_replicate = {r: (status, values[i]) for r, (status, values, _) in runs.items()}
            where, head = panel, column
            if column_key == METRICS:
                head = Label(METRICS, one.name, names=printed)
                if len(levels) > 1:
                    where = Label(panel.key, panel.value, keys=((LEVEL, level_of(one.name)),), names=printed)
            cell = _cell(by_replicate, one, origin, origin.stage in lacking[one.name], partition, hardware,
                         sources.get(origin.config_id, BagSource()))  # fmt: skip
            if cell.status == "undefined" and unlabelled and level_of(one.name) == "instance":
                cell = replace(cell, status=NO_INSTANCE_LABELS)
            cells[where, row, head] = cell
    if column_key == METRICS:
        cells = _without_empty_rows(cells)

    ordered = [[*dict.fromkeys(cell_key[i] for cell_key in cells)] for i in range(3)]
    panels, row_labels, column_labels = (_sorted(labels_there) for labels_there in ordered)
    if column_key == METRICS:
        column_labels = [Label(METRICS, one.name, names=printed) for one in metrics]
    datasets = [str(name) for name in frame["dataset"].dropna().unique()] if "dataset" in frame else []
    return Layout(
        metrics, study, row_key, column_key, panel_key, row_labels, column_labels, panels, cells, notes, datasets,
        thinned_datasets(frame), printed, labels_by_bags(frame), unlabelled_bags(frame), snapshots_are_chosen(frame),
    )  # fmt: skip


def _metrics(
    rows: pandas.DataFrame, metric: str | Sequence[str] | None, column_key: str, printed: Names
) -> list[Metric]:
    """The metrics that are asked for, each once, with the titles of the study."""
    names = [stages.default_metric(rows)] if metric is None else [metric] if isinstance(metric, str) else [*metric]
    if not any(names):
        raise no_metric_error(",".join(names))
    found = [find_metric(rows, name) for name in dict.fromkeys(names)]
    if len(found) > 1 and column_key != METRICS:
        raise UserError(f"{len(found)} metrics have to be the columns: --columns {METRICS}, found {column_key}")
    return [replace(one, title=printed.texts.get(one.name, one.title)) for one in found]


def _partitions(rows: pandas.DataFrame, test_train_ratio: float | None) -> dict[str, Partition]:
    """`partitions_of`, or a UserError for a ratio that is none or of no folds."""
    if test_train_ratio is not None and not 0 < test_train_ratio < math.inf:
        raise UserError(f"test_train_ratio: {test_train_ratio}: expected a number above 0, for example 0.125")
    partitions = partitions_of(rows, test_train_ratio)
    if test_train_ratio is not None and not any(one.design == "folds" for one in partitions.values()):
        raise UserError(f"--test-train-ratio {test_train_ratio:g}: is of folds, and these replicates are none")
    return partitions


def _unpruned(rows: pandas.DataFrame, notes: list[str]) -> pandas.DataFrame:
    """The rows without those of runs that were ended early, which the notes count; all where every run was."""
    pruned = rows["status"] == "pruned"
    if not pruned.any() or pruned.all():
        return rows
    notes += _pruned_notes(rows, pruned)
    return rows[~pruned]


def _cell_key(
    run: Mapping[str, Any], labels: ArmLabels, row_key: str, column_key: str, panel_key: str | None, printed: Names
) -> CellKey:
    """Where the configuration of a row stands."""
    none = Label(None, None)

    def label(key: str | None) -> Label:
        if key is None or key == METRICS:
            return none
        return labels.label(run) if key == labels.key else Label(key, plain_value(run[key]), names=printed)

    return label(panel_key), label(row_key), label(column_key)


def _origin(run: Mapping[str, Any], visits: Mapping[str, float]) -> Origin:
    """What the configuration of a row is, and which its teacher and controls are. visits: `mean_visits`."""
    config = str(run["config_id"])
    arms = {key: plain_value(run.get(key)) for key in ("teacher_id", "teacher_method", "student_method")}
    named = zip(OWN_REFERENCES, CONTROL_IDS, strict=True)
    controls = {stage: str(run[key]) for stage, key in named if not is_missing(run.get(key))}
    return Origin(config, str(run["stage"]), **arms, control_ids=controls, instance_visits=visits.get(config))


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
    source: BagSource,
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
        without_end=metric.without_end,
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
        source,
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
    return column in rows and is_setting(column) and bool(rows[column].notna().any())


def _sorted(labels: list[Label]) -> list[Label]:
    """By stage; within one numbers in ascending order, names as they first appear; then by the keys."""
    seen = {value: i for i, value in enumerate(dict.fromkeys(label.value for label in labels))}

    def sort_key(label: Label) -> tuple[Any, ...]:
        value = (0, label.value) if isinstance(label.value, int | float) else (1, seen[label.value])
        keys = tuple((k, 0, v, "") if isinstance(v, int | float) else (k, 1, 0, str(v)) for k, v in label.keys)
        return (stages.sort_order(label.value if label.key == "stage" else label.stage), *value, keys)

    return sorted(labels, key=sort_key)
