"""The numbers of `evaluate` as tables and a page: its door to `analysis`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from d2l_study.inference.evaluated_scores import EvaluatedBags, EvaluationFacts, ModelScores, ensemble_of
from d2l_study.inference.output_folder import shown

if TYPE_CHECKING:
    from analysis.evaluation.evaluation import Evaluation

METRICS = "metrics.csv"
PAGE = "evaluation.html"


@dataclass(frozen=True)
class ScoredModels:
    """A model that was named, or all that are stored of a trial: an ensemble. members: at least one; name, facts: of
    the ensemble, None where it is none."""

    members: tuple[ModelScores, ...]
    ensemble: ModelScores | None = None

    @classmethod
    def of(cls, members: Sequence[ModelScores], name: str | None, facts: dict[str, str]) -> ScoredModels:
        """name: of the ensemble, None for a single model."""
        return cls(tuple(members), None if name is None else ensemble_of(members, name, facts))

    @property
    def all(self) -> list[ModelScores]:
        """The ensemble first, if it is one, then its members."""
        return [*([self.ensemble] if self.ensemble is not None else []), *self.members]


class EvaluationTables:
    """What `evaluate` shows of an evaluation, made when asked for."""

    def __init__(self, bags: EvaluatedBags, models: Sequence[ScoredModels]) -> None:
        from analysis.evaluation.evaluation import Ensemble, evaluate

        self.found: Evaluation = evaluate(bags, [
            one.members[0] if one.ensemble is None else Ensemble(one.ensemble, one.members) for one in models
        ])  # fmt: skip

    def lines(self) -> list[str]:
        """The tables of a terminal."""
        from analysis.evaluation.text_table import text_lines

        return "\n".join(text_lines(self.found)).rstrip("\n").splitlines()

    def files(self, facts: EvaluationFacts) -> dict[str, bytes]:
        """`metrics.csv` and `evaluation.html`."""
        from analysis.evaluation.long_form import csv_text
        from analysis.evaluation.page import make_page

        return {METRICS: shown(csv_text(self.found)).encode(), PAGE: shown(make_page(self.found, facts)).encode()}


def is_ours(name: str, data: bytes) -> bool:
    """Whether the beginning of a file of that name is one that `evaluate` wrote."""
    if name == METRICS:
        from analysis.evaluation.long_form import COLUMNS

        return data.startswith(",".join(COLUMNS).encode())
    return b"<title>Evaluation of " in data
