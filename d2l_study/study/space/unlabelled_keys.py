"""The keys of unlabelled bags, each of which acts only beside a key of another section.

`data.unlabelled_bags` needs R_adv, and `teacher.unlabelled_batch` needs unlabelled bags. Where they do nothing they are
in no id, as idle keys of one section are (`Options.idle_keys`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from d2l_study.learning.config import TeacherConfig
from d2l_study.options import Options, field_of
from d2l_study.study.space.keys import Key


def idle_unlabelled_keys(sections: Mapping[str, Options]) -> dict[Key, str]:
    """(section, key) -> what makes that it does nothing, as `key value`. sections: of a point, or of a stage of it."""
    teacher = sections.get("teacher")
    if not getattr(sections["data"], "unlabelled_bags", 0):
        return {("teacher", "unlabelled_batch"): "unlabelled_bags 0"} if teacher is not None else {}
    if isinstance(teacher, TeacherConfig) and teacher.lambda_adv > 0:
        return {}
    return {("data", "unlabelled_bags"): "lambda_adv 0" if teacher is not None else "no teacher"}


def with_acting_unlabelled_keys(sections: dict[str, Options]) -> dict[str, Options]:
    """The sections with the neutral value for each of these keys that does nothing; the same if there is none."""
    found = sections
    for section, key in idle_unlabelled_keys(sections):
        neutral = field_of(type(found[section]), key)[1]["neutral"]
        if getattr(found[section], key) != neutral:
            changed: dict[str, object] = {key: neutral}
            found = {**found, section: dataclasses.replace(found[section], **changed)}
    return found
