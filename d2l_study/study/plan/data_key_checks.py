"""Checks of a new study's `data` keys that need the data: keys that have no effect with this table, and values of an
axis that give the same bags. A study that exists is not checked again."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from d2l_study.data import BagCollection, FeatureCollection
from d2l_study.data.collection import VAL
from d2l_study.data.folds import partition_of
from d2l_study.data.given_bags import GivenBags
from d2l_study.data.pool import Replicate
from d2l_study.errors import UserError, listed, short
from d2l_study.options import as_yaml
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.files import shown_path
from d2l_study.study.space.space import Space


class BagsDigest:
    """A digest of the bags of a `data` section, replicate by replicate: of what is trained on, and how it is
    normalised."""

    def __init__(self, pool: BagCollection) -> None:
        self._hash = hashlib.sha256(repr((pool.checksum, pool.shape)).encode())

    def add(self, replicate: Replicate) -> None:
        for norm in (replicate.mean, replicate.std, np.array(replicate.unit_length)):
            self._hash.update(np.ascontiguousarray(norm).tobytes())
        for bags in (replicate.train, replicate.val, replicate.test, replicate.unlabelled):
            for values in (bags.offsets, bags.instance, bags.label, bags.instance_label, bags.number):
                self._hash.update(np.ascontiguousarray(values).data)

    def digest(self) -> bytes:
        return self._hash.digest()


class DataKeyChecks:
    """The checks of one space, whose `data` sections come one by one."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.seen: dict[Any, Configuration] = {}

    def check(self, mine: Sequence[Configuration], pool: BagCollection, bags: BagsDigest) -> None:
        """`UserError` if a key of a `data` section has no effect, or if the section gives the same bags as an earlier
        one.

        mine: the configurations with this section; pool: its data; bags: the digest of all its replicates."""
        self._check_folds(mine, pool)
        if self.space.adaptive:
            return
        for configuration in mine:
            others = tuple(
                (name, tuple(sorted(section.effect().items())))
                for name, section in configuration.sections.items() if name != "data"
            )  # fmt: skip
            effect = (bags.digest(), configuration.stage, others)
            first = self.seen.setdefault(effect, configuration)
            if first.sections["data"] != configuration.sections["data"]:
                raise UserError(f"{shown_path(self.space.path)}: {_same(first, configuration)}")

    def _check_folds(self, mine: Sequence[Configuration], pool: BagCollection) -> None:
        """`UserError` if the space sets `data.folds` to another number than the table's, or the table gives the whole
        split."""
        data = mine[0].sections["data"]
        if not isinstance(data, GivenBags):
            return
        partition, count = partition_of(pool, data.folds)
        if partition in ("given folds", "given partitions") and count != data.folds:
            why = f"the {'data give' if isinstance(pool, FeatureCollection) else 'table gives'} {count} folds"
        elif (
            partition in ("given split", "given splits")
            and pool.part is not None
            and (pool.part == VAL).any(axis=-1).all()
        ):
            why = "the table says what is trained on, validated and tested"
        else:
            return
        column = "" if isinstance(pool, FeatureCollection) else " (its column split)"
        arms = {c.method for c in mine} & set(self.space.methods)
        for arm in self.space.methods:
            written = self.space.arm_keys(arm).get("data", {}).get("folds")
            values = written if isinstance(written, tuple) else (written,)
            if arm in arms and (data.folds in values or isinstance(written, Distribution)):
                raise UserError(
                    f"{shown_path(self.space.path)}: data.folds: {data.folds} does nothing: {why}{column}; leave "
                    "data.folds out"
                )


def _same(first: Configuration, second: Configuration) -> str:
    one, other = (dataclasses.asdict(c.sections["data"]) for c in (first, second))
    keys = [key for key in one if one[key] != other.get(key)]
    values = listed([f"data.{key} {_text(one[key])} and {_text(other.get(key))}" for key in keys], 4)
    arms = f" (methods {first.method} and {second.method})" if first.method != second.method else ""
    return f"{values} give the same bags of the same patches{arms}; leave one of them out"


def _text(value: Any) -> str:
    return short(value if isinstance(value, str) else as_yaml(value))
