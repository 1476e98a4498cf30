"""A configuration: one point of a study's space with its identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from d2l_study.learning.science_version import science_version
from d2l_study.options import Options


@dataclass(frozen=True)
class Configuration:
    """One point of a study, which is trained in several replicates.

    sections: section -> its resolved options; values: the scientific values of all sections by flat name
    (`keys.flat_names`); varied: the flat names of the keys that vary in the study, common axes first; label: the
    method, and the values that tell this configuration from others of the method; teachers: config_ids of the teachers
    that it learns from; teaches: a student of the study needs its weights; controls: of a student the config_ids of
    the reference rows that it is compared with (`learning.controls`), by stage, as far as the space asks for them.
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
    controls: Mapping[str, str] = field(default_factory=dict)

    @property
    def science_version(self) -> int:
        """The version of the science that the configuration depends on (`learning.science_version`)."""
        return science_version(self.stage, {name: section.identity() for name, section in self.sections.items()})
