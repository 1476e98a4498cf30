"""What one trial is to train: the missing replicates of one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TrialRequest:
    """All that a worker needs to know, as plain values."""

    root: str
    study: str
    config_id: str
    label: str
    stage: str
    sections: dict[str, dict[str, Any]]
    replicates: tuple[int, ...]
    base_seed: int
    checksum: str
    resources: dict[str, Any]
    keep_weights: str
    code_version: str
    teachers: tuple[str, ...] = ()
    fresh: bool = False
    """Train also what another study has committed, and keep both."""
    attempt: int = 1
    """Counted in one command, as its worker or node is lost."""

    @property
    def keeps_weights(self) -> bool:
        return self.keep_weights != "none"

    @property
    def fresh_of(self) -> str | None:
        """The study whose own records go before those of others, if it trains afresh."""
        return self.study if self.fresh else None

    @property
    def steps(self) -> int:
        """Optimizer steps of each run."""
        if self.stage == "attention":
            return 0
        return self._own["steps"] * self._own.get("generations", 1)

    @property
    def interval(self) -> int:
        """Optimizer steps to the first report of a run."""
        return min(self._own["eval_every"], self._own["steps"])

    @property
    def _own(self) -> dict[str, Any]:
        return self.sections["teacher" if self.stage == "teacher" else "student"]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialRequest:
        return cls(**{**values, "replicates": tuple(values["replicates"]), "teachers": tuple(values["teachers"])})
