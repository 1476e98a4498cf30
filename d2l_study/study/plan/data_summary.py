"""What a study's given bags are, in a few lines that `plan` always prints: groups, bags by class, images, instances and
known labels, of the whole data set and of each part of a replicate. A wrong group, or a class that has gone missing,
shows here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from d2l_study.data import BagCollection, FeatureCollection
from d2l_study.data.pool import UNKNOWN, Bags, Replicate
from d2l_study.errors import counted


@dataclass(frozen=True)
class _BagCounts:
    """What a part of a replicate holds; known: instances by their label."""

    bags: int
    positive: int
    negative: int
    groups: int
    instances: int
    known: Mapping[int, int]

    @classmethod
    def of(cls, part: Bags, group: np.ndarray) -> _BagCounts:
        """group: (bags of the whole data set,)."""
        positive, negative = (int((part.label == value).sum()) for value in (1, 0))
        known = {value: int((part.instance_label == value).sum()) for value in (1, 0, UNKNOWN)}
        return cls(len(part), positive, negative, len(np.unique(group[part.number])), len(part.instance), known)


class DataSummary:
    """Lines on a data set, and on the parts of its replicates (`6–7` where they differ), of which only counts are
    kept."""

    def __init__(self, pool: BagCollection) -> None:
        self.pool = pool
        self.parts: dict[str, list[_BagCounts]] = {"train": [], "unlabelled": [], "val": [], "test": []}

    def add(self, replicate: Replicate) -> None:
        for name, counts in self.parts.items():
            counts.append(_BagCounts.of(getattr(replicate, name), self.pool.group))

    def lines(self) -> list[str]:
        pool = self.pool
        whole = [_BagCounts.of(pool.bags, pool.group)]
        images = len(np.unique(pool.image[pool.image >= 0]))
        of_images = f"{counted(images, 'slide' if isinstance(pool, FeatureCollection) else 'image')}, "
        if isinstance(pool, FeatureCollection) and not pool.files:  # one file with all, which knows bags alone
            of_images = ""
        apart = _groups(pool, whole[0].groups)
        lines = [f"data: {pool.name}: {_bags(whole)}, {apart}; {of_images}{_instances(whole)}"]
        if isinstance(pool, FeatureCollection):
            lines.append(f"  {_vectors(pool)}")
        for name, counts in self.parts.items():
            if name == "unlabelled":  # of the arms that have some
                lines += _unlabelled([part for part in counts if part.bags])
                continue
            of = _range((part.groups for part in counts), "group")
            lines.append(f"  {name}: {_bags(counts)} of {of}; {_instances(counts)}")
        return lines + [f"  {note}" for note in pool.notes]


def _unlabelled(parts: Sequence[_BagCounts]) -> list[str]:
    """The line on unlabelled bags, whose classes nobody knows; none without parts."""
    if not parts:
        return []
    bags, instances = (_range((getattr(part, f"{what}s") for part in parts), what) for what in ("bag", "instance"))
    return [f"  unlabelled: {bags} of {_range((part.groups for part in parts), 'group')}; {instances}"]


def _groups(pool: BagCollection, groups: int) -> str:
    """What must not be split between folds; groups: how many such there are."""
    if isinstance(pool, FeatureCollection) and pool.of_patients:
        return "each a patient with all slides"
    if groups < len(pool.bags):
        return f"{counted(groups, 'group')} (patients or the like)"
    named = {pool.group_names[g] for g in pool.group.tolist()} - {*pool.names} - {f"bag {name}" for name in pool.names}
    return "each bag a group of its own" + ("" if named else " (no patients are named)")


def _vectors(pool: FeatureCollection) -> str:
    """What the vectors are: dimensions, precision, encoder, sizes of bags, places of tiles."""
    sizes = pool.bags.sizes
    encoder = f"encoder {pool.extractor}" if pool.extractor else "no encoder is named"
    places = "no places of tiles are known"
    if np.isfinite(pool.xy[:1]).all():
        anchor = f" of their {pool.tiles.anchor}" if pool.tiles.anchor else ""
        places = f"places of tiles{anchor} in {pool.tiles.unit or 'a unit that is not named'}"
    scale = f", tiles of {pool.tiles.scale}" if pool.tiles.scale else ""
    return (f"vectors of {pool.shape[0]:,} dimensions, {pool.instances.dtype}; {encoder}{scale}; instances of a bag "
            f"{sizes.min():,} to {sizes.max():,}, median {np.median(sizes):,.0f}; {places}")  # fmt: skip


def _bags(parts: Sequence[_BagCounts]) -> str:
    positive, negative = (_range(getattr(part, name) for part in parts) for name in ("positive", "negative"))
    return f"{_range((part.bags for part in parts), 'bag')} ({positive} positive, {negative} negative)"


def _instances(parts: Sequence[_BagCounts]) -> str:
    known = {value: [part.known[value] for part in parts] for value in (1, 0, UNKNOWN)}
    text = _range((part.instances for part in parts), "instance")
    if not any(known[1]) and not any(known[0]):
        return f"{text} (no labels of instances are known)"
    unknown = f", {_range(known[UNKNOWN])} unknown" if any(known[UNKNOWN]) else ""
    return f"{text} ({_range(known[1])} known positive, {_range(known[0])} known negative{unknown})"


def _range(values: Iterable[int], what: str = "") -> str:
    found = sorted(values)
    least, most = found[0], found[-1]
    numbers = f"{least:,}" if least == most else f"{least:,}–{most:,}"
    return numbers + (f" {what}{'' if most == 1 else 's'}" if what else "")
