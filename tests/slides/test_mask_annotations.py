"""Shares of tiles under a mask are exact, at any power of two; what is no mask of the slide is named in a line."""

import tracemalloc

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from d2l_study.errors import UserError
from d2l_study.slides import mask_annotation
from d2l_study.slides.annotation_classes import AnnotationClasses
from d2l_study.slides.mask_annotation import is_inverted, read_mask

PLAIN = AnnotationClasses()


def overlap(begin, end, pixels, width):
    """(n, pixels) how much of each pixel of a row an interval covers, in pixels."""
    at = np.arange(pixels)
    return np.clip(np.minimum(end[:, None], at + 1) - np.maximum(begin[:, None], at), 0, None) * width


def shares(inside, downsample, xy, side):
    """By the overlap of every tile with every pixel."""
    begin, end = xy / downsample, (xy + side) / downsample
    high = overlap(begin[:, 1], end[:, 1], inside.shape[0], downsample)
    wide = overlap(begin[:, 0], end[:, 0], inside.shape[1], downsample)
    return np.einsum("ni,ij,nj->n", high, inside.astype(float), wide) / side**2


def save(path, mask, **how):
    if path.suffix == ".png":
        Image.fromarray(mask).save(path)
    else:
        tifffile.imwrite(path, mask, **how)
    return path


@pytest.fixture
def mask():
    rng = np.random.default_rng(4)
    return (rng.random((37, 52)) < 0.4).astype(np.uint8) * 255


FORMS = {
    "png": {}, "strips.tif": {"rowsperstrip": 5}, "one strip.tif": {}, "tiles.tif": {"tile": (16, 32)},
    "packed.tif": {"tile": (16, 16), "compression": "zlib"}, "big.tif": {"bigtiff": True, "tile": (16, 16)},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16])
def test_every_form_of_file_gives_the_same_shares(tmp_path, monkeypatch, mask, form, kind):
    monkeypatch.setattr(mask_annotation, "BAND_PIXELS", 52 * 3)
    given_ = (mask > 0) if kind is bool else mask.astype(kind) * (257 if kind is np.uint16 else 1)
    path = save(tmp_path / f"m.{form}", given_, **FORMS[form])
    found = read_mask(path, (52 * 16, 37 * 16), PLAIN)
    assert found.downsample == 16 and found.shape == (37, 52)
    xy = np.random.default_rng(5).uniform(-60, 800, (200, 2))
    np.testing.assert_allclose(found.coverage(xy, 100.5), shares(mask > 0, 16, xy, 100.5), atol=1e-12)
    assert not found.unknown_share(xy, 100.5).any()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 6), st.integers(1, 400), st.integers(1, 300), st.floats(0.5, 500), st.integers(1, 2000),
    st.integers(0, 99),
)  # fmt: skip
def test_shares_are_exact_for_any_size_downsample_and_band(tmp_path_factory, halvings, width, height, side, band, seed):
    rng = np.random.default_rng(seed)
    downsample = 2**halvings
    rounded = np.ceil if seed % 2 else np.floor
    shape = np.maximum(1, rounded(np.array([height, width]) / downsample)).astype(int)
    mask = rng.random(shape) < 0.5
    mask[0, 0] = True
    path = save(tmp_path_factory.mktemp("m") / "m.png", mask.astype(np.uint8))
    before = mask_annotation.BAND_PIXELS
    mask_annotation.BAND_PIXELS = band
    try:
        found = read_mask(path, (width, height), PLAIN)
        xy = rng.uniform(-50, 400, (40, 2))
        np.testing.assert_allclose(found.coverage(xy, side), shares(mask, found.downsample, xy, side), atol=1e-9)
    finally:
        mask_annotation.BAND_PIXELS = before


def test_the_finest_page_of_a_pyramid_is_read(tmp_path, mask):
    with tifffile.TiffWriter(tmp_path / "m.tif") as file:
        file.write(mask, tile=(16, 16))
        file.write(mask[::2, ::2] * 0, tile=(16, 16), subfiletype=1)
    found = read_mask(tmp_path / "m.tif", (52, 37), PLAIN)
    assert found.coverage(np.zeros((1, 2)), 37)[0] == pytest.approx((mask[:37, :37] > 0).mean())


