"""Bags that a model has seen are recognised by content, name and patient; positions are no names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from d2l_study.data import FeatureBags
from d2l_study.data.features.embedded import embedded_file
from d2l_study.data.fingerprint import ensemble_marks, find_shared, joined_marks, training_marks


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))


def _halves(folder: Path, **more: np.ndarray) -> tuple[FeatureBags, FeatureBags]:
    """MUSK1 as two files of whole data sets, whose bags have no names unless they are given."""
    with np.load(embedded_file("musk1")) as file:
        arrays = dict(file)
    index, label = arrays["bag_index"], arrays["bag_label"]
    for name, parity in (("even", 0), ("odd", 1)):
        kept = np.arange(len(label)) % 2 == parity
        new = np.cumsum(kept) - 1
        named = {key: values[kept] for key, values in more.items()}
        np.savez(folder / f"{name}.npz", features=arrays["features"][kept[index]], bag_label=label[kept],
                 bag_index=new[index[kept[index]]], **named)  # fmt: skip
    even, odd = (FeatureBags(path=str(folder / f"{name}.npz"), folds=3) for name in ("even", "odd"))
    return even, odd


def test_the_marks_of_folds_together_are_those_of_each(tmp_path: Path) -> None:
    even, _ = _halves(tmp_path)
    pool = even.load_pool()
    folds = list(even.replicates(pool, 3, 5))
    together, each = ensemble_marks(folds), joined_marks(map(training_marks, folds))
    assert len(together.content) == len(pool.bags) == len(set(each.content))
    assert set(together.content) == set(each.content)
    assert set(together.part) == {"training"}  # every bag trains one of the folds
    one = ensemble_marks(folds[:1])
    assert sorted(one.content) == sorted(training_marks(folds[0]).content)
    assert one.part.count("validation") == len(folds[0].val)


def test_numbers_in_a_file_are_no_names(tmp_path: Path) -> None:
    even, odd = _halves(tmp_path)
    pool = even.load_pool()
    known = training_marks(even.replicate(pool, 0, 5))
    assert not find_shared(known, odd.load_pool())
    shared = find_shared(known, pool)
    assert len(shared.content) == len(known.content) and not shared.name and not shared.group


def test_names_that_are_given_are(tmp_path: Path) -> None:
    names = np.array([f"m{b // 2:03d}" for b in range(92)])  # an even bag and the odd one after it
    even, odd = _halves(tmp_path, bag_name=names)
    replicate = even.replicate(even.load_pool(), 0, 5)
    shared = find_shared(training_marks(replicate), odd.load_pool())
    assert len(shared.name) == len(replicate.train) + len(replicate.val) and not shared.content


def test_unlabelled_bags_count_as_seen(tmp_path: Path) -> None:
    even, _ = _halves(tmp_path)
    pool = even.load_pool()
    few, more = (dataclasses.replace(even, num_bags=6, unlabelled_bags=m).replicate(pool, 0, 5) for m in (0, 5))
    for marks in (training_marks, lambda replicate: ensemble_marks([replicate])):
        before, now = marks(few), marks(more)
        assert now.part.count("training") == before.part.count("training") + 5 == 11
        assert len(find_shared(now, pool).content) == len(find_shared(before, pool).content) + 5
