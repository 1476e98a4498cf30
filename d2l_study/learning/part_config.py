"""Which part of the training bags a teacher is not trained on: the section `part` of a part teacher's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from d2l_study.errors import UserError
from d2l_study.learning.student_config import MOST_PARTS
from d2l_study.options import Options, option

PART_TEACHER = "part_teacher"
"""The stage of the teachers that label training bags which they have not seen, for students with `cross_fit`. They are
no results: no table shows them."""


@dataclass(frozen=True)
class TrainingPart(Options):
    """The part of the training bags that a part teacher is not trained on, and whose instances it labels."""

    cross_fit: int = option(2, "F: parts of the training bags", least=2, most=MOST_PARTS)
    part: int = option(0, "the part that is left out, from 0", least=0, most=MOST_PARTS - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.part >= self.cross_fit:
            raise UserError(f"part: {self.part} is none of {self.cross_fit} parts (allowed: 0 to {self.cross_fit - 1})")
