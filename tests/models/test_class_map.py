"""The class map: what a place of it stands for, and the two ways from a map to an image's logit."""

import numpy as np
import pytest
import torch

from d2l_study.models.class_map import SCALE, class_map, class_map_init, image_logit, read_map

torch.set_num_threads(1)


def trained() -> dict[str, torch.Tensor]:
    """Parameters whose map is not 0."""
    rng = np.random.default_rng(0)
    params = class_map_init(rng)
    return params | {"map.weight": torch.from_numpy(rng.normal(size=(1, 64, 1, 1)).astype(np.float32))}


def test_a_place_stands_for_the_pixels_about_it():
    """A changed pixel changes the map around its own place, and nowhere beyond 14 pixels and a place."""
    params, rng = trained(), np.random.default_rng(1)
    image = torch.from_numpy(rng.normal(size=(1, 3, 96, 80)).astype(np.float32))
    before = class_map(params, image)
    assert before.shape == (1, 24, 20)
    image[0, :, 61, 30] += 5
    changed = torch.nonzero((class_map(params, image) - before)[0].abs() > 1e-6).float()
    pixels = (changed + 0.5) * SCALE - 0.5
    assert (pixels - torch.tensor([61.0, 30.0])).abs().max() <= 14 + SCALE
    assert (pixels.mean(0) - torch.tensor([61.0, 30.0])).abs().max() < SCALE


def test_a_map_moves_with_its_image():
    params = trained()
    image = torch.from_numpy(np.random.default_rng(2).normal(size=(1, 3, 128, 128)).astype(np.float32))
    moved = torch.roll(image, (2 * SCALE, 3 * SCALE), dims=(2, 3))
    inner = class_map(params, image)[0, 6:20, 6:20]
    torch.testing.assert_close(class_map(params, moved)[0, 8:22, 9:23], inner, rtol=1e-4, atol=1e-5)


def test_places_are_read_between_the_centres_of_the_map():
    found = torch.arange(12.0).view(3, 4)  # 0 1 2 3 / 4 5 6 7 / 8 9 10 11, a place for 8 pixels
    centres = torch.tensor([[3.5, 3.5], [11.5, 3.5], [27.5, 19.5], [7.5, 3.5], [-1.0, -1.0], [40.0, 40.0]])
    assert read_map(found, centres, 8).tolist() == pytest.approx([0, 1, 11, 0.5, 0, 11], abs=1e-5)


def test_cam_is_the_mean_and_peak_the_mean_of_peaks():
    found = torch.zeros(1, 7, 9)
    found[0, 2, 3], found[0, 5, 7], found[0, 5, 6] = 4.0, 2.0, 1.0
    assert image_logit(found, "cam").item() == pytest.approx(7 / 63)
    bumpy = -torch.ones(1, 7, 9)
    bumpy += torch.arange(63.0).view(7, 9) % 2 * -0.5  # neighbours differ, so flat places are no peaks
    bumpy[0, 2, 3], bumpy[0, 5, 7], bumpy[0, 5, 6] = 4.0, 2.0, 1.0
    peaks = torch.tensor([
        bumpy[0, i, j] for i in range(7) for j in range(9)
        if bumpy[0, i, j] == bumpy[0, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2].max()
        and bumpy[0, i, j] >= bumpy.median()
    ])  # fmt: skip
    assert 4.0 in peaks and 2.0 in peaks and 1.0 not in peaks
    assert image_logit(bumpy, "peak").item() == pytest.approx(peaks.mean().item())


def test_peaks_alone_are_trained_by_peak():
    found = torch.from_numpy(np.random.default_rng(3).normal(size=(1, 8, 8)).astype(np.float32)).requires_grad_()
    image_logit(found, "peak").sum().backward()
    top = int(found[0].argmax())
    gradient = found.grad[0].flatten()
    assert gradient[top] > 0 and 1 <= int((gradient > 0).sum()) < 12
    assert gradient.sum().item() == pytest.approx(1.0)
