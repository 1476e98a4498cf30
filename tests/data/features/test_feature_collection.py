"""Collections and replicates of vectors: normalisation, order, the embedded set, and real data."""

import os
from pathlib import Path

import feature_files as files
import numpy as np
import pytest

from d2l_study.data import FeatureBags
from d2l_study.data.neighbours import neighbour_means
from d2l_study.errors import UserError

pytestmark = pytest.mark.usefixtures("cache")

REAL = Path(os.environ.get("D2L_DATA", "/nowhere"))
needs_colon = pytest.mark.skipif(not (REAL / "colon_features").is_dir(), reason="D2L_DATA has no colon_features")
needs_benchmarks = pytest.mark.skipif(not (REAL / "mil_benchmarks").is_dir(), reason="D2L_DATA has no mil_benchmarks")


@pytest.fixture
def table(tmp_path):
    """Slides whose rows are in another order than their files."""
    found = files.cohort(12)[::-1]
    for slide, _ in found:
        files.trident(tmp_path / "features", slide)
    return str(files.table(tmp_path / "t.csv", found))


@pytest.mark.parametrize("bag", ["slide", "patient"])
@pytest.mark.parametrize("num_bags", [None, 2])
def test_standard_is_the_mean_and_deviation_of_the_training_bags_alone(bag, num_bags, table, tmp_path):
    if bag == "patient":
        lines = Path(table).read_text().splitlines()
        rows = [f"{line},p{i % 6}" for i, line in enumerate(lines[1:])]
        Path(table).write_text("\n".join([f"{lines[0]},patient", *rows]) + "\n")
    data = FeatureBags(path=table, folds=3, bag=bag, num_bags=num_bags)
    pool = data.load_pool()
    for replicate in data.replicates(pool, 3, base_seed=1):
        seen = pool.instances[replicate.train.instance].astype(float)
        assert np.allclose(replicate.mean, seen.mean(axis=0), rtol=1e-12)
        assert np.allclose(replicate.std, seen.std(axis=0), rtol=1e-9)
        assert replicate.mean.shape == replicate.std.shape == pool.shape and not replicate.unit_length


def test_a_dimension_that_does_not_vary_has_the_deviation_one(tmp_path):
    found = files.cohort()
    for slide, _ in found:
        slide.vectors[:, 4] = 0.1
        files.clam_h5(tmp_path / "features", slide)
    data = FeatureBags(path=str(files.table(tmp_path / "t.csv", found)), folds=3)
    replicate = data.replicate(data.load_pool(), 0, base_seed=1)
    assert replicate.std[4] == 1 and replicate.mean[4] == pytest.approx(np.float32(0.1)) and (replicate.std > 0).all()


@pytest.mark.parametrize("normalise, unit_length", [("length", True), ("none", False)])
def test_length_and_none_leave_mean_and_deviation_out(normalise, unit_length, table):
    data = FeatureBags(path=table, folds=3, normalise=normalise)
    replicate = data.replicate(data.load_pool(), 1, base_seed=1)
    assert not replicate.mean.any() and (replicate.std == 1).all() and replicate.unit_length == unit_length
    other = FeatureBags(path=table, folds=3).replicate(data.load_pool(), 1, base_seed=1)
    assert np.array_equal(replicate.train.instance, other.train.instance)


def test_bags_come_in_the_order_of_the_table_and_files_in_theirs(table):
    pool = FeatureBags(path=table).load_pool()
    assert pool.names == tuple(f"s{i}" for i in range(11, -1, -1)) and pool.slides[:3] == ("s0", "s1", "s10")
    assert [pool.slides[s] for s in pool.image[pool.bags.offsets[:-1]]] == list(pool.names)
    assert pool.image_of(0) is None and pool.images == () and pool.files[2].name == "s10.h5"


def test_neighbours_are_those_of_the_same_slide(table, rng):
    pool = FeatureBags(path=table).load_pool()
    values = rng.normal(size=len(pool.bags.instance))
    found = neighbour_means(values, pool, pool.bags, 2)
    bag = pool.names.index("s2")
    mine = np.arange(pool.bags.offsets[bag], pool.bags.offsets[bag + 1])
    distance = np.linalg.norm(pool.xy[mine][:, None] - pool.xy[mine][None], axis=2)
    assert found[mine[0]] == pytest.approx(values[mine[np.argsort(distance[0], kind="stable")[:3]]].mean())


def test_the_embedded_set_is_whole_and_its_folds_are_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = FeatureBags(path="musk1").resolved()
    assert data.path == "musk1"
    pool = data.load_pool()
    assert (len(pool.bags), int(pool.bags.label.sum()), pool.instances.shape) == (92, 47, (476, 166))
    tests = [data.replicate(pool, number, base_seed=1).test.number.tolist() for number in range(50)]
    for repeat in range(5):
        assert sorted(b for test in tests[repeat * 10 : repeat * 10 + 10] for b in test) == [*range(92)]
    assert len({tuple(test) for test in tests}) == 50
    with pytest.raises(UserError, match="50 replicates are given"):
        data.replicate(pool, 50, base_seed=1)


@needs_benchmarks
def test_elephant_has_the_shape_that_is_published():
    pool = FeatureBags(path=str(REAL / "mil_benchmarks" / "elephant.npz")).load_pool()
    assert (len(pool.bags), int(pool.bags.label.sum()), pool.instances.shape) == (200, 100, (1391, 230))


@needs_colon
def test_the_real_colon_features_are_found_with_labels_and_places():
    data = FeatureBags(path=str(REAL / "colon_features"))
    pool = data.load_pool()
    assert pool.shape == (1280,) and pool.instances.dtype == np.float16 and len(pool.bags) == 80
    assert pool.extractor.startswith("efficientnet-lite0") and pool.coordinate_unit == "level-0 pixels"
    truth = np.maximum.reduceat(pool.bags.instance_label, pool.bags.offsets[:-1])
    assert np.array_equal(truth, pool.bags.label) and not (pool.bags.instance_label < 0).any()
    image = pool.names.index("img1")
    mine = slice(pool.bags.offsets[image], pool.bags.offsets[image + 1])
    import h5py

    with h5py.File(REAL / "colon_features" / "features" / "img1.h5") as file:
        assert np.array_equal(pool.instances[pool.bags.instance[mine]], file["features"][:])
        assert np.array_equal(pool.xy[mine], file["coords"][:])
    replicate = data.replicate(pool, 3, base_seed=1)
    median = np.median(np.linalg.norm((pool.instances[replicate.train.instance[::50]] - replicate.mean) / replicate.std,
                                      axis=1))  # fmt: skip
    assert 25 < median < 45  # about √1280, as the method page says
