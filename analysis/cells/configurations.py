"""The configurations among rows of runs, each once, and the runs of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.cells.layout import is_missing
from analysis.cells.setting_columns import OF_STUDENTS
from d2l_study.learning.controls import CONTROL_IDS

if TYPE_CHECKING:
    import pandas

TEACHER_FAILED = "its teacher"
"""How the cause of a run begins that was never started because its teacher failed."""

Run = tuple[str, tuple[float, ...], tuple[str, str] | None]
"""Status, values of the metrics, and the precision and device of a finished run."""


def each_run_once(frame: pandas.DataFrame, by_study: bool = False) -> pandas.DataFrame:
    """A run that two of the studies share, under one name, counts once, or `by_study` once in each; the finished one
    where one is not."""
    keys = ["config_id", "method", "stage", "replicate", *["study"] * by_study]
    return _first_finished(frame, keys) if frame.duplicated(keys).any() else frame


def configurations_of(frame: pandas.DataFrame, label_key: str, by_study: bool = False) -> pandas.DataFrame:
    """One row for each configuration under each of its names, `by_study` in each study."""
    return _first_finished(frame, _identifying_columns(label_key, by_study))


def with_students_of_controls(configurations: pandas.DataFrame, runs: pandas.DataFrame) -> pandas.DataFrame:
    """The configurations with a column `OF_STUDENTS`: of one that students name as a control, such as a matched
    teacher, the arms of these students in order; of others nothing. Without students that name any, as they are."""
    students = runs[runs["stage"] == "student"]
    if "student_method" not in students:
        return configurations
    arms: dict[str, dict[str, None]] = {}
    for column in (name for name in CONTROL_IDS if name in students):
        named = students[[column, "student_method"]].dropna().drop_duplicates()
        for config, arm in zip(named[column], named["student_method"], strict=True):
            arms.setdefault(str(config), {})[str(arm)] = None
    if not arms:
        return configurations
    of = [", ".join(arms[str(config)]) if str(config) in arms else None for config in configurations["config_id"]]
    return configurations.assign(**{OF_STUDENTS: of})


def runs_of(
    frame: pandas.DataFrame, metrics: list[str], label_key: str, by_study: bool = False
) -> list[dict[int, Run]]:
    """For each of the `configurations_of` the frame, in order, its runs by replicate."""
    group = _groups(frame, _identifying_columns(label_key, by_study))
    found: list[dict[int, Run]] = [{} for _ in range(group.max(initial=-1) + 1)]
    columns = [group, frame["replicate"], frame["status"]]
    for i, replicate, status, cause, precision, device, values in zip(
        *(column.tolist() for column in columns),
        *(frame[name].tolist() if name in frame else [None] * len(frame) for name in ("cause", "precision", "device")),
        zip(*(frame[name].astype(float).tolist() for name in metrics), strict=True),
        strict=True,
    ):
        done = status == "done" and not is_missing(precision) and not is_missing(device)
        machine = (str(precision), str(device).split(":")[0]) if done else None
        found[i][int(replicate)] = (_status(status, cause), values, machine)
    return found


def mean_visits(frame: pandas.DataFrame) -> dict[str, float]:
    """config_id -> the mean instance visits of its runs, of those whose rows say so."""
    if "instance_visits" not in frame:
        return {}
    found = frame.dropna(subset="instance_visits").groupby("config_id")["instance_visits"].mean()
    return {str(config): float(mean) for config, mean in found.items()}


def stages_without(frame: pandas.DataFrame, metric: str) -> set[str]:
    """The stages that do not have a metric: their finished runs hold none, while those of another stage do."""
    done = frame["status"] == "done"
    held = frame.loc[done, metric].notna().groupby(frame.loc[done, "stage"]).any()
    return {str(stage) for stage in held.index[~held]} if held.any() else set()


def _identifying_columns(label_key: str, by_study: bool) -> list[str]:
    """What tells one configuration under one of its names from the others."""
    return [*dict.fromkeys(["config_id", "stage", "method", label_key, *["study"] * by_study])]


def _first_finished(frame: pandas.DataFrame, keys: list[str]) -> pandas.DataFrame:
    """For each combination of the keys, in order of appearance, its first finished row: that of a run which is not
    finished lacks what only a run can tell. Without a finished one the first row."""
    group = _groups(frame, keys)
    order = (frame["status"] != "done").to_numpy().argsort(kind="stable")
    _, first = np.unique(group[order], return_index=True)
    return frame.iloc[order[first]]


def _groups(frame: pandas.DataFrame, keys: list[str]) -> np.ndarray:
    """(rows,) the number of each row's combination of the keys, in order of appearance."""
    return frame.groupby(keys, sort=False, dropna=False).ngroup().to_numpy()


def _status(status: Any, cause: Any) -> str:
    """A run's status, with `not run` for one that its teacher's failure left without a start."""
    waited = status == "failed" and str(cause or "").startswith(TEACHER_FAILED)
    return "not run" if waited else str(status)
