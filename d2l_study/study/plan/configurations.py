"""The configurations of a space: every point with its identity, its label, and the teachers that it learns from.

In a space of students these are the teachers, each once for all of its students, the students, and the reference rows.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.controls import CONTROLS, OWN_REFERENCES
from d2l_study.learning.matched_teacher import matched_teacher
from d2l_study.learning.part_config import PART_TEACHER, TrainingPart
from d2l_study.learning.student_config import SmoothingConfig, StudentConfig
from d2l_study.options import Options
from d2l_study.study.ledger.ledger import config_id
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.files import shown_path
from d2l_study.study.space.keys import REFERENCES, TEACHING, flat_names, scientific
from d2l_study.study.space.search_checks import check_schedule
from d2l_study.study.space.space import Space
from d2l_study.study.space.training_length import FOLLOW_STEPS, asked_lengths, sections_in_steps
from d2l_study.study.space.unlabelled_keys import with_acting_unlabelled_keys

Checksum = str | Mapping[str, str] | Callable[[Options], str]
"""The checksum of the data pool: one text for all, data set -> text, or a function of the section `data`."""

SHORT_NAMES = {"num_bags": "n", "mean_bag_size": "K", "unlabelled_bags": "m"}
STAGES = (*TEACHING, "student", *REFERENCES)
"""The stages of a plan, in its order."""


@dataclass(frozen=True)
class _Unlabelled:
    """A configuration before it gets its label, which depends on the others. The fields are those of
    `Configuration`; lengths: the lengths in epochs that its steps are made of (`asked_lengths`)."""

    config_id: str
    stage: str
    method: str
    sections: dict[str, Options]
    checksum: str
    teachers: tuple[str, ...] = ()
    teacher_method: str | None = None
    student_method: str | None = None
    lengths: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    controls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VariedKeys:
    """The keys that vary in a study, by which its configurations are labelled.

    flat_names: (section, key) -> flat name; varied: flat names of the keys that vary in the study; within_arm: (stage,
    method) -> those that vary within the arm.
    """

    flat_names: Mapping[tuple[str, str], str]
    varied: tuple[str, ...]
    within_arm: Mapping[tuple[str, str], tuple[str, ...]]


def configurations(space: Space, checksum: Checksum) -> list[Configuration]:
    """Every configuration of a space: by stage, then in the order of the arms, the last axis moving fastest.

    Points of one arm that resolve to the same configuration are kept once. The same configuration in two arms appears
    in both, with one id. If a sampler chooses the points of the space, these are random draws in their place.
    """
    points = _unique(
        point for method, sections in space.points() for point in _points(space, method, sections, checksum)
    )
    return _labelled(space, _varied_keys(space, points), points)


def varied_keys_of(space: Space, checksum: Checksum) -> VariedKeys:
    """The keys that vary in a space whose points are not known beforehand, as random draws show them."""
    points = (point for method, sections in space.points() for point in _points(space, method, sections, checksum))
    return _varied_keys(space, _unique(points))


def trial_configurations(
    space: Space, varied_keys: VariedKeys, method: str, sections: dict[str, Options], checksum: Checksum
) -> list[Configuration]:
    """The configurations of one point of an arm: its teachers, if it has any, and last the point itself. sections:
    section -> its resolved options."""
    return _labelled(space, varied_keys, _unique(_points(space, method, sections, checksum)))


def _unique(points: Iterable[_Unlabelled]) -> list[_Unlabelled]:
    unique: dict[tuple[str, str, str], _Unlabelled] = {}
    for point in points:
        unique.setdefault((point.stage, point.method, point.config_id), point)
    return sorted(unique.values(), key=lambda point: STAGES.index(point.stage))


def _varied_keys(space: Space, points: list[_Unlabelled]) -> VariedKeys:
    names = flat_names(_classes(points))
    everywhere: dict[str, set[Any]] = {}
    within: dict[tuple[str, str], dict[str, set[Any]]] = {}  # (stage, method) -> flat name -> its values
    for point in points:
        for name, value in _flat(point, names).items():
            everywhere.setdefault(name, set()).add(value)
            within.setdefault((point.stage, point.method), {}).setdefault(name, set()).add(value)
    varied = tuple(name for name in _written_names(space, names) if len(everywhere.get(name, ())) > 1)
    told = {
        arm: tuple(n for n in (*varied, *_derived_names(arm[0], names, varied)) if len(own.get(n, ())) > 1)
        for arm, own in within.items()
    }
    return VariedKeys(names, varied, told)


def _labelled(space: Space, varied_keys: VariedKeys, points: Iterable[_Unlabelled]) -> list[Configuration]:
    points = list(points)
    taught = {teacher for point in points for teacher in point.teachers}
    found = []
    for point in points:
        flat = _flat(point, varied_keys.flat_names)
        label = _label(point.method, flat, varied_keys.within_arm.get((point.stage, point.method), ()))
        found.append(
            Configuration(
                point.config_id, point.stage, point.method, point.sections, varied_keys.varied, flat, label,
                point.checksum, space.base_seed, point.teachers, point.teacher_method, point.student_method,
                point.config_id in taught, point.controls,
            )
        )  # fmt: skip
    return found


def _points(space: Space, method: str, sections: dict[str, Options], checksum: Checksum) -> Iterator[_Unlabelled]:
    data = _data_checksum(checksum, sections["data"])

    def point(stage: str, method: str, asked: dict[str, Options], **more: Any) -> _Unlabelled:
        sections = sections_in_steps(asked)  # a length in epochs is another way to write steps: it is in no id
        if stage == space.stage and sections is not asked:  # other lengths were checked as the space was loaded
            try:
                check_schedule(space.schedule, sections)
            except UserError as error:
                raise UserError(f"{shown_path(space.path)}: {error}") from None
        sections = with_acting_unlabelled_keys(sections)
        identity = {name: section.identity() for name, section in sections.items()}
        config = config_id(stage, identity, data, space.base_seed)
        return _Unlabelled(config, stage, method, sections, data, **more, lengths=asked_lengths(asked))

    if not space.pairs:
        yield point("teacher", method, sections)
        return
    teacher, student = sections["teacher"], sections["student"]
    assert isinstance(teacher, TeacherConfig) and isinstance(student, StudentConfig)
    teacher_arm, student_arm = space.pairs[method]
    ensemble: list[dict[str, Options]] = [
        {"data": sections["data"], "teacher": dataclasses.replace(teacher, member=m)} for m in range(student.teachers)
    ]
    members = [point("teacher", teacher_arm, member) for member in ensemble]
    yield from members
    taught_by = tuple(member.config_id for member in members)
    parts = [
        point(PART_TEACHER, f"{PART_TEACHER} of {teacher_arm}", {**member, "part": TrainingPart(student.cross_fit, p)},
              teacher_method=teacher_arm)
        for member in ensemble for p in range(student.cross_fit if student.lambda_distill > 0 else 0)
    ]  # fmt: skip
    yield from parts
    # What reads a teacher reads the first of an ensemble.
    of_teacher: dict[str, Any] = {"teachers": taught_by[:1], "teacher_method": teacher_arm}
    references = []
    for reference in space.references:
        name = f"{reference} of {teacher_arm}"
        if reference == "matched":
            own = _matched_sections(sections_in_steps(sections))
            references.append(point(reference, name, own, teacher_method=teacher_arm))
        elif reference == "smoothed":
            if student.neighbours > 0:
                own = {**ensemble[0], "smoothing": SmoothingConfig(student.neighbours)}
                references.append(point(reference, name, own, **of_teacher))
        elif reference == "pooled" or (reference == "attention" and "attention" in teacher.pooling):
            references.append(point(reference, name, ensemble[0], **of_teacher))
        elif reference == "no_soft_labels":
            if student.start == "teacher" and student.lambda_distill > 0:  # others have `no_teacher`, or are it
                own = {**ensemble[0], "student": student.without_soft_labels()}
                references.append(point(reference, name, own, **of_teacher))
        elif reference == "no_teacher":
            made = sections_in_steps(sections)["student"]
            assert isinstance(made, StudentConfig)
            own = {"data": sections["data"], "student": made.no_teacher()}
            references.append(point(reference, reference, own))
        elif reference != "attention":
            common = _common_student(space, student_arm, student, sections["data"])
            common = common.without_teacher(all_steps=space.recipe != "defaults")  # version 1 keeps its ids
            references.append(point(reference, reference, {"data": sections["data"], "student": common}))
    controls = {one.stage: one.config_id for one in references if one.stage in OWN_REFERENCES}
    # First those that were trained on all bags: a student is compared with the first.
    learns_from = (*taught_by, *(part.config_id for part in parts))
    origin: dict[str, Any] = {"teachers": learns_from, "teacher_method": teacher_arm, "student_method": student_arm}
    yield point("student", method, sections, **origin, controls=controls)
    yield from references


def _matched_sections(sections: dict[str, Options]) -> dict[str, Options]:
    """The sections of the teacher that is matched to a student; sections: of the student, with lengths in steps."""
    data: Any = sections["data"]
    teacher, student = sections["teacher"], sections["student"]
    assert isinstance(teacher, TeacherConfig) and isinstance(student, StudentConfig)
    seen = (1.0, 1.0)
    if teacher.instances_per_bag != student.instances_per_bag:
        seen = tuple(data.mean_instances(section.instances_per_bag) for section in (teacher, student))
    made = matched_teacher(teacher, student, *seen, unlabelled=data.unlabelled_bags > 0)
    return {"data": data, "teacher": made}


def _common_student(space: Space, arm: str, student: StudentConfig, data: Options) -> StudentConfig:
    """The options of a point's student without those that the arm sets itself: references are trained with them."""
    own = space.methods[next(pair for pair, (_, m) in space.pairs.items() if m == arm)].get("student", {})
    values: dict[str, Any] = {}
    for key, written in space.sections.get("student", {}).items():
        if key == "lambda_distill":  # which references do not have, and which is not 0 beside every α and β
            continue
        if key not in own:
            values[key] = getattr(student, key)
        else:
            first = written[0] if isinstance(written, tuple) else written
            drawn = isinstance(first, Distribution)
            values[key] = first.draw(f"student.{key}", space.base_seed, 0) if drawn else first
    return StudentConfig(**{**space.defaults("student", getattr(data, "dataset", None), values), **values})


