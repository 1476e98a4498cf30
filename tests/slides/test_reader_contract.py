"""What every reader of slides promises, held against pixels that are known."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import make_slides
import numpy as np
import pytest
from make_slides import aperio_slide, generic_slide, levels_file, noise, ome_slide, reduced, tissue
from PIL import Image

from d2l_study.slides.image_reader import ImageReader
from d2l_study.slides.opening import open_slide
from d2l_study.slides.openslide_reader import OpenSlideReader
from d2l_study.slides.tifffile_reader import TifffileReader

WIDTH, HEIGHT = 704, 512


def image(name, **how):
    def write(path, pixels):
        path = path.with_suffix(name)
        Image.fromarray(pixels).save(path, **how)
        return path

    return write


def array(path, pixels):
    np.save(path.with_suffix(".npy"), pixels)
    return path.with_suffix(".npy")


def aperio(compression):
    return lambda path, pixels: aperio_slide(path.with_suffix(".svs"), pixels, compression=compression)


def ome(compression):
    return lambda path, pixels: ome_slide(path.with_suffix(".ome.tif"), pixels, compression=compression)


def generic(compression):
    return lambda path, pixels: generic_slide(path.with_suffix(".tif"), pixels, compression=compression)


def single(**how):
    return lambda path, pixels: levels_file(path.with_suffix(".tif"), [pixels], **how)


def planes(path, pixels):
    return levels_file(path.with_suffix(".tif"), [np.ascontiguousarray(pixels.transpose(2, 0, 1))],
                       planarconfig="separate")  # fmt: skip


CASES = {  # name: (how it is written, reader, factors of its levels, mean error that its compression may leave)
    "Aperio, lossless": (aperio("lossless"), OpenSlideReader, (1, 4, 16), 0),
    "Aperio, JPEG": (aperio("jpeg"), OpenSlideReader, (1, 4, 16), 5.5),
    "Aperio, JPEG 2000": (aperio("jpeg2000"), OpenSlideReader, (1, 4, 16), 5.5),
    "OME, lossless": (ome("lossless"), TifffileReader, (1, 2, 4, 8), 0),
    "OME, JPEG": (ome("jpeg"), TifffileReader, (1, 2, 4, 8), 5.5),
    "OME, JPEG 2000": (ome("jpeg2000"), TifffileReader, (1, 2, 4, 8), 5.5),
    "generic, lossless": (generic("lossless"), TifffileReader, (1, 2, 4, 8), 0),
    "generic, JPEG": (generic("jpeg"), TifffileReader, (1, 2, 4, 8), 5.5),
    "generic by OpenSlide": (generic("lossless"), OpenSlideReader, (1, 2, 4, 8), 0),
    "tiles": (single(), TifffileReader, (1,), 0),
    "strips": (single(tile=None), TifffileReader, (1,), 0),
    "strips, LZW": (single(tile=None, compression="lzw"), TifffileReader, (1,), 0),
    "strips as they are": (single(tile=None, compression=None), TifffileReader, (1,), 0),
    "planes": (planes, TifffileReader, (1,), 0),
    "PNG": (image(".png"), ImageReader, (1,), 0),
    "BMP": (image(".bmp"), ImageReader, (1,), 0),
    "JPEG": (image(".jpg", quality=95), ImageReader, (1,), 3),
    "TIFF by Pillow": (image(".tif"), ImageReader, (1,), 0),
    "array": (array, ImageReader, (1,), 0),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """(slide, its levels' true pixels, mean error allowed)."""
    write, reader, factors, error = CASES[request.param]
    pixels = noise(WIDTH, HEIGHT) if not error else tissue(WIDTH, HEIGHT)
    path = write(tmp_path_factory.mktemp("slide") / "a", pixels)
    levels = [pixels]
    for before, factor in pairwise(factors):
        levels.append(reduced(levels[-1], factor // before))
    with reader(path) as slide:
        yield slide, levels, error


def assert_close(found, expected, error):
    assert found.dtype == np.uint8 and found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.mean() <= error and (error or difference.max() == 0)


def test_sizes_and_levels(case):
    slide, levels, _ = case
    assert (slide.width, slide.height) == (WIDTH, HEIGHT)
    assert [(one.height, one.width) for one in slide.levels] == [pixels.shape[:2] for pixels in levels]
    assert [one.downsample for one in slide.levels] == [WIDTH // one.shape[1] for one in levels]
    assert slide.name == "a" or slide.name == "a.ome"
    assert slide.path.is_file() and slide.reader


def test_the_pixels_of_every_level(case):
    slide, levels, error = case
    rng = np.random.default_rng(0)
    for i, pixels in enumerate(levels):
        assert_close(slide.read(i, 0, 0, pixels.shape[1], pixels.shape[0]), pixels, error)
        for _ in range(6):
            (x0, x1), (y0, y1) = (sorted(rng.integers(0, side + 1, 2)) for side in pixels.shape[1::-1])
            x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
            part = slide.read(i, int(x0), int(y0), int(x1 - x0), int(y1 - y0))
            known = part[: pixels.shape[0] - y0, : pixels.shape[1] - x0]
            if known.size > 3000:
                assert_close(known, pixels[y0:y1, x0:x1], error)


def test_what_lies_beyond_is_white(case):
    slide, levels, error = case
    for i, pixels in enumerate(levels):
        height, width = pixels.shape[:2]
        framed = slide.read(i, -9, -7, width + 20, height + 30)
        assert framed.shape == (height + 30, width + 20, 3)
        assert_close(framed[7 : 7 + height, 9 : 9 + width], pixels, error)
        framed = framed.copy()
        framed[7 : 7 + height, 9 : 9 + width] = 255
        assert (framed == 255).all()
        for x, y in ((-50, 0), (0, -50), (width, 0), (0, height), (width + 999, height + 999)):
            assert (slide.read(i, x, y, 40, 30) == 255).all()


def test_the_thumbnail_is_the_whole_slide(case):
    slide, levels, _ = case
    for most in (50, 60, 333):
        shown = slide.thumbnail(most)
        assert shown.dtype == np.uint8 and shown.shape == (round(HEIGHT * most / WIDTH), most, 3)
        expected = Image.fromarray(levels[0]).resize((most, shown.shape[0]), Image.Resampling.BOX)
        assert np.abs(shown.mean((0, 1)) - np.asarray(expected).mean((0, 1))).max() < 3
    assert slide.thumbnail(10_000).shape == (HEIGHT, WIDTH, 3)


def test_threads_read_what_one_reads(case):
    slide, levels, _ = case
    places = [(i % len(levels), 17 * i % 300, 13 * i % 200) for i in range(200)]
    alone = [slide.read(*place, 64, 48) for place in places]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda place: slide.read(*place, 64, 48), places))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", CASES)
def test_a_closed_slide_gives_no_pixels(name, tmp_path):
    write, reader, _, _ = CASES[name]
    path = write(tmp_path / "a", tissue(WIDTH, HEIGHT))
    with reader(path) as slide:
        slide.read(0, 0, 0, 5, 5)
    with path.open("rb"), pytest.raises(Exception):  # noqa: B017 -- each package has its own
        slide.read(0, 300, 300, 5, 5)


@pytest.mark.parametrize("name", [name for name in CASES if " by " not in name])
def test_the_reader_that_a_file_asks_for_opens_it(name, tmp_path):
    write, reader, _, _ = CASES[name]
    path = write(tmp_path / "Präparat № 7 (a b)", tissue(WIDTH, HEIGHT))
    with open_slide(path) as slide:
        assert type(slide) is reader and slide.path == path


def test_the_real_slides_of_openslides_own_tests(tmp_path):
    """16×16 pixels of CMU-1, as SVS and converted to DICOM: the same pixels by two formats."""
    svs = open_slide(make_slides.openslide_file(tmp_path, "small.svs", "schönes Präparat 😐.svs"))
    dicom = open_slide(make_slides.openslide_file(tmp_path, "boxes_0.dcm"))
    for slide, vendor in ((svs, "aperio"), (dicom, "dicom")):
        assert (slide.vendor, slide.width, slide.height, slide.mpp) == (vendor, 16, 16, (0.499, 0.499))
    np.testing.assert_array_equal(svs.read(0, 0, 0, 16, 16), dicom.read(0, 0, 0, 16, 16))
    assert 200 < svs.read(0, 0, 0, 16, 16).mean() < 250
