"""Tissue is found on glass of any tint, ink is not tissue, and a slide may be all of one or of the other."""

import numpy as np
import pytest
from make_slides import GROUND, aperio_slide, noise, ome_slide, reduced, tissue
from PIL import Image, ImageDraw, ImageFilter

from d2l_study.slides.opening import open_slide
from d2l_study.slides.tissue import find_tissue, tissue_mask


def stained(pixels):
    """Where `tissue` is, by how it was made: not the colour of the glass."""
    return (pixels != GROUND).any(axis=2)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_the_mask_is_where_the_tissue_is(tmp_path):
    pixels = tissue(3000, 2200)
    with open_slide(aperio_slide(tmp_path / "a.svs", pixels)) as slide:
        mask, downsample = tissue_mask(slide)
    assert mask.dtype == bool and mask.shape == (751, 1024)
    assert downsample == (3000 / 1024, 2200 / 751)
    truth = np.asarray(Image.fromarray(stained(pixels)).resize((1024, 751), Image.Resampling.BOX))
    assert dice(mask, truth) > 0.99


def test_slides_of_two_magnifications_have_the_same_tissue(tmp_path):
    pixels = tissue(4000, 3000)
    shares = []
    for name, image, mpp in (("40", pixels, 0.25), ("20", reduced(pixels, 2), 0.5), ("10", reduced(pixels, 4), 1.0)):
        with open_slide(ome_slide(tmp_path / f"{name}.ome.tif", image, mpp=mpp, tile=256)) as slide:
            found = tissue_mask(slide)
        shares.append(found.share)
        assert found.share == pytest.approx(found.mask.mean())
    assert np.ptp(shares) < 0.003 and shares[0] == pytest.approx(stained(pixels).mean(), abs=0.005)


@pytest.mark.parametrize("glass", [(255, 255, 255), (243, 241, 243), (235, 235, 240), (225, 225, 225)])
def test_a_slide_of_glass_has_none(glass):
    rng = np.random.default_rng(0)
    picture = np.clip(np.array(glass) + rng.normal(0, 1.5, (600, 800, 3)), 0, 255).astype(np.uint8)
    assert not find_tissue(picture, 100).any()


def test_a_slide_may_be_all_tissue():
    coarse = noise(40, 30)
    smooth = np.asarray(Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC)).astype(int)
    picture = np.clip([190, 90, 160] + (smooth - 128) * [0.3, 0.3, 0.25], 0, 255).astype(np.uint8)
    assert find_tissue(picture, 100).all()


def test_glass_may_be_tinted():
    pixels = tissue(1000, 800)
    tinted = np.where(stained(pixels)[..., None], pixels, (240, 233, 222)).astype(np.uint8)
    assert dice(find_tissue(tinted, 100), stained(pixels)) > 0.98


INKS = {
    "green": (20, 90, 60),
    "blue": (25, 45, 130),
    "light blue": (40, 80, 190),
    "black": (22, 18, 24),
    "cyan": (0, 140, 160),
}


@pytest.mark.parametrize("ink", INKS)
def test_ink_is_no_tissue_not_even_its_pale_rim(ink, tmp_path):
    pixels = tissue(1200, 900)
    drawn = Image.fromarray(pixels)
    pen = ImageDraw.Draw(drawn)
    line = [(30, 860), (600, 800), (1180, 870)]
    pen.line(line, fill=INKS[ink], width=24)
    pen.ellipse((30, 20, 160, 120), outline=INKS[ink], width=9)
    drawn.filter(ImageFilter.GaussianBlur(1.5)).save(tmp_path / "drawn.jpg", quality=70)
    found = find_tissue(np.asarray(Image.open(tmp_path / "drawn.jpg")), 50)
    assert dice(found, stained(pixels)) > 0.98
    near = Image.new("1", drawn.size)
    pen = ImageDraw.Draw(near)
    pen.line(line, fill=1, width=34)
    pen.ellipse((25, 15, 165, 125), fill=1)
    assert not (found & np.asarray(near) & ~stained(pixels)).any()


def test_brown_and_blue_stains_are_tissue():
    picture = np.full((600, 900, 3), GROUND, np.uint8)
    picture[100:300, 100:300] = (150, 165, 200)  # haematoxylin alone
    picture[100:300, 500:700] = (130, 95, 70)  # diaminobenzidine
    found = find_tissue(picture, 100)
    assert found[110:290, 110:290].all() and found[110:290, 510:690].all() and found.mean() < 0.16


def test_small_pieces_and_holes_go():
    picture = np.full((400, 600, 3), GROUND, np.uint8)
    picture[50:350, 50:350] = (200, 110, 170)
    picture[150:170, 150:170] = GROUND  # a hole of 400 pixels
    picture[200:300, 200:300] = GROUND  # and one of 10,000
    picture[100:120, 500:520] = (200, 110, 170)
    found = find_tissue(picture, 1000)
    assert found[160, 160] and not found[250, 250] and not found[110, 510]
    kept = find_tissue(picture, 10)
    assert not kept[160, 160] and kept[110, 510]
