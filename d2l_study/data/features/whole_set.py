"""The collection of a file that holds a whole data set."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from d2l_study.data.features.checks import common_metadata
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.features.feature_file import Tiles
from d2l_study.data.features.single_file import describe_set, read_arrays
from d2l_study.data.features.store import NAME, open_store
from d2l_study.data.pool import Bags
from d2l_study.data.purpose import TRAINING, Purpose
from d2l_study.errors import UserError, listed


def collect_set(
    path: Path, truth: str | None = None, skip_empty: bool = False, purpose: Purpose = TRAINING
) -> FeatureCollection:
    """All bags of such a file; its vectors keep their order, bags are in the order of their numbers."""
    arrays = read_arrays(path, truth, purpose)

    def describe() -> tuple[list, dict]:
        file = describe_set(path, arrays.index)
        return [file], common_metadata([file])

    store = open_store([path], {"file": "whole set"}, describe)
    order = np.argsort(arrays.index, kind="stable")
    sizes = np.bincount(arrays.index, minlength=len(arrays.label))
    number = np.arange(len(arrays.label))
    bags = Bags(
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), order, arrays.label, arrays.truth[order],
        arrays.label, number,
    )  # fmt: skip
    content = hashlib.sha256(f"{store.checksum}|{list(arrays.names)}".encode())
    for values in (bags.offsets, bags.instance, bags.label, bags.instance_label, arrays.fold):
        content.update(b"none" if values is None else np.ascontiguousarray(values).tobytes())
    counts = np.zeros(len(number), np.int64)
    counts[: len(store.counts)] = store.counts
    moments = np.zeros((len(number), *store.moments.shape[1:]))
    moments[: len(store.moments)] = store.moments
    found = FeatureCollection(
        NAME, store.instances, arrays.truth, content.hexdigest()[:16], bags=bags, names=arrays.names, group=number,
        group_names=tuple(f"bag {name}" for name in arrays.names), xy=np.full((len(order), 2), np.nan),
        image=bags.bag_of, fold=arrays.fold, notes=arrays.notes, slides=arrays.names,
        tiles=Tiles(), side=np.full(len(number), np.nan), moments=moments, counts=counts, bag_of_slide=number,
    )  # fmt: skip
    if len(empty := np.flatnonzero(sizes == 0)) and not skip_empty:
        raise UserError(f"{path}: bags without a vector: {listed(arrays.names[b] for b in empty)}; data.skip_empty: "
                        "true leaves them out")  # fmt: skip
    return found.without_empty()
