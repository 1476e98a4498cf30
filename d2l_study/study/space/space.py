"""From a space file to a checked study: every key is read, named and bounded before anything runs.

A space is YAML: common sections (`data`, `teacher`, `student`), named arms (`methods`) that set or vary any key of
any section, and the study's own keys. A list is an axis; each arm is the product of its axes. `{low, high, log}` is a
distribution, from which `search` draws points. With a `student`
section it is a space of students: `teachers` names the arms of the teacher, `methods` those of the student, and every
method learns from every teacher. Sections take their keys, types and bounds from the option classes of `data` and
`learning`, so there is one definition of each. `space_files` finds and reads the file, `space_reading` checks each key
by itself; here is what a space is, and what its keys must fulfil together.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2l_study.credentials import masked_values
from d2l_study.data import DATASETS
from d2l_study.data.given_bags import PatchBags
from d2l_study.errors import UserError, listed
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.science import science_version
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import Options
from d2l_study.study.space.distributions import Distribution, SearchOptions
from d2l_study.study.space.files import document_of, find_space, read_text, shown_path
from d2l_study.study.space.keys import (
    CLASS_MAPS,
    MOST_CONFIGURATIONS,
    MOST_MEMBERS,
    SECTIONS,
    Key,
    StudyOptions,
    Written,
    dataset_defaults,
    plain,
    scientific,
    section_class,
)
from d2l_study.study.space.labels import labels_of
from d2l_study.study.space.overrides import described, override, settings_of
from d2l_study.study.space.reading import (
    beside_the_space,
    checked,
    leaves_of,
    one_line,
    one_of_a_kind,
    placed,
    references_of,
    typed,
)
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.search_checks import check_schedule, check_search


@dataclass(frozen=True)
class Space:
    """A checked space. A tuple as a value is an axis; other values are fixed.

    overrides: as given, "key=value"; settings: those of them that name another study (see `study_name`), by
    full dotted key; sections: section -> key -> value, as written and typed; methods: arm -> section -> key -> value.
    In a space of students an arm is "teacher's arm → student's arm"; pairs: arm -> (teacher's arm, student's arm).
    labels: arm, reference or key -> its name in print; folder: where relative paths of the data begin.
    """

    name: str
    path: Path
    text: str
    description: str
    overrides: tuple[str, ...]
    replicates: int
    base_seed: int
    resources: Resources
    keep_weights: str
    metric: str | None
    sections: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, dict[str, Any]]]
    settings: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    search: SearchOptions | None = None
    schedule: str = "none"
    log_images: bool | None = None
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    @property
    def stage(self) -> str:
        return "student" if self.pairs else "teacher"

    @property
    def section_names(self) -> tuple[str, ...]:
        return tuple(name for name in SECTIONS if name != "student" or self.pairs)

    def written(self, method: str) -> dict[str, dict[str, Any]]:
        """The keys an arm has, section -> key -> value: the common ones, over them its own."""
        own = self.methods[method]
        return {name: {**self.sections.get(name, {}), **own.get(name, {})} for name in self.section_names}

    def count(self) -> int:
        """The number of configurations, before any that turn out the same are dropped."""
        return sum(
            math.prod(len(v) for keys in self.written(method).values() for v in keys.values() if isinstance(v, tuple))
            * self.draws(method)
            for method in self.methods
        )

    def draws(self, method: str) -> int:
        """How many points are drawn from the arm's distributions, at each point of its axes; 1 if it has none."""
        values = [v for keys in self.written(method).values() for v in keys.values()]
        found = any(isinstance(v, Distribution) for v in values)
        return self.search.trials if found and self.search is not None else 1

    @property
    def adaptive(self) -> bool:
        """Whether a sampler chooses the points, so that they are not known beforehand (`points` are then draws)."""
        return self.search is not None and self.search.adaptive

    def grid(self, method: str) -> Iterator[dict[Key, Any]]:
        """The points of an arm's axes: (section, key) -> value, or the distribution. The last axis moves fastest."""
        keys = [((s, k), v) for s, keys in self.written(method).items() for k, v in keys.items()]
        for chosen in itertools.product(*(v if isinstance(v, tuple) else (v,) for _, v in keys)):
            yield dict(zip((place for place, _ in keys), chosen, strict=True))

    def points(self) -> Iterator[tuple[str, dict[str, Options]]]:
        """Every point of every arm: the arm's name and its sections, resolved."""
        built: dict[tuple[Any, ...], Options] = {}
        for method in self.methods:
            for values, number in itertools.product(self.grid(method), range(self.draws(method))):
                drawn = {
                    place: v.draw(".".join(place), self.base_seed, number) if isinstance(v, Distribution) else v
                    for place, v in values.items()
                }
                yield method, self.resolve(drawn, built)

    def resolve(self, values: Mapping[Key, Any], built: dict[tuple[Any, ...], Options]) -> dict[str, Options]:
        """The sections of a point, (section, key) -> value; `built` remembers those that were made already."""
        sections = {}
        dataset = values.get(("data", "dataset"))
        for name in self.section_names:
            given = dataset_defaults(name, dataset)
            given |= {place[1]: value for place, value in values.items() if place[0] == name}
            mark = (name, *sorted(given.items()))
            if mark not in built:
                try:
                    built[mark] = _resolve(section_class(name, given.get("dataset"))(**given))
                except UserError as error:
                    raise UserError(f"{name}.{str(error).removeprefix(f'{name}.')}") from None
            sections[name] = built[mark]
        return sections

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `resolved.json`, what is secret in them masked."""
        return masked_values({
            "name": self.name, "file": str(self.path), "description": self.description, "stage": self.stage,
            "overrides": list(self.overrides), "replicates": self.replicates, "base_seed": self.base_seed,
            **{name: plain(keys) for name, keys in self.sections.items()}, "methods": plain(self.methods),
            "resources": self.resources.to_dict(), "keep_weights": self.keep_weights,
            "metric": self.metric, "references": list(self.references),
            "search": self.search and self.search.to_dict(), "schedule": self.schedule,
            "log_images": self.log_images, "labels": self.labels, "folder": self.folder,
        })  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """One point of a study: what is trained, with all replicates alike.

    sections: resolved; values: flat scientific values of all sections; varied: the flat names of the keys that
    vary in the study, common axes first; label: the method and what tells it from the others of its method; teachers:
    config_ids of the teachers it learns from; teaches: a student of the study needs its weights.
    """

    config_id: str
    stage: str
    method: str
    sections: dict[str, Options]
    varied: tuple[str, ...]
    values: dict[str, Any]
    label: str
    data_checksum: str = ""
    base_seed: int = 0
    teachers: tuple[str, ...] = ()
    teacher_method: str | None = None
    student_method: str | None = None
    teaches: bool = False

    @property
    def science_version(self) -> int:
        return science_version(self.stage, {name: section.identity() for name, section in self.sections.items()})

    def to_dict(self) -> dict[str, Any]:
        """What the id stands for, from which the run can be made again (`Ledger.write_config`)."""
        sections = {name: scientific(section) for name, section in self.sections.items()}
        return {
            "config_id": self.config_id, "stage": self.stage, "sections": sections, "values": self.values,
            "data_checksum": self.data_checksum, "base_seed": self.base_seed,
            "science_version": self.science_version,
        }  # fmt: skip


def study_name(space: Space) -> str:
    """The space's name, and 6 hex digits of the overrides if there are any.

    Overrides that are in no id (replicates, resources, the folder of the data …) name no other study.
    """
    stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", space.name).strip("-.") or "study"
    if not space.settings:
        return stem
    text = json.dumps(plain(space.settings), sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# ---- loading


def load_space(
    name_or_file: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    replicates: int | None = None,
    beside: str | os.PathLike[str] | None = None,
) -> Space:
    """Read and check a space. overrides: "key=value" each, as `--set` takes them; replicates: as `--replicates`;
    beside: the folder that relative paths in it begin at, where it is not the file's own.

    `UserError` names the file (or `--set`), the dotted key, the value found and what is allowed.
    """
    path = find_space(name_or_file)
    shown = shown_path(path)
    text = read_text(path, shown)
    document = document_of(text, shown)
    students = "student" in document or "teachers" in document
    if students:
        document = {"teachers": {"teacher": {}}, **document}
    leaves, groups = leaves_of(document, shown, students)
    changed = override(leaves, groups, overrides, students)
    beside_the_space(leaves, changed, Path(os.path.abspath(beside or path.parent)))  # noqa: PTH100
    written = leaves.pop(("references",), None)
    if written is not None and not students:
        raise UserError(f"{written.where}: only a space of students has them (it has a section student)")
    references = references_of(written)
    if replicates is not None:
        leaves["replicates",] = Written(replicates, "--replicates")

    study = {k[0]: checked(StudyOptions, k[0], written, axis=False) for k, written in leaves.items() if len(k) == 1}
    study["description"] = one_line(study.get("description"), shown)
    options = StudyOptions(**study)

    resources = one_of_a_kind(Resources, "resources", leaves, shown)
    search = one_of_a_kind(SearchOptions, "search", leaves, shown) if any(k[0] == "search" for k in leaves) else None

    sections, arms = typed(leaves, groups)
    if (count := len(arms.get("teachers", [0])) * len(arms["methods"])) > MOST_CONFIGURATIONS:
        raise UserError(f"{shown}: methods: {count:,} arms; at most {MOST_CONFIGURATIONS:,} configurations allowed")
    settings = settings_of(changed, options, sections, arms, search, references)
    description = options.description if ("description",) in changed else described(options.description, settings)
    pairs = {f"{t} → {m}": (t, m) for t in arms.get("teachers", {}) for m in arms["methods"]}
    methods = {p: arms["teachers"][t] | arms["methods"][m] for p, (t, m) in pairs.items()} or arms["methods"]
    space = Space(
        path.stem, path, text, description, tuple(overrides), options.replicates,
        options.base_seed, resources, options.keep_weights, options.metric, sections, methods,
        settings, pairs, references, search, options.schedule, options.log_images,
        labels_of(leaves, groups), os.path.abspath(beside or path.parent),  # noqa: PTH100
    )  # fmt: skip
    check_search(space, ("search", "trials") in leaves, shown)
    if (count := space.count()) > MOST_CONFIGURATIONS:
        raise UserError(
            f"{shown}: methods: the axes multiply to {count:,} configurations; at most {MOST_CONFIGURATIONS:,} allowed"
        )
    members = 0
    for method, point in _points(space, leaves, shown):
        members += getattr(point.get("student"), "teachers", 0)
        if members > MOST_MEMBERS:
            raise placed(f"student.teachers: the ensembles of all students have more than {MOST_MEMBERS:,} members",
                         leaves, shown)  # fmt: skip
        try:
            _check_references(space.references, point["data"])
        except UserError as error:
            raise UserError(f"{shown}: references: {error}") from None
        try:
            _check_together(point)
            check_schedule(space.schedule, point)
        except UserError as error:
            raise placed(f"{error} (method {method})", leaves, shown) from None
    return space


def _points(
    space: Space, leaves: Mapping[Key, Written], shown: str
) -> Iterator[tuple[str, dict[str, Options]]]:  # fmt: skip
    try:
        yield from space.points()
    except UserError as error:
        raise placed(str(error), leaves, shown) from None


def _resolve(section: Options) -> Options:
    """With defaults that depend on other keys made explicit, for sections that have such."""
    return section.resolved() if hasattr(section, "resolved") else section


def _check_references(references: Iterable[str], data: Options) -> None:
    """Class maps are trained on whole images."""
    for reference in references:
        if reference not in CLASS_MAPS:
            continue
        if not isinstance(data, PatchBags):
            having = [name for name, cls in DATASETS.items() if issubclass(cls, PatchBags)]
            raise UserError(f"{reference} is trained on whole images, which data set {getattr(data, 'dataset', '')!r} "
                            f"has not (these have: {listed(having)})")  # fmt: skip
        if getattr(data, "cut", None) == "whole":
            raise UserError(f"{reference} reads instances at their place in a larger image, which data.cut: whole "
                            "does not say")  # fmt: skip


def _check_together(sections: Mapping[str, Options]) -> None:
    """What no single key can tell: each part of the data needs bags of both classes, and a student that starts from
    its teacher's weights the teacher's network."""
    teacher, student = sections["teacher"], sections.get("student")
    if isinstance(teacher, TeacherConfig) and isinstance(student, StudentConfig):
        try:
            student.check_teacher(teacher.extractor, teacher.feature_width)
        except UserError as error:
            raise UserError(f"student.{error}") from None
    if hasattr(sections["data"], "check_bags"):
        try:
            sections["data"].check_bags()
        except UserError as error:
            raise UserError(f"data.{error}") from None
