"""The sums that are kept with the patches: part of a collection's checksum, and so of ids, to the last bit."""

import numpy as np
import pytest

from d2l_study.data.cutting import channel_sums, cut_patches

SIDES = ((1, 1), (1, 9), (9, 1), (3, 5), (16, 16), (27, 27), (60, 70))


def as_kept(patches):
    """Each patch reduced by itself, as the sums of the first collections were computed."""
    scaled = patches.reshape(*patches.shape[:2], -1).astype(np.float32) / 255
    return np.stack([scaled.mean(axis=2), np.square(scaled).mean(axis=2)], axis=1)


def layouts(patches):
    """The same patches (k, C, h, w) as they lie in memory when they are cut, read from a slide, or views of more."""
    count, channels, height, width = patches.shape
    yield np.ascontiguousarray(patches)
    yield np.ascontiguousarray(patches.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    wider = np.zeros((count, height + 2, width + 3, channels), np.uint8)
    wider[:, :height, :width] = patches.transpose(0, 2, 3, 1)
    yield wider[:, :height, :width].transpose(0, 3, 1, 2)
    yield np.ascontiguousarray(patches[::-1])[::-1]
    yield np.asfortranarray(patches)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 65])
def test_sums_are_those_of_each_patch_alone_to_the_last_bit(count, channels):
    rng = np.random.default_rng(count)
    image = rng.integers(0, 256, (200, 180, channels), dtype=np.uint8)
    for sides in SIDES:
        cut = cut_patches(image, rng.uniform(0, 179, (count, 2)), sides)
        for patches in (cut, *layouts(cut)):
            found = channel_sums(patches)
            assert found.dtype == np.float32 and found.shape == (count, 2, channels)
            assert found.flags.c_contiguous and np.array_equal(found, as_kept(patches)), (sides, patches.strides)


def test_a_whole_image_is_one_patch():
    image = np.random.default_rng(3).integers(0, 256, (150, 131, 3), dtype=np.uint8)
    patches = image.transpose(2, 0, 1)[None]
    assert np.array_equal(channel_sums(patches), as_kept(patches))
    exact = [(image / 255).mean(axis=(0, 1)), ((image / 255) ** 2).mean(axis=(0, 1))]
    assert np.allclose(channel_sums(patches)[0], exact, atol=1e-4)
