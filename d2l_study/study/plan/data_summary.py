"""What a study's given bags are, in a few lines that `plan` always prints: groups, bags by class, images, instances and
known labels, of the whole data set and of each part of a replicate. A wrong group, or a class that has gone missing,
shows here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from d2l_study.data import BagCollection, FeatureCollection
from d2l_study.data.pool import Bags, Replicate
from d2l_study.errors import counted


def summary(pool: BagCollection, replicates: Sequence[Replicate]) -> list[str]:
    """Lines on a data set, and on the parts of these replicates (`6–7` where they differ)."""
    images = len(np.unique(pool.image[pool.image >= 0]))
    of_images = f"{counted(images, 'slide' if isinstance(pool, FeatureCollection) else 'image')}, "
    if isinstance(pool, FeatureCollection) and not pool.files:  # one file with all, which knows bags alone
        of_images = ""
    groups = len(np.unique(pool.group))
    apart = "each bag a group of its own (no patients are named)" if groups == len(pool.bags) else (
        f"{counted(groups, 'group')} (patients or the like)")  # fmt: skip
    lines = [f"data: {pool.name}: {_bags([pool.bags])}, {apart}; {of_images}{_instances([pool.bags])}"]
    if isinstance(pool, FeatureCollection):
        lines.append(f"  {_vectors(pool)}")
    parts = {
        "train": [replicate.train for replicate in replicates], "val": [replicate.val for replicate in replicates],
        "test": [replicate.test for replicate in replicates],
    }  # fmt: skip
    for name, bags in parts.items():
        of = _range((len(np.unique(pool.group[part.number])) for part in bags), "group")
        lines.append(f"  {name}: {_bags(bags)} of {of}; {_instances(bags)}")
    return lines + [f"  {note}" for note in pool.notes]


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


def _bags(parts: Sequence[Bags]) -> str:
    positive = _range(int((part.label == 1).sum()) for part in parts)
    negative = _range(int((part.label == 0).sum()) for part in parts)
    return f"{_range((len(part) for part in parts), 'bag')} ({positive} positive, {negative} negative)"


def _instances(parts: Sequence[Bags]) -> str:
    known = {value: [int((part.instance_label == value).sum()) for part in parts] for value in (1, 0, -1)}
    text = _range((len(part.instance) for part in parts), "instance")
    if not any(known[1]) and not any(known[0]):
        return f"{text} (no labels of instances are known)"
    unknown = f", {_range(known[-1])} unknown" if any(known[-1]) else ""
    return f"{text} ({_range(known[1])} known positive, {_range(known[0])} known negative{unknown})"


def _range(values: Iterable[int], what: str = "") -> str:
    found = sorted(values)
    least, most = found[0], found[-1]
    numbers = f"{least:,}" if least == most else f"{least:,}–{most:,}"
    return numbers + (f" {what}{'' if most == 1 else 's'}" if what else "")
