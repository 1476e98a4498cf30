"""Flips, turns and stains: that they change what they should and nothing else, and enter no older identity."""

import numpy as np
import pytest

from d2l_study.data.streams import Streams
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig
from d2l_study.learning.augmentation import EOSIN, HEMATOXYLIN, apply_symmetry, augmented, jitter_stains, stain_amounts
from d2l_study.learning.batches import draw_batch
from d2l_study.learning.distillation import draw_student_batch
from d2l_study.learning.prediction import Compute, Normalise

STREAMS = Streams("tissue", 1, 0)
HISTOLOGY = TeacherConfig(augment="histology")


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).integers(20, 250, (6, 3, 9, 9), np.uint8)


BAGS = np.array([0, 0, 0, 1, 1, 1])


def test_the_eight_symmetries_are_all_there_is(patches):
    """All different, none changes a pixel's value, and turning four times by a quarter is nothing."""
    one = np.repeat(patches[:1], 8, axis=0)
    found = apply_symmetry(one, np.arange(8))
    assert len({patch.tobytes() for patch in found}) == 8
    assert np.array_equal(np.sort(found.reshape(8, -1)), np.sort(one.reshape(8, -1)))
    assert np.array_equal(found[0], one[0]) and np.array_equal(found[1], np.rot90(one[0], axes=(1, 2)))
    back = one
    for _ in range(4):
        back = apply_symmetry(back, np.ones(8, int))
    assert np.array_equal(back, one)


def test_patches_that_are_not_square_keep_their_shape():
    oblong = np.arange(2 * 3 * 4 * 6, dtype=np.uint8).reshape(2, 3, 4, 6)
    found = [apply_symmetry(oblong, np.full(2, kind)) for kind in range(8)]
    assert len({f.tobytes() for f in found}) == 4


def test_no_change_of_stain_is_none(patches):
    assert np.array_equal(jitter_stains(patches, BAGS, np.zeros((2, 2, 2))), patches)


def test_more_hematoxylin_is_more_hematoxylin_alone():
    """A pixel of known amounts; the other stain and the rest stay, within the rounding to 8 bits."""
    unit = np.array([np.array(s) / np.linalg.norm(s) for s in (HEMATOXYLIN, EOSIN)])
    density = 0.5 * unit[0] + 0.3 * unit[1]
    pixel = np.rint(256 * 10**-density - 1).astype(np.uint8)
    patches = np.tile(pixel[None, :, None, None], (1, 1, 2, 2))
    before = stain_amounts(patches)[0, :, 0, 0]
    assert before == pytest.approx([0.5, 0.3, 0.0], abs=0.01)
    after = stain_amounts(jitter_stains(patches, np.zeros(1, int), np.array([[[0.2, 0.0], [0.0, 0.0]]])))[0, :, 0, 0]
    assert after == pytest.approx([0.6, 0.3, 0.0], abs=0.02)
    less = stain_amounts(jitter_stains(patches, np.zeros(1, int), np.array([[[0.0, 0.0], [-0.4, 0.0]]])))[0, :, 0, 0]
    assert less == pytest.approx([0.5, 0.18, 0.0], abs=0.02)


def test_white_stays_white_when_stains_are_scaled():
    white = np.full((1, 3, 2, 2), 255, np.uint8)
    assert (jitter_stains(white, np.zeros(1, int), np.array([[[0.3, 0.0], [-0.3, 0.0]]])) == 255).all()


def test_a_bag_shares_its_stain(patches):
    """The same patch six times, in two bags: up to symmetry, equal within a bag and different between them."""
    same = np.repeat(patches[:1], 6, axis=0)
    found = augmented(HISTOLOGY, same, BAGS, STREAMS, 3)
    values = [np.sort(patch.reshape(3, -1)).tobytes() for patch in found]
    assert len(set(values[:3])) == 1 and len(set(values[3:])) == 1 and values[0] != values[3]


def test_draws_are_addressed_by_the_step(patches):
    first, again, later = (augmented(HISTOLOGY, patches, BAGS, STREAMS, step) for step in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, later)
    assert augmented(TeacherConfig(), patches, BAGS, STREAMS, 5) is patches


def test_grey_patches_have_no_stain():
    with pytest.raises(UserError, match=r"augment: histology needs colour patches \(3 channels\); found 1"):
        augmented(HISTOLOGY, np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, int), STREAMS, 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_teacher_sees_moved_patches_in_whole_grey_values(channels):
    """A shift of exactly two pixels to some side, of patches that hold a single bright pixel in the middle."""
    patches = np.zeros((200, channels, 9, 9), np.uint8)
    patches[:, :, 4, 4] = 200
    bags = np.zeros(len(patches), int)
    still = augmented(TeacherConfig(augment="shift", shift_pixels=0.0), patches, bags, STREAMS, 0)
    assert np.array_equal(still, patches) and still.dtype == np.uint8
    moved = augmented(TeacherConfig(augment="shift", shift_pixels=2.0), patches, bags, STREAMS, 0)
    weight = moved[:, 0].astype(float)
    assert np.allclose(weight.sum((1, 2)), 200, atol=2)  # of four rounded values
    rows, columns = ((weight.sum(3 - axis) @ np.arange(9)) / weight.sum((1, 2)) - 4 for axis in (1, 2))
    for far in (rows, columns):
        assert -2.1 < far.min() < -1.7 and 1.7 < far.max() < 2.1 and abs(far.mean()) < 0.3
    assert not np.array_equal(moved, augmented(TeacherConfig(augment="affine"), patches, bags, STREAMS, 0))
    assert np.array_equal(moved, augmented(TeacherConfig(augment="shift"), patches, bags, STREAMS, 0))


def test_older_identities_stay():
    assert {"augment", "stain_jitter", "shift_pixels"}.isdisjoint(TeacherConfig().identity())
    assert TeacherConfig(augment="shift").identity()["shift_pixels"] == 2.0
    assert "rotation_degrees" in TeacherConfig(augment="affine").identity()
    assert "stain_jitter" not in StudentConfig().identity()
    assert HISTOLOGY.identity()["stain_jitter"] == 0.2
    still = {"shift_pixels", "rotation_degrees"}
    assert still.isdisjoint(StudentConfig(augment="histology").identity())
    assert still <= set(StudentConfig().identity())


def test_teacher_and_student_train_on_augmented_patches(make_replicate):
    """The same bags, and each patch a symmetry of what it was (of one channel, so without stains)."""
    replicate = make_replicate()
    normalise = Normalise.of(replicate, Compute())
    for config in (TeacherConfig, StudentConfig):
        batches = []
        for kind in ("none", "dihedral"):
            if config is TeacherConfig:
                batch = draw_batch(
                    TeacherConfig(augment=kind), replicate.pool, replicate.train, replicate.streams, 2, normalise
                )
            else:
                target = np.zeros(len(replicate.train.instance), np.float32)
                batch = draw_student_batch(
                    StudentConfig(augment=kind), replicate, replicate.streams, target, 2, normalise
                )
            batches.append(batch.x.numpy().reshape(len(batch.x), -1))
        plain, turned = batches
        assert not np.array_equal(plain, turned)
        assert np.array_equal(np.sort(plain), np.sort(turned))
