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

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from d2l_study.data import DATASETS
from d2l_study.data.given_bags import PatchBags
from d2l_study.errors import UserError, listed
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import Options
from d2l_study.study.space.distributions import SearchOptions
from d2l_study.study.space.files import document_of, find_space, read_text, shown_path
from d2l_study.study.space.keys import (
    CLASS_MAPS,
    MOST_CONFIGURATIONS,
    MOST_MEMBERS,
    Key,
    StudyOptions,
    Written,
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
from d2l_study.study.space.space import Space


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
