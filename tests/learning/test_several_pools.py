"""Replicates of several pools, or in several units, that are trained in one call: each learns from its own."""

import dataclasses

import numpy as np
import pytest
from vector_bags import vector_replicate

from d2l_study.data.colon_synthetic import SyntheticColonBags
from d2l_study.learning import StudentConfig, TeacherConfig, fit_reference, fit_teacher
from d2l_study.learning.class_maps import fit_class_map
from d2l_study.learning.packed.training import Pack, fit_teachers
from d2l_study.learning.packing import instance_kinds
from d2l_study.learning.prediction import Compute

CONFIG = TeacherConfig(
    extractor="mlp", feature_width=8, attention_width=4, steps=30, eval_every=10, learning_rate=1e-2, lambda_adv=0.5
)


def numbered(*replicates):
    return [dataclasses.replace(replicate, number=number) for number, replicate in enumerate(replicates)]


def reloaded(replicate):
    """The same replicate, of a pool that was loaded once more."""
    pool = replicate.pool
    return dataclasses.replace(replicate, pool=dataclasses.replace(pool, instances=pool.instances.copy()))


def two_pools():
    """Of one checksum, as pools made by hand may have, and of one shape: the instances alone differ."""
    first = vector_replicate()
    other = dataclasses.replace(first.pool, instances=first.pool.instances[::-1].copy())
    return numbered(first, dataclasses.replace(first, pool=other))


def two_units():
    first = vector_replicate()
    return numbered(first, dataclasses.replace(first, mean=np.zeros(7), std=np.ones(7), unit_length=True))


def two_shapes():
    return numbered(vector_replicate(), vector_replicate(dimensions=5))


def assert_alike(found, wanted):
    assert [one.replicate for one in found] == [one.replicate for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.status == "done" and one.logits.keys() == other.logits.keys()
        for key, logits in one.logits.items():
            assert logits == pytest.approx(other.logits[key], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("replicates", [two_pools(), two_units(), two_units()[::-1], two_shapes()])
@pytest.mark.parametrize("compute", [Compute(), Compute(packed=True)])
def test_each_teacher_learns_from_its_own_pool_in_its_own_units(replicates, compute):
    alone = [fit_teacher(CONFIG, [replicate])[0] for replicate in replicates]
    first, second = (one.logits["test", "bag"] for one in alone)
    assert np.abs(first - second).max() > 0.1  # so that one in place of the other would be seen
    assert_alike(fit_teacher(CONFIG, replicates, compute=compute), alone)
    assert_alike(fit_teachers([(CONFIG, replicate) for replicate in replicates]), alone)


def test_replicates_of_one_pool_share_a_pack_even_where_it_was_loaded_twice(monkeypatch):
    first, second = two_pools()
    third, fourth = numbered(first, second, reloaded(first), reloaded(second))[2:]
    replicates = [first, second, third, fourth]
    assert instance_kinds(replicates) == [0, 1, 0, 1]
    sizes = []
    real = Pack.__init__
    monkeypatch.setattr(Pack, "__init__", lambda self, own, *rest: (sizes.append(len(own)), real(self, own, *rest))[1])
    alone = [fit_teacher(CONFIG, [replicate])[0] for replicate in replicates]
    assert sizes == []
    assert_alike(fit_teachers([(CONFIG, replicate) for replicate in replicates]), alone)
    assert sizes == [2, 2]
    assert_alike(fit_teacher(CONFIG, [first, third]), [alone[0], alone[2]])
    assert sizes == [2, 2, 2]


def test_each_student_reads_instances_of_its_own_shape():
    config = StudentConfig(network="mlp", feature_width=8, augment="none", steps=10, learning_rate=1e-2)
    replicates = two_shapes()
    assert_alike(
        fit_reference("bag_label", config, replicates),
        [fit_reference("bag_label", config, [replicate])[0] for replicate in replicates],
    )


def test_each_class_map_is_of_the_images_of_its_own_pool(tmp_path, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path))
    config = StudentConfig(steps=2, eval_every=2, batch_bags=2, learning_rate=3e-3, augment="none")
    made = [SyntheticColonBags(images=12, side=96, nuclei=6, witnesses=share, folds=4) for share in (0.9, 0.3)]
    replicates = numbered(*(data.replicate(data.load_pool(), 0, base_seed=1) for data in made))
    alone = [fit_class_map("cam", config, [replicate])[0] for replicate in replicates]
    assert not np.array_equal(alone[0].logits["test", "bag"], alone[1].logits["test", "bag"])
    assert_alike(fit_class_map("cam", config, replicates), alone)
