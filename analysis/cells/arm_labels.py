"""The labels of the arms of a table, and what each has to name: settings that tell its cells apart, and the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.cells.column_codes import Codes
from analysis.cells.configurations import configurations_of, each_run_once, with_students_of_controls
from analysis.cells.layout import Label, is_missing
from analysis.cells.setting_columns import OF_STUDENTS, is_setting, plain_value
from analysis.rows.display_names import BY_STUDY, Names
from analysis.rows.repeated_runs import unlike_rows
from d2l_study.errors import UserError
from d2l_study.study.space.training_length import FOLLOW_STEPS

if TYPE_CHECKING:
    import pandas

ALL_IF_NULL = "num_bags"
"""The key of which null is a value where bags are given; of drawn bags nothing is known without it."""
TRAINED_ON = (ALL_IF_NULL, "label_noise")
"""Keys of the training bags alone. An arm may have a value of its own, and is compared with arms of others."""


@dataclass(frozen=True)
class ArmLabels:
    """The labels of the arms of one table."""

    key: str
    """The column whose values name the arms: `method`, or the key of the rows."""
    by_study: bool
    """Whether labels name the study."""
    runs: pandas.DataFrame
    """The runs, each once (`each_run_once`)."""
    configurations: pandas.DataFrame
    """One row for each of their configurations (`configurations_of`)."""
    _keys: Mapping[tuple[Any, Any], list[str]]
    _nullable: set[tuple[Any, Any, Any, str]]
    _ambiguous: set[Any]
    _trained: list[str]
    _staged: bool
    _rows: pandas.DataFrame
    _names: Mapping[str, Names]
    _printed: Names

    def label(self, run: Mapping[str, Any]) -> Label:
        """The label of the arm to which a row of the configurations belongs."""
        value, stage = plain_value(run[self.key]), plain_value(run["stage"])
        arm = value, stage, plain_value(run.get("study"))
        keys = tuple(
            (key, plain_value(run[key]))
            for key in self._keys[value, stage]
            if not is_missing(run[key]) or (*arm, key) in self._nullable or self._trains_on_all(run, key)
        )
        names = self._names.get(str(run["config_id"]), self._printed)
        if self.by_study:
            names = Names.of_studies(self._rows, [str(run["study"])])
        shown = str(run["stage"]) if self._staged else None
        return Label(self.key, value, shown, keys, value in self._ambiguous, names)

    def _trains_on_all(self, run: Mapping[str, Any], key: str) -> bool:
        """Whether the key is the number of training bags, which others beside it name, and null of given bags."""
        return key == ALL_IF_NULL and key in self._trained and not is_missing(run.get("fold"))


def arms_labelled(
    frame: pandas.DataFrame,
    rows: pandas.DataFrame,
    axes: list[str],
    key: str,
    notes: list[str],
    printed: Names,
    by_study: bool = False,
) -> ArmLabels:
    """The labels of the arms among the runs of a frame. Which of their settings follow the axes is added to the notes.

    rows: all rows, with what they say of their studies
    axes: the keys of rows, columns and panels
    key: that of the axes whose values name the arms
    by_study: labels name the study, also where nothing else asks for it
    UserError where a study has unlike rows of one run.
    """
    if unlike_rows(frame) is not None:
        if within := unlike_rows(frame, by_study=True):
            study = frame["study"].iloc[within.places[0]] if "study" in frame else rows.attrs.get("study", "")
            raise UserError(f"study {str(study)!r}: run {within.run} has two rows that differ ({within.text}); "
                            "expected one row for each run")  # fmt: skip
        by_study = True
        notes.append("Studies have different results of the same runs, so each stands by itself.")
    others = [axis for axis in axes if axis != key]
    varied = rows.attrs.get("varied")
    runs = each_run_once(frame)
    configurations = with_students_of_controls(configurations_of(runs, key), runs)
    names = _names_by_configuration(rows, printed)
    trained = _training_keys(configurations, others) if key == "method" else []
    keys = _label_keys(configurations, varied, key, others, notes, printed, trained)
    told_apart = any("study" in own for own in keys.values())
    by_study = by_study or told_apart or _called_differently(configurations, names)
    if by_study:
        # Named for all rows alike, and shared runs stand in each study: so a method finds the baseline of its own.
        runs = each_run_once(frame, by_study)
        configurations = with_students_of_controls(configurations_of(runs, key, by_study), runs)
        trained = _training_keys(configurations, [*others, "study"]) if key == "method" else []
        keys = _label_keys(configurations, varied, key, others, [], printed, trained, by_study=True)
    staged = "stage" not in axes
    stages = configurations.groupby(key, dropna=False)["stage"].nunique()
    ambiguous = {plain_value(value) for value, count in stages.items() if count > 1} if staged else set()
    nullable = _nullable_keys(configurations, key, keys)
    return ArmLabels(
        key, by_study, runs, configurations, keys, nullable, ambiguous, trained, staged, rows, names, printed
    )


def _training_keys(frame: pandas.DataFrame, others: list[str]) -> list[str]:
    """Of `TRAINED_ON` those that arms beside each other differ in, so that the labels of all have to name them. frame:
    a row per configuration; others: the keys that have an axis, or whose values are not compared with each other."""
    within = [*dict.fromkeys([*others, *["dataset"] * ("dataset" in frame)])]
    found: list[str] = []
    for key in (name for name in TRAINED_ON if name in frame and name not in others):
        known = frame[key].notna()
        if key == ALL_IF_NULL and "fold" in frame:
            known |= frame["fold"].notna()
        if Codes(frame[known]).vary(key, [*within, *found]):
            found.append(key)
    return found


def _label_keys(
    frame: pandas.DataFrame,
    varied: list[str] | None,
    label_key: str,
    others: list[str],
    notes: list[str],
    names: Names,
    trained: list[str],
    *,
    by_study: bool = False,
) -> dict[tuple[Any, Any], list[str]]:
    """From one row per configuration: for each arm (value of the label key, stage) the keys its labels have to name,
    those that vary within it, and whatever else sets apart two configurations that would share a cell. trained: keys of
    every label; by_study: the study before all else."""
    settings = [str(c) for c in frame if is_setting(str(c)) and c not in (label_key, *others, "stage")]
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
        keys += [k for k in settings if k in trained or (k in named - following and arm.vary(k))]
        # What the study does not call varied (rows without that list, two base seeds) is not averaged either.
        for key in [k for k in (*telling, "study", "trial_id") if k not in keys]:
            cell = [*others, *keys]
            mixed = arm.where_it_varies("config_id", cell)
            if not mixed.vary("config_id"):
                break
            if mixed.vary(key, cell) and not mixed.vary(key, ["config_id"]):
                keys.append(key)
        # A control's steps follow from its student's, and may differ along an axis: then it is told by its students.
        told = [*(key for key in keys if key in named or key in ("study", *trained)), OF_STUDENTS]
        if OF_STUDENTS in frame and arm.vary(OF_STUDENTS) and not arm.vary("config_id", [*others, *told]):
            keys = told if arm.combinations(told) < arm.combinations(keys) else keys
        first = frame.iloc[arm.rows[0]]
        by_arm[plain_value(first[label_key]), plain_value(first["stage"])] = keys
    return by_arm


def _nullable_keys(
    frame: pandas.DataFrame, label_key: str, extra: Mapping[tuple[Any, Any], list[str]]
) -> set[tuple[Any, Any, Any, str]]:
    """(value of the label key, stage, study, key) of the keys of labels that some configurations of an arm have, so
    that of its others a missing value is the value null. Rows of another study may lack the key altogether."""
    studies = frame["study"] if "study" in frame else [None] * len(frame)
    found = set()
    for key in dict.fromkeys(key for keys in extra.values() for key in keys):
        for value, stage, study, own in zip(frame[label_key], frame["stage"], studies, frame[key], strict=True):
            if not is_missing(own):
                found.add((plain_value(value), plain_value(stage), plain_value(study), key))
    return found


def _names_by_configuration(rows: pandas.DataFrame, printed: Names) -> dict[str, Names]:
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
