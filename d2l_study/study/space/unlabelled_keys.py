"""The keys of unlabelled bags, each of which acts only beside a key of another section.

`data.unlabelled_bags` needs R_adv, or a student that distils on them; `teacher.unlabelled_batch` and
`student.unlabelled` need unlabelled bags. Where they do nothing they are
in no id, as idle keys of one section are (`Options.idle_keys`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import Options, field_of
from d2l_study.study.space.keys import Key


def idle_unlabelled_keys(sections: Mapping[str, Options]) -> dict[Key, str]:
    """(section, key) -> what makes that it does nothing, as `key value`. sections: of a point, or of a stage of it."""
    teacher, student = sections.get("teacher"), sections.get("student")
    if not getattr(sections["data"], "unlabelled_bags", 0):
        keys = (("teacher", "unlabelled_batch"), ("student", "unlabelled"))
        return {place: "unlabelled_bags 0" for place in keys if place[0] in sections}
    if isinstance(teacher, TeacherConfig) and teacher.lambda_adv > 0:
        return {}
    if isinstance(student, StudentConfig):
        if student.distils_unlabelled:
            return {}
        reason = "lambda_distill 0" if student.unlabelled else "unlabelled false"
        return {("data", "unlabelled_bags"): reason if teacher is None else f"lambda_adv 0 and {reason}"}
    return {("data", "unlabelled_bags"): "lambda_adv 0"}


def with_acting_unlabelled_keys(sections: dict[str, Options]) -> dict[str, Options]:
    """The sections with the neutral value for each of these keys that does nothing; the same if there is none."""
    found = sections
    for section, key in idle_unlabelled_keys(sections):
        neutral = field_of(type(found[section]), key)[1]["neutral"]
        if getattr(found[section], key) != neutral:
            changed: dict[str, object] = {key: neutral}
            found = {**found, section: dataclasses.replace(found[section], **changed)}
    return found
