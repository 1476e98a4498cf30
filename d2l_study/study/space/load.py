"""A space is loaded from its file and checked whole, before anything runs.

A space is YAML. It has common sections (`data`, `teacher`, `student`), named arms (`methods`) that set or vary any key
of any section, and the study's own keys. A list is an axis, and an arm is the product of its axes. `{low, high, log}`
is a distribution, from which `search` draws points. A space with a section `student` is a space of students: `teachers`
names the arms of the teacher, `methods` those of the student, and every student's arm learns from every teacher's arm.

The option classes of `data` and `learning` define the keys of the sections, their types and their bounds. `files` finds
and reads the file, `key_checks` checks each key by itself, and this file checks what keys must fulfil together.
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
from d2l_study.study.space.display_labels import display_labels
from d2l_study.study.space.enqueued_points import with_typed_start_points
from d2l_study.study.space.files import document_of, find_space, read_text, shown_path
from d2l_study.study.space.key_checks import (
    error_at,
    flat_keys,
    resolve_data_paths,
    typed_description,
    typed_options,
    typed_references,
    typed_sections,
    typed_value,
)
from d2l_study.study.space.keys import (
    CLASS_MAPS,
    MOST_CONFIGURATIONS,
    MOST_MEMBERS,
    GivenValue,
    Key,
    StudyOptions,
)
from d2l_study.study.space.overrides import apply_overrides, description_with, scientific_overrides
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.search_checks import check_schedule, check_search, check_validation_bags
from d2l_study.study.space.search_options import SearchOptions
from d2l_study.study.space.space import Space


def load_space(
    name_or_file: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    replicates: int | None = None,
    beside: str | os.PathLike[str] | None = None,
    shown: str | None = None,
) -> Space:
    """Read and check a space.

    overrides: "key=value" each, as `--set` takes them; replicates: as `--replicates`; beside: the folder that relative
    paths in the space begin at, where it is not the file's own; shown: how messages call the file, where it is a copy.

    `UserError` names the file (or `--set`), the dotted key, the value found and the values allowed.
    """
    path = find_space(name_or_file)
    shown = shown or shown_path(path)
    text = read_text(path, shown)
    document = document_of(text, shown)
    students = "student" in document or "teachers" in document
    if students:
        document = {"teachers": {"teacher": {}}, **document}
    leaves, groups = flat_keys(document, shown, students)
    changed = apply_overrides(leaves, groups, overrides, students)
    resolve_data_paths(leaves, changed, Path(os.path.abspath(beside or path.parent)))  # noqa: PTH100
    written = leaves.pop(("references",), None)
    if written is not None and not students:
        raise UserError(f"{written.where}: only a space of students has them (it has a section student)")
    references = typed_references(written)
    if replicates is not None:
        leaves["replicates",] = GivenValue(replicates, "--replicates")

    study = {k[0]: typed_value(StudyOptions, k[0], written, axis=False) for k, written in leaves.items() if len(k) == 1}
    study["description"] = typed_description(study.get("description"), shown)
    options = StudyOptions(**study)

    resources = typed_options(Resources, "resources", leaves, shown)
    search = typed_options(SearchOptions, "search", leaves, shown) if any(k[0] == "search" for k in leaves) else None

    sections, arms = typed_sections(leaves, groups)
    if (count := len(arms.get("teachers", [0])) * len(arms["methods"])) > MOST_CONFIGURATIONS:
        raise UserError(f"{shown}: methods: {count:,} arms; at most {MOST_CONFIGURATIONS:,} configurations allowed")
    settings = scientific_overrides(changed, options, sections, arms, search, references)
    description = (
        options.description if ("description",) in changed else description_with(options.description, settings)
    )
    pairs = {f"{t} → {m}": (t, m) for t in arms.get("teachers", {}) for m in arms["methods"]}
    methods = {p: arms["teachers"][t] | arms["methods"][m] for p, (t, m) in pairs.items()} or arms["methods"]
    space = Space(
        path.stem, path, text, description, tuple(overrides), options.replicates,
        options.base_seed, resources, options.keep_weights, options.metric, sections, methods,
        settings, pairs, references, search, options.schedule, options.log_images,
        display_labels(leaves, groups), os.path.abspath(beside or path.parent), options.recipe,  # noqa: PTH100
        ("recipe",) in leaves, frozenset(k[1] for k in leaves if k[0] == "resources"),
    )  # fmt: skip
    check_search(space, ("search", "trials") in leaves, shown)
    if ("search", "enqueue") in leaves:
        space = with_typed_start_points(space, leaves["search", "enqueue"].where)
    if (count := space.count()) > MOST_CONFIGURATIONS:
        raise UserError(
            f"{shown}: methods: the axes multiply to {count:,} configurations; at most {MOST_CONFIGURATIONS:,} allowed"
        )
    members, smooths = 0, False
    for method, point in _points(space, leaves, shown):
        members += getattr(point.get("student"), "teachers", 0) * (1 + getattr(point.get("student"), "cross_fit", 0))
        smooths = smooths or getattr(point.get("student"), "neighbours", 0) > 0
        if members > MOST_MEMBERS:
            raise error_at(f"student.teachers: the ensembles of all students have more than {MOST_MEMBERS:,} members",
                         leaves, shown)  # fmt: skip
        try:
            _check_references(space.references, point["data"])
        except UserError as error:
            raise UserError(f"{shown}: references: {error}") from None
        try:
            _check_together(point)
            check_schedule(space.schedule, point)
            check_validation_bags(space, point)
        except UserError as error:
            raise error_at(f"{error} (method {method})", leaves, shown) from None
    if "smoothed" in references and not smooths:
        raise UserError(f"{shown}: references: smoothed averages a teacher's scores over its student's neighbours, and "
                        "no student has any; give student.neighbours, or leave smoothed out")  # fmt: skip
    return space


def _points(
    space: Space, leaves: Mapping[Key, GivenValue], shown: str
) -> Iterator[tuple[str, dict[str, Options]]]:  # fmt: skip
    try:
        yield from space.points()
    except UserError as error:
        raise error_at(str(error), leaves, shown) from None


def _check_references(references: Iterable[str], data: Options) -> None:
    """`UserError` for a class map where the data set has no whole images, on which class maps are trained."""
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
    """`UserError` if the sections of a point do not fit together: each part of the data needs bags of both classes, and
    a student that starts from its teacher's weights needs its teacher's network."""
    teacher, student = sections["teacher"], sections.get("student")
    if isinstance(teacher, TeacherConfig) and isinstance(student, StudentConfig):
        try:
            student.check_teacher(teacher.extractor, teacher.feature_width, teacher.hidden_layers)
        except UserError as error:
            raise UserError(f"student.{error}") from None
    if hasattr(sections["data"], "check_bags"):
        try:
            sections["data"].check_bags()
        except UserError as error:
            raise UserError(f"data.{error}") from None
