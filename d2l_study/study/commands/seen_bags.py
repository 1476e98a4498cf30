"""Bags that `predict` is given and that the model has seen in training: their scores flatter.

seen = SeenBags.of_model(found)
for bag in bags: seen.add(bag)
print(seen.note())
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np

from d2l_study.data.decoded_cache import from_cache_alone
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.fingerprint import TrainingMarks, text_mark
from d2l_study.errors import counted, listed
from d2l_study.inference.prediction_file import PredictedBag
from d2l_study.study.commands.label_truth import KnownSlides
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.trial.model_reference import FoundModel

_SEEN = ("training", "unlabelled", "validation")


class SeenBags:
    """Counts the bags that a model was trained on or selected by. They are recognised by their files, or by their
    names; `evaluate` also knows copies of other names.

    is_seen: whether the model saw a bag, None where nothing is known of its bags, or where they are drawn and have no
    names; how: by what it is recognised, in words.
    """

    def __init__(self, is_seen: Callable[[PredictedBag], bool] | None, how: str = "") -> None:
        self.is_seen, self.how = is_seen, how
        self.names: list[str] = []

    @classmethod
    def of_model(cls, found: FoundModel) -> Self:
        """What its folder says of a model, or the data set of its run, where that is in the cache."""
        if found.root is None:
            marks = found.loaded.record.trained_on
            return cls(None) if marks is None else cls(_by_marks(marks), "by name")
        ledger = Ledger(open_storage(found.root))
        with from_cache_alone():
            known = KnownSlides.of_model(ledger, found.config_id, found.replicate, None)
        return cls(None) if known.pool is None else cls(_by_data(known), "by file or name")

    def add(self, bag: PredictedBag) -> None:
        """A bag that was scored."""
        if self.is_seen is not None and self.is_seen(bag):
            self.names.append(bag.name)

    def note(self) -> str:
        """What is to be said at the end; "" if none was seen."""
        if not self.names:
            return ""
        one = len(self.names) == 1
        return (
            f"{counted(len(self.names), 'bag')} {'is one' if one else 'are ones'} that this model was trained on or "
            f"selected by ({self.how}), so that {'its' if one else 'their'} scores flatter: {listed(self.names, 5)}"
        )


def _by_marks(marks: TrainingMarks) -> Callable[[PredictedBag], bool]:
    names = set(marks.name) - {""}
    return lambda bag: text_mark(bag.name) in names


def _by_data(known: KnownSlides) -> Callable[[PredictedBag], bool]:
    pool = known.pool
    assert pool is not None
    numbers = [number for number, part in known.part_of.items() if part in _SEEN]
    names = {pool.names[number] for number in numbers}
    whole = known.whole_set
    if whole is not None:  # its bags may be named by their numbers, as those of every such file
        return lambda bag: bag.name in names and any(_resolved(source) == whole for source in bag.sources)
    files: set[Path] = set()
    if isinstance(pool, FeatureCollection):
        seen = np.isin(pool.bag_of_slide, numbers)
        files = {file.resolve() for file, its in zip(pool.files, seen.tolist(), strict=True) if its}
    else:  # an image may be in bags of several parts; then its name alone tells
        there = pool.image >= 0
        unseen = set(pool.image[there & ~np.isin(pool.bags.bag_of, numbers)].tolist())
        files = {pool.images[i].resolve() for i in set(pool.image[there].tolist()) - unseen}
    return lambda bag: bag.name in names or any(_resolved(source) in files for source in bag.sources)


def _resolved(source: str) -> Path:
    return Path(source).resolve()