def _classes(points: Iterable[_Unlabelled]) -> dict[str, type[Options]]:
    """Section -> its option class, of all points, in the order of sections: so a key has the same flat name in all
    stages."""
    found = {name: type(section) for point in points for name, section in point.sections.items()}
    return {name: found[name] for name in ("data", "teacher", "student") if name in found}


def _data_checksum(checksum: Checksum, data: Options) -> str:
    if isinstance(checksum, str):
        return checksum
    if isinstance(checksum, Mapping):
        return checksum[data.to_dict()["dataset"]]
    return checksum(data)


def _flat(point: _Unlabelled, names: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    return {
        names.get((name, key), key): point.lengths.get((name, key), value)
        for name, section in point.sections.items()
        for key, value in scientific(section).items()
    }


def _derived_names(stage: str, names: Mapping[tuple[str, str], str], varied: tuple[str, ...]) -> list[str]:
    """The flat names of the keys that tell the configurations of a reference apart beside the varied ones, since they
    follow from keys of the student, and of a part teacher the part."""
    if stage == PART_TEACHER:
        return ["part"]
    if stage not in (*CONTROLS, "no_teacher"):
        return []
    return [
        name
        for (section, key), name in names.items()
        if section != "data" and key not in FOLLOW_STEPS and name not in varied
    ]


def _written_names(space: Space, names: Mapping[tuple[str, str], str]) -> list[str]:
    """The flat names of the keys that the space sets: first the common axes, then the keys of arms."""
    varying = (tuple, Distribution)
    common = [(s, key) for s, keys in space.sections.items() for key, v in keys.items() if isinstance(v, varying)]
    own = [(s, key) for arm in space.methods.values() for s, keys in arm.items() for key in keys]
    members = [("teacher", "member")] if space.pairs else []
    return list(dict.fromkeys(names.get(place, place[1]) for place in (*common, *own, *members)))


def _label(method: str, values: Mapping[str, Any], names: Iterable[str]) -> str:
    return " ".join([method, *(f"{SHORT_NAMES.get(name, name)}={text_of(values[name])}" for name in names)])


def text_of(value: Any) -> str:
    """A value as a person writes it: 2 for 2.0, true, null."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return value if isinstance(value, str) else json.dumps(value)
