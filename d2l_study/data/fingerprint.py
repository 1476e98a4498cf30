"""Which bags and patients a model was trained on, as digests: enough to recognise them, not to read them.

    known = training_marks(pool, replicate)            # of the bags that trained and selected the model
    shared = find_shared(known, other_pool)            # which bags of another collection are among them

A digest of a bag's content depends on its instances alone: not on their order, the file's layout, or its name. Names
of bags and patients are kept as digests, too, since a model travels where its patients' names must not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from d2l_study.data.collection import BagCollection, own_group
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.errors import UserError

_DIGITS = 16
"""Hexadecimal digits of a digest: two of a million bags are alike by chance once in 10⁷ times."""
_BLOCK = 64 * 2**20
"""Bytes of instances that are read at a time."""

FIELDS = ("part", "name", "group", "content")


@dataclass(frozen=True)
class TrainingMarks:
    """The bags that a model was trained on, and those that it was selected by.

    part: `training` or `validation`, of each bag; name, group: digests of the bag's and its patient's name, "" where
    bags are drawn; content: digest of its instances; instances: of drawn bags, digests of each distinct instance, which
    another draw of bags may share.
    """

    part: tuple[str, ...] = ()
    name: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    instances: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, list[str]]:
        return {key: list(getattr(self, key)) for key in (*FIELDS, "instances")}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], where: str) -> Self:
        """As of `to_dict`. where: the file, for messages. `UserError` for what are no such lists."""
        found: dict[str, tuple[str, ...]] = {}
        for key in (*FIELDS, "instances"):
            values = content.get(key)
            if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
                raise UserError(f"{where}: trained_on.{key}: expected a list of texts")
            found[key] = tuple(values)
        if len({len(found[key]) for key in FIELDS}) > 1:
            raise UserError(f"{where}: trained_on: lists of unequal lengths; expected one entry for each bag")
        return cls(**found)


@dataclass(frozen=True)
class SharedBags:
    """What a collection shares with the data of a model's training: names of its bags, in its own words.

    content: bags of the same instances; name: bags of the same name, other content; group: bags of a patient of the
    same name; patient_there: bags named as a patient of bags of the training; bag_there: bags of a patient who is named
    as a bag of the training; instances: drawn bags' instances, how many are the same.
    """

    content: tuple[str, ...] = ()
    name: tuple[str, ...] = ()
    group: tuple[str, ...] = ()
    patient_there: tuple[str, ...] = ()
    bag_there: tuple[str, ...] = ()
    instances: int = 0

    def __bool__(self) -> bool:
        return bool(self.bags or self.instances)

    @property
    def bags(self) -> frozenset[str]:
        """The names of all of them."""
        return frozenset((*self.content, *self.name, *self.group, *self.patient_there, *self.bag_there))


def training_marks(replicate: Replicate) -> TrainingMarks:
    """The marks of a replicate's training and validation bags, unlabelled ones among those of training. All their
    instances are read."""
    parts = _seen_parts(replicate)
    part = tuple(word for word, bags in parts for _ in range(len(bags)))
    pool = replicate.pool
    if not isinstance(pool, BagCollection):
        content = tuple(mark for _, bags in parts for mark in content_marks(pool, bags))
        drawn = np.unique(np.concatenate([bags.instance for _, bags in parts]))
        empty = ("",) * len(part)
        return TrainingMarks(part, empty, empty, content, tuple(sorted(set(_instance_marks(pool, drawn)))))
    return _marks_of_bags(pool, [int(b) for _, bags in parts for b in bags.number], part)


def _seen_parts(replicate: Replicate) -> list[tuple[str, Bags]]:
    training = [("training", replicate.train), ("training", replicate.unlabelled)]
    return [*training, ("validation", replicate.val)]


def joined_marks(known: Iterable[TrainingMarks]) -> TrainingMarks:
    """The marks of several models as one: a bag that any of them has seen counts as seen."""
    every = list(known)
    joined = (tuple(mark for one in every for mark in getattr(one, key)) for key in (*FIELDS, "instances"))
    return TrainingMarks(*joined)


def ensemble_marks(replicates: Iterable[Replicate]) -> TrainingMarks:
    """The marks of several replicates of one pool, at least one, as one. A given bag is read once, though several
    replicates have seen it."""
    of_drawn: list[TrainingMarks] = []
    seen: dict[int, str] = {}
    pool: Pool | None = None
    for replicate in replicates:
        pool = replicate.pool
        if not isinstance(pool, BagCollection):
            of_drawn.append(training_marks(replicate))
            continue
        for word, bags in _seen_parts(replicate):
            for b in bags.number.tolist():
                seen[b] = word if word == "training" else seen.get(b, word)
    if not isinstance(pool, BagCollection):
        return joined_marks(of_drawn)
    numbers = sorted(seen)
    return _marks_of_bags(pool, numbers, tuple(seen[b] for b in numbers))


def find_shared(
    known: TrainingMarks, pool: BagCollection, are_slides: bool = False, known_are_slides: bool = False
) -> SharedBags:
    """Which bags of a collection a model was trained on or selected by. All instances of the collection are read.

    A bag without a patient may be a patient itself, so that its name is compared with those of patients, too.
    are_slides: the collection's bags are known to be slides; known_are_slides: those of the training are.
    """
    content, names, groups = set(known.content), set(known.name) - {""}, set(known.group) - {""}
    if _has_no_names(pool):
        names, groups = set(), set()
    found: dict[str, list[str]] = {key: [] for key in ("content", "name", "group", "patient_there", "bag_there")}
    for b, mark in enumerate(content_marks(pool, pool.bags)):
        name, group = pool.names[b], pool.group_names[pool.group[b]]
        alone = group == own_group(name)
        if mark in content:
            found["content"].append(name)
        elif text_mark(name) in names:
            found["name"].append(name)
        elif text_mark(group) in groups:
            found["group"].append(name)
        elif alone and not are_slides and text_mark(name) in groups:
            found["patient_there"].append(name)
        elif not alone and not known_are_slides and text_mark(own_group(group)) in groups:
            found["bag_there"].append(name)
    count = 0
    if known.instances:
        drawn = set(known.instances)
        count = sum(mark in drawn for mark in _instance_marks(pool, np.unique(pool.bags.instance)))
    return SharedBags(**{key: tuple(bags) for key, bags in found.items()}, instances=count)


def _marks_of_bags(pool: BagCollection, numbers: Sequence[int], part: tuple[str, ...]) -> TrainingMarks:
    """The marks of whole bags of a collection."""
    if _has_no_names(pool):
        names = groups = ("",) * len(numbers)
    else:
        names = tuple(text_mark(pool.names[b]) for b in numbers)
        groups = tuple(text_mark(pool.group_names[pool.group[b]]) for b in numbers)
    return TrainingMarks(part, names, groups, tuple(content_marks(pool, pool.bags.subset(numbers))))


def _has_no_names(pool: BagCollection) -> bool:
    """Whether the names of bags are their numbers in a file of a whole data set, which every such file has."""
    of_one_file = isinstance(pool, FeatureCollection) and not pool.files
    return of_one_file and pool.names == tuple(map(str, range(len(pool.names))))


def content_marks(pool: Pool, bags: Bags) -> list[str]:
    """A digest of each bag's instances, whatever their order."""
    found = []
    for b in range(len(bags)):
        instance = bags.instance[bags.offsets[b] : bags.offsets[b + 1]]
        digests = sorted(_digests(pool, instance))
        found.append(hashlib.sha256(b"".join(digests)).hexdigest()[:_DIGITS])
    return found


def text_mark(text: str) -> str:
    """The digest of a name."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:_DIGITS]


def _instance_marks(pool: Pool, instance: np.ndarray) -> Iterable[str]:
    return (digest.hex()[:_DIGITS] for digest in _digests(pool, instance))


def _digests(pool: Pool, instance: np.ndarray) -> Iterable[bytes]:
    """A digest of each instance. Vectors count as float32, since the same ones are stored in several types."""
    size = max(1, _BLOCK // max(1, pool.instances.dtype.itemsize * int(np.prod(pool.shape))))
    for first in range(0, len(instance), size):
        block = pool.instances[instance[first : first + size]]
        block = block if block.dtype == np.uint8 else block.astype(np.float32)
        yield from (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in block)
