"""The bags that models are evaluated on, and the scores that each model gives them.

bags = EvaluatedBags.of(collection)
scores = score_bags(loaded, bags)
together = ensemble_of([scores, others], "ensemble")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.pool import UNKNOWN, Bags
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.learning.metrics import probability


@dataclass(frozen=True)
class EvaluatedBags:
    """B bags of a collection with I instances in them, in their order.

    pool: the collection; number: (B,) int64 which of its bags.
    """

    pool: BagCollection
    number: np.ndarray

    @classmethod
    def of(cls, pool: BagCollection, without: frozenset[str] = frozenset()) -> Self:
        """All bags of a collection but those of the names given."""
        return cls(pool, np.array([b for b, name in enumerate(pool.names) if name not in without], np.int64))

    @cached_property
    def bags(self) -> Bags:
        """They as bags over the pool."""
        return self.pool.bags.subset(self.number)

    @cached_property
    def positions(self) -> np.ndarray:
        """(I,) int64 where their instances are in the arrays of the collection, such as `xy`."""
        return self.pool.bags.select(self.number)[0]

    @property
    def label(self) -> np.ndarray:
        """(B,) int8 0 or 1."""
        return self.bags.true_label

    @property
    def names(self) -> tuple[str, ...]:
        """(B,)"""
        return tuple(self.pool.names[b] for b in self.number.tolist())

    @cached_property
    def patient(self) -> np.ndarray:
        """(B,) int64 the patient of each bag, 0, 1, …; where no patients are named each bag is one of its own."""
        return np.unique(self.pool.group[self.number], return_inverse=True)[1].astype(np.int64)

    @property
    def patients(self) -> int:
        return int(self.patient.max(initial=-1)) + 1

    @property
    def instance_label(self) -> np.ndarray:
        """(I,) int8 0, 1, or −1 unknown."""
        return self.bags.instance_label

    @property
    def known(self) -> np.ndarray:
        """(I,) bool whose truth is known."""
        return self.instance_label != UNKNOWN


@dataclass(frozen=True)
class ModelScores:
    """The scores of a model for B bags and their I instances.

    bag_logit: (B,) float32; instance_logit: (I,) float32, of each as a bag of its own; bag_threshold,
    instance_threshold: the logits above which it calls a bag or an instance positive, as set in training; temperature:
    as fitted to the validation bags; None where a model has none. facts: what there is to say of the model, in words.
    """

    name: str
    bag_logit: np.ndarray
    instance_logit: np.ndarray
    bag_threshold: float | None = None
    instance_threshold: float | None = None
    temperature: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


def score_bags(model: LoadedModel, bags: EvaluatedBags, name: str, facts: Mapping[str, str]) -> ModelScores:
    """The scores of a model. name, facts: as of `ModelScores`. `UserError` if one is no finite number."""
    bag, single = model.collection_logits(bags.pool, [bags.bags, bags.bags.singles()])
    return ModelScores(
        name, bag, single, model.bag_threshold, model.instance_threshold, model.record.temperature, facts
    )


def ensemble_of(members: Sequence[ModelScores], name: str, facts: Mapping[str, str]) -> ModelScores:
    """Several models as one, whose probability is the mean of theirs.

    Its thresholds are the means of the members' thresholds as probabilities, none where a member has none: they come
    from training alone, as the members' do. It has no temperature, which would have to be fitted to bags that no member
    was trained on.
    """
    return ModelScores(
        name, mean_logit([m.bag_logit for m in members]), mean_logit([m.instance_logit for m in members]),
        _mean_threshold([m.bag_threshold for m in members]), _mean_threshold([m.instance_threshold for m in members]),
        None, facts,
    )  # fmt: skip


def mean_logit(logits: Sequence[np.ndarray]) -> np.ndarray:
    """(n,) float32 the logit of the mean of probabilities, from the logits of each model, (n,). Exact where the
    probabilities are 0 or 1 to rounding: log(mean σ(l)) − log(mean σ(−l))."""
    every = np.stack([np.asarray(one, np.float64) for one in logits])
    positive, negative = (np.logaddexp.reduce(-np.logaddexp(0.0, sign * every), axis=0) for sign in (-1, 1))
    return (positive - negative).astype(np.float32)


def _mean_threshold(thresholds: Sequence[float | None]) -> float | None:
    known = [value for value in thresholds if value is not None]
    return float(mean_logit([np.array([value]) for value in known])[0]) if len(known) == len(thresholds) else None


def threshold_score(threshold: float) -> float:
    """A threshold as a probability."""
    return float(probability(np.array(threshold)))


@dataclass(frozen=True)
class EvaluationFacts:
    """What is said beside the numbers of an evaluation, in words. title: what was evaluated on what; data: names and
    values; notes: sentences on data and models; shared: sentences on bags that training has seen; command: that was
    typed, empty where there is none; versions: package -> version."""

    title: str
    data: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    shared: Sequence[str] = ()
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