def test_tiles_that_a_file_leaves_out_are_not_positive(tmp_path):
    def pieces():
        yield np.full((16, 16), 1, np.uint8)
        yield None
        yield None
        yield np.full((16, 16), 1, np.uint8)

    tifffile.imwrite(tmp_path / "m.tif", pieces(), shape=(32, 32), dtype=np.uint8, tile=(16, 16))
    found = read_mask(tmp_path / "m.tif", (32, 32), PLAIN)
    corners = np.array([(0, 0), (16, 0), (0, 16), (16, 16)])
    assert found.coverage(corners, 16).tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize("kind", [bool, np.uint8, np.uint16])
@pytest.mark.parametrize("how", [{"rowsperstrip": 5}, {"tile": (16, 16), "compression": "zlib"}])
def test_a_mask_of_which_0_is_white_is_read_as_it_is_shown(tmp_path, mask, kind, how):
    shown = mask > 0
    ink = ~shown if kind is bool else np.where(shown, 0, np.iinfo(kind).max).astype(kind)
    path = save(tmp_path / "m.tif", ink, photometric="miniswhite", software="a scanner", **how)
    if kind is not np.uint16:  # which Pillow shows as it is stored
        assert np.array_equal(np.asarray(Image.open(path).convert("L")) > 0, shown)
    xy = np.random.default_rng(5).uniform(-10, 50, (50, 2))
    found = read_mask(path, (52, 37), PLAIN).coverage(xy, 9.5)
    np.testing.assert_allclose(found, shares(shown, 1, xy, 9.5), atol=1e-12)
    assert is_inverted(path) and not is_inverted(save(tmp_path / "other.tif", mask, **how))


def test_truth_values_that_tifffile_wrote_are_meant_as_they_were(tmp_path, mask):
    path = save(tmp_path / "m.tif", mask > 0)
    with tifffile.TiffFile(path) as file:
        assert file.pages.first.photometric == 0
    corners = np.stack(np.meshgrid(np.arange(52), np.arange(37)), -1).reshape(-1, 2)
    assert np.array_equal(read_mask(path, (52, 37), PLAIN).coverage(corners, 1).reshape(37, 52), mask > 0)
    assert not is_inverted(path)


def test_tiles_that_are_left_out_are_what_0_means(tmp_path):
    """Of a file whose 0 is white."""
    pieces = iter([np.full((16, 16), 255, np.uint8), None])
    how = {"shape": (16, 32), "dtype": np.uint8, "tile": (16, 16), "photometric": "miniswhite"}
    tifffile.imwrite(tmp_path / "m.tif", pieces, **how)
    assert read_mask(tmp_path / "m.tif", (32, 16), PLAIN).coverage(np.array([(0, 0), (16, 0)]), 16).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_values_of_a_palette_are_its_numbers(tmp_path, mask, name):
    image = Image.fromarray((mask > 0).astype(np.uint8), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / name)
    corners = np.stack(np.meshgrid(np.arange(52), np.arange(37)), -1).reshape(-1, 2)
    assert np.array_equal(
        read_mask(tmp_path / name, (52, 37), PLAIN).coverage(corners, 1).reshape(37, 52), mask > 0
    )  # fmt: skip


@pytest.mark.slow
def test_a_large_mask_is_held_in_a_small_part_of_its_pixels(tmp_path):
    """As CAMELYON's, of as many pixels as the slide."""
    side = 8192
    y, x = np.ogrid[:side, :side]
    inside = ((x - 3000) ** 2 + (y - 5000) ** 2 < 2000**2).astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", inside, tile=(256, 256), compression="zlib")
    tracemalloc.start()
    try:
        found = read_mask(tmp_path / "m.tif", (side, side), PLAIN)
        grid = np.stack(np.meshgrid(np.arange(0, side, 224), np.arange(0, side, 224)), -1).reshape(-1, 2)
        share = found.coverage(grid, 224)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(len(band.codes) for band in found.bands) < side**2 / 100 and peak < side**2 / 1.5
    assert share.sum() * 224**2 == pytest.approx(inside.sum(), rel=1e-9)


# ---- values with names
VALUES = {0: "rest", 1: "Tumor", 2: "Stroma", 7: "Ignore*"}


def named(tmp_path, classes, values=VALUES):
    mask = np.repeat(np.array([[0, 1, 2, 7]], np.uint8), 4, axis=0)
    found = read_mask(save(tmp_path / "m.png", mask), (4, 4), classes, values)
    columns = np.array([(0, 0), (1, 0), (2, 0), (3, 0)])
    return found.coverage(columns, 1).tolist(), found.unknown_share(columns, 1).tolist()


