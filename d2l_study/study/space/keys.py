"""The keys that a space may have: those of its sections, of its arms, and of the study."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from d2l_study.command_line import command_text
from d2l_study.data import DATASETS
from d2l_study.errors import UserError, hint_text, listed, nearest_name, short
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.controls import CONTROLS
from d2l_study.learning.part_config import PART_TEACHER
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import Options, field_of, option
from d2l_study.study.space.distributions import Distribution

SECTIONS: dict[str, type[Options] | None] = {"data": None, "teacher": TeacherConfig, "student": StudentConfig}
"""The sections of a configuration in order. That of `data` depends on the data set (`DATASETS`); only a space of
students has `student`."""

ARM_GROUPS = ("teachers", "methods")
"""The keys under which arms are named: `methods`, and in a space of students also `teachers`."""

CLASS_MAPS = ("cam", "peak")
"""The reference rows that read whole images, which not every data set has."""

TEACHER_READINGS = ("pooled", "smoothed", "attention")
"""The reference rows that train nothing, but read a trained teacher in another way."""

REFERENCES = (*CONTROLS, "pooled", "smoothed", "no_teacher", "bag_label", "attention", *CLASS_MAPS, "oracle")
"""The reference rows that a space of students may ask for (`references`), each a stage of its plan."""

TEACHING = ("teacher", PART_TEACHER)
"""The stages that teach students, and are trained before them."""

STACKED = (*TEACHING, "matched")
"""Stages whose runs can be trained as one stack (`learning.packed`); those of the others take turns."""

WITHOUT_WEIGHTS = (*TEACHER_READINGS, *CLASS_MAPS)
"""Stages that leave no instance classifier: nothing to store."""

WITH_SCORE_MAPS = ("teacher", "student", "matched", *CLASS_MAPS)
"""Stages whose runs hold score maps of test images, where there are images."""

DEFAULT_DATASET = "mnist"
MOST_CONFIGURATIONS = 10_000
MOST_MEMBERS = 50_000
"""Teachers in the ensembles of all students; a teacher counts once for each student that it teaches."""
MOST_BYTES = 1_000_000
MOST_LISTED = 20
"""Keys that a message lists whole."""
_ALIKE = 0.7
"""The likeness from which an unknown key is taken for another."""

TABLE_METRICS = ("bag_auc", "instance_auc", "val_bag_auc", "val_bag_nll")
"""What the table at the end of `run` may show; a study that chooses settings shows validation figures."""


@dataclass(frozen=True)
class StudyOptions(Options):
    """The keys at the top level of a space."""

    description: str = option("", "what the study asks, in one line")
    replicates: int = option(5, "replicates of each configuration: new bags, new initialisation", least=1, most=1000)
    base_seed: int = option(1, "seed from which every stream of every replicate is derived", least=0, most=2**53)
    keep_weights: str = option("best", "weights that stay: all, none, or of each arm's best on validation",
                               choices=("all", "best", "none"), scientific=False)  # fmt: skip
    metric: str | None = option(
        None, "metric of the table that `run` prints; null: instance_auc with students, else bag_auc",
        choices=TABLE_METRICS, scientific=False,
    )  # fmt: skip
    log_images: bool | None = option(
        None, "whether pictures of instances and images go to MLflow; null: unless the data set is a manifest",
        scientific=False,
    )  # fmt: skip
    recipe: str = option(
        "defaults", "values of teacher and student where the space gives none: defaults, those of keys; robust: "
        "He's weights, classes by turns, augmentation, 4 bags a step for 24 epochs, warm-up and decay, the averaged "
        "last weights (`d2l keys recipe` names each)", choices=("defaults", "robust"),
    )  # fmt: skip
    schedule: str = option(
        "none", "whether trials that fall behind on validation AUC are ended early: by successive halving, by the "
        "median of the others, or not", choices=("asha", "median", "none"), scientific=False,
    )  # fmt: skip


def section_class(section: str, dataset: Any = None) -> type[Options]:
    """The option class of a section; for `data` that of the data set."""
    return SECTIONS[section] or DATASETS[dataset or DEFAULT_DATASET]


def dataset_defaults(section: str, dataset: Any = None) -> dict[str, Any]:
    """The defaults of a section's keys that differ with this data set (`SECTION_DEFAULTS` of its class): a network of
    images is none for vectors, for example."""
    cls = DATASETS[dataset or DEFAULT_DATASET]
    return dict(getattr(cls, "SECTION_DEFAULTS", {}).get(section, {}))


def has_key(cls: type[Options], key: str) -> bool:
    """Whether an option class has a key."""
    keys = cls.keys()
    return key in keys


def scientific(section: Options) -> dict[str, Any]:
    """The values that results may depend on."""
    cls = type(section)
    return {key: getattr(section, key) for key in cls.keys() if field_of(cls, key)[1]["scientific"]}  # noqa: SIM118


def flat_names(sections: Mapping[str, type[Options]]) -> dict[tuple[str, str], str]:
    """(section, key) -> its name as a column: the key, or `section_key` if an earlier section has that key."""
    names: dict[tuple[str, str], str] = {}
    for section, cls in sections.items():
        taken, keys = set(names.values()), cls.keys()
        names |= {(section, key): f"{section}_{key}" if key in taken else key for key in keys}
    return names


def classes_of(values: Mapping[str, Any]) -> dict[str, type[Options]]:
    """Section -> its option class, for the flat values of a configuration; without `data` for an unknown data set."""
    classes: dict[str, type[Options]] = {"teacher": TeacherConfig, "student": StudentConfig}
    if values.get("dataset", DEFAULT_DATASET) in DATASETS:
        classes = {"data": section_class("data", values.get("dataset")), **classes}
    return classes


def sections_of(values: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Section -> key -> value, from the flat values of a configuration as a plan keeps them (`flat_names`)."""
    sections: dict[str, dict[str, Any]] = {}
    for (section, key), name in flat_names(classes_of(values)).items():
        if name in values:
            sections.setdefault(section, {})[key] = values[name]
    return sections


