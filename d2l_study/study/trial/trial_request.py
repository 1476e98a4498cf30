"""What one trial is to train: replicates of one configuration, with all that a worker needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from d2l_study.study.space.keys import TEACHER_READINGS


@dataclass(frozen=True)
class TrialRequest:
    """The request for one trial, as plain values that go to a worker.

    root, study: where its results belong. config_id, label: of the configuration. stage: `teacher`, `student` or a
    reference. sections: the configuration's `data`, `teacher`, … as in a space. teachers: the config_ids of the
    teachers that a student learns from. resources: the `resources` section. keep_weights: `all`, `best` or `none`.
    """

    root: str
    study: str
    config_id: str
    label: str
    stage: str
    sections: dict[str, dict[str, Any]]
    replicates: tuple[int, ...]
    base_seed: int
    data_checksum: str
    resources: dict[str, Any]
    keep_weights: str
    code_version: str
    teachers: tuple[str, ...] = ()
    fresh: bool = False
    """Train also what another study has committed, and keep both."""
    once_fresh: bool = False
    """An earlier command of the study trained afresh. What is trained is that of `fresh`, but its own results are read
    before those of others, as tables show them."""
    attempt: int = 1
    """From 1; counted within one command, as workers or nodes are lost."""
    halvings: int = 0
    """How often its stacks are halved, since memory ran out in earlier attempts."""

    @property
    def keeps_weights(self) -> bool:
        return self.keep_weights != "none"

    @property
    def fresh_of(self) -> str | None:
        """The study, if it trains afresh or did so before: then its own records are read before those of other studies
        (`StudyFolder.fresh_of`)."""
        return self.study if self.fresh or self.once_fresh else None

    @property
    def made_by(self) -> str | None:
        """The study, if it trains afresh: then runs that other studies made are trained again."""
        return self.study if self.fresh else None

    @property
    def steps(self) -> int:
        """Optimizer steps of each run."""
        if self.stage in TEACHER_READINGS:
            return 0
        return self._trained["steps"] * self._trained.get("generations", 1)

    @property
    def interval(self) -> int:
        """Optimizer steps to the first report of a run."""
        return min(self._trained["eval_every"], self._trained["steps"])

    @property
    def _trained(self) -> dict[str, Any]:
        """The section of the network that is trained."""
        return self.sections["student" if "student" in self.sections else "teacher"]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialRequest:
        return cls(**{**values, "replicates": tuple(values["replicates"]), "teachers": tuple(values["teachers"])})