def test_values_are_what_their_classes_are(tmp_path):
    assert named(tmp_path, AnnotationClasses(("Tumor",))) == ([0, 1, 0, 0], [0, 0, 0, 1])
    assert named(tmp_path, AnnotationClasses(("tumor", "stroma"))) == ([0, 1, 1, 0], [0, 0, 0, 1])
    # Where negative classes are named, all else is unknown.
    assert named(tmp_path, AnnotationClasses(("Tumor",), ("Stroma",))) == ([0, 1, 0, 0], [1, 0, 0, 1])
    without = {value: name for value, name in VALUES.items() if value}
    assert named(tmp_path, AnnotationClasses(("Tumor",)), without) == ([0, 1, 0, 0], [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("classes", "values", "said"),
    [
        (AnnotationClasses(("Tumour",)), VALUES, r"no annotation of 'Tumour' \(found: rest, Tumor, Stroma"),
        (AnnotationClasses(("Tumor",)), {1: "Tumor", 2: "Stroma"}, r"value 7 has no class \(classes: \(1, 'Tumor'\)"),
        (AnnotationClasses(("Rare",)), {**VALUES, 9: "Rare"}, r"no pixel is positive \(values found: 0, 1, 2, 7\)"),
    ],
)  # fmt: skip
def test_values_that_mean_nothing_are_said(tmp_path, classes, values, said):
    with pytest.raises(UserError, match=said):
        named(tmp_path, classes, values)


def test_a_slide_may_have_nothing_positive_where_that_is_allowed(tmp_path):
    path = save(tmp_path / "m.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(UserError, match=r"m\.png: no pixel is positive \(values found: 0\)"):
        read_mask(path, (4, 4), PLAIN)
    assert read_mask(path, (4, 4), AnnotationClasses(required=False)).coverage(np.zeros((1, 2)), 4).tolist() == [0]


# ---- wrong files
@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((520, 371), r"a mask of 52×37 pixels for a slide of 520×371: smaller by 10; expected a power of two \(1, 2,"),
        ((26, 18), r"a slide of 26×18: smaller by 0.5; expected a power of two"),
        ((832, 1184), "another shape; expected the slide's, or one smaller by a power of two on both sides"),
        ((104, 74 * 2), "another shape"), ((37, 52), "another shape"),
    ],
)  # fmt: skip
def test_a_mask_of_another_slide_is_said(tmp_path, mask, size, said):
    with pytest.raises(UserError, match=said):
        read_mask(save(tmp_path / "m.png", mask), size, PLAIN)


@pytest.mark.parametrize("size", [(847, 607), (817, 577), (52, 37), (52 * 4096, 37 * 4096)])
def test_a_mask_whose_sides_were_rounded_is_read(tmp_path, mask, size):
    read_mask(save(tmp_path / "m.png", mask), size, PLAIN)


def test_a_photograph_is_no_mask(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (37, 52)).astype(np.uint8)
    with pytest.raises(UserError, match="more than 16 different values: a photograph or a map of scores, not a mask"):
        read_mask(save(tmp_path / "m.png", noise), (52, 37), PLAIN)


@pytest.mark.parametrize(
    ("name", "pixels", "said"),
    [
        ("m.png", np.zeros((37, 52, 3), np.uint8), r"a mask of mode RGB; expected black and white, or one channel"),
        ("m.tif", np.zeros((37, 52, 3), np.uint8), r"a mask of 3 channels of uint8; expected black and white"),
        ("m.tif", np.zeros((37, 52), np.float32), r"a mask of 1 channel of float32; expected"),
        ("m.tif", np.zeros((37, 52), np.int32), r"a mask of 1 channel of int32"),
    ],
)  # fmt: skip
def test_pixels_that_are_no_classes_are_said(tmp_path, name, pixels, said):
    how = {"photometric": "rgb"} if name == "m.tif" and pixels.ndim == 3 else {}
    with pytest.raises(UserError, match=said):
        read_mask(save(tmp_path / name, pixels, **how), (52, 37), PLAIN)


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
@pytest.mark.parametrize("left", [20, 0.5, 0.9])
def test_a_mask_that_was_cut_short_is_said_in_a_line(tmp_path, mask, name, left):
    path = save(tmp_path / name, mask, **({} if name == "m.png" else {"tile": (16, 16), "compression": "zlib"}))
    data = path.read_bytes()
    path.write_bytes(data[: left if isinstance(left, int) else int(left * len(data))])
    with pytest.raises(UserError, match=rf"{name}: cannot be read as an image") as error:
        read_mask(path, (52, 37), PLAIN)
    assert "\n" not in str(error.value)
