"""A configuration: one point of a study's space with its identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from d2l_study.learning.science import science_version
from d2l_study.options import Options


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