@dataclass(frozen=True)
class GivenValue:
    """A value as the user gave it. where: the file and key, or the `--set`, as a message names them."""

    value: Any
    where: str


Key = tuple[str, ...]
"""("replicates",), ("resources", "cpus"), ("teacher", "epsilon") or ("methods", "vat", "teacher", "epsilon")."""

Arms = dict[str, dict[str, dict[str, Any]]]
"""Arm -> section -> key -> value."""


def arm_sections(group: str, students: bool) -> tuple[str, ...]:
    """The sections whose keys an arm may set."""
    if not students:
        return ("data", "teacher")
    return ("teacher",) if group == "teachers" else ("student",)


def datasets_of(written: GivenValue | None) -> list[str]:
    """The data sets that a `data.dataset` names, at least one; the default without one. `UserError` for an unknown one,
    and for an empty axis: whatever is read of a space with it depends on the data set."""
    if written is None:
        return [DEFAULT_DATASET]
    values = written.value if isinstance(written.value, list) else [written.value]
    if not values:
        raise UserError(f"{written.where}: the axis is empty; give at least one value")
    for value in values:
        if not isinstance(value, str) or value not in DATASETS:
            raise UserError(f"{written.where}: unknown data set {short(repr(value))}{did_you_mean(value, DATASETS)}")
    return values


def did_you_mean(name: Any, known: Iterable[str]) -> str:
    """What a message adds for an unknown name: the nearest known one, or all."""
    known = list(known)
    return meant(name, known) or f" (known: {listed(known, MOST_LISTED)})"


def meant(name: Any, known: Iterable[str]) -> str:
    """What a message adds for the name of a key or section that is like a known one; else nothing."""
    found = nearest_name(name, known, _ALIKE)
    return "" if found is None else hint_text(name, found)


def unknown_key_hint(key: Any, cls: type[Options]) -> str:
    """What a message adds for a key that a section has not: another section that has it or else the nearest key, and
    all keys or, where they are many, the command that shows them. cls: the options of the section."""
    known = cls.keys()
    home = next((section for section in SECTIONS if has_key(section_class(section), key)), None)
    having = [name for name, of in DATASETS.items() if has_key(of, key)]
    if cls in DATASETS.values() and having:
        hint = f"; data set {having[0]} has it" if len(having) == 1 else f"; data sets {listed(having)} have it"
    else:
        hint = f"; section {home} has it: {home}.{key}" if home else meant(key, known)
    if len(known) <= MOST_LISTED:
        return f"{hint} (known: {listed(known, MOST_LISTED)})"
    names = {of: name for name, of in (*DATASETS.items(), *SECTIONS.items()) if of is not None}
    return f"{hint} ({len(known)} keys; all of them: {command_text(f'keys {names[cls]}')})"


def section_hint(key: Any, before: str = "", sections: Iterable[str] = SECTIONS) -> str:
    """What a message adds for a section's key that was given outside its section, also where it is mistyped."""
    sections = list(sections)
    homes = [section for section in sections if has_key(section_class(section), key)]
    if homes:
        return f"; it belongs into a section: {before}{homes[0]}.{key}"
    home = {name: section for section in reversed(sections) for name in section_class(section).keys()}  # noqa: SIM118
    near = nearest_name(key, [name for section in sections for name in section_class(section).keys()], _ALIKE)  # noqa: SIM118
    return "" if near is None else hint_text(key, near, f"{before}{home[near]}.")


def plain(value: Any) -> Any:
    """The value as JSON and YAML have it: tuples as lists, distributions as mappings."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Distribution):
        return value.to_dict()
    return [plain(inner) for inner in value] if isinstance(value, tuple) else value
