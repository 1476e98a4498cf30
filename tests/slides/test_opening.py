"""Files that are no good slides are answered in one plain line: which file, what was found, what is expected."""

import math
import struct

import make_slides
import numpy as np
import pytest
import tifffile
from make_slides import (
    aperio_slide,
    cut_short,
    generic_slide,
    leica_slide,
    levels_file,
    noise,
    ome_slide,
    openslide_file,
    tissue,
    without_tiles,
)
from PIL import Image

from d2l_study.errors import UserError
from d2l_study.inference import tissue_image
from d2l_study.inference.tissue_image import open_tissue
from d2l_study.slides import opening, packages
from d2l_study.slides.opening import is_slide, open_slide, slide_files
from d2l_study.slides.physical_size import believed
from d2l_study.slides.qupath_crop import qupath_crop_note
from d2l_study.slides.resolution import PatchReader
from d2l_study.slides.tifffile_reader import TifffileReader


def text(path):
    path.write_text("Patient, slide\n1, S-001\n" * 20)


def mirax(folder=None, index=False):
    """The file of a MIRAX slide is a JPEG picture of it; the slide is in a folder of its name."""

    def write(path):
        Image.fromarray(tissue(64, 64)).save(path, format="JPEG")
        if folder:
            path.with_suffix("").mkdir()
            if index:
                (path.with_suffix("") / "Slidedat.ini").write_text("[GENERAL]\nSLIDE_ID = x\n")

    return write


def tiff(pixels, **how):
    return lambda path: tifffile.imwrite(
        path, pixels, **{"photometric": "rgb", "tile": (64, 64), "metadata": None} | how
    )


def aperio_of(pixels, photometric, **how):
    """A slide that OpenSlide takes for Aperio's, of pixels of another kind."""
    text = "Aperio Image Library v12.0.15\r\n200x200 [0,0 200x200] (64x64) JPEG/RGB Q=70|AppMag = 20|MPP = 0.5"
    return tiff(pixels, photometric=photometric, description=text, **how)


def ome(pixels, axes, **how):
    return lambda path: tifffile.imwrite(path, pixels, ome=True, metadata={"axes": axes}, tile=(64, 64), **how)


def stack(path):
    with tifffile.TiffWriter(path) as tif:
        for _ in range(3):
            tif.write(noise(200, 200), photometric="rgb", metadata=None)


def short(write, share, **how):
    def cut(path):
        write(path, noise(700, 500), compression="lossless", **how)
        cut_short(path, share)

    return cut


def short_in_tiles(path):
    """As a copy that was broken off leaves a file whose directories stand first."""
    write = tiff(noise(700, 500))
    write(path)
    cut_short(path, 0.7)


def foreign_dicom(path):
    """What every DICOM file begins with, then a data set of a scanner of another kind."""
    path.write_bytes(bytes(128) + b"DICM" + struct.pack("<HH2sHI", 2, 0, b"UL", 4, 0) + bytes(200))


DEEP, GREY = noise(200, 200).astype(np.uint16) * 100, noise(200, 200)[..., 0]

WRONG = {  # name: (name of the file, how it is written, words of the answer)
    "empty": ("a.svs", lambda path: path.write_bytes(b""), "is no slide and no image: an empty file; expected a slide"),
    "empty MIRAX": ("a.mrxs", lambda path: path.write_bytes(b""), "an empty file; expected a slide"),
    "text": ("a.svs", text, "is no slide and no image: a file of an unknown kind; expected a slide"),
    "features": ("a.tif", lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)), "an HDF5 file"),
    "a PDF file": ("a.svs", lambda path: path.write_bytes(b"%PDF-1.7" + bytes(200)), "a PDF file; expected a slide"),
    "missing": ("a.svs", lambda path: None, "no such file"),
    "Aperio, its directory cut off": ("a.svs", short(aperio_slide, 0.5), "the file ends before its pixels do"),
    "Aperio, nearly whole": ("a.svs", short(aperio_slide, 0.99), "the file ends before its pixels do, which take"),
    "OME, cut short": ("a.ome.tif", short(ome_slide, 0.6), "the file ends before its pixels do, which take"),
    "cut within its tiles": ("a.tif", short_in_tiles, "the file ends before its pixels do, which take"),
    "cut within its header": ("a.tif", short(generic_slide, 0.00001), "cannot be read"),
    "16 bit": ("a.tif", tiff(DEEP), "16 bits, RGB; expected 8-bit RGB"),
    "16 bit of Aperio": ("a.svs", aperio_of(DEEP, "rgb"), "16 bits, RGB; expected 8-bit RGB"),
    "16 bit OME": ("a.ome.tif", ome(DEEP, "YXS", photometric="rgb"), "16 bits, RGB; expected 8-bit RGB"),
    "floats": ("a.tif", tiff(DEEP.astype(np.float32)), "32 bits, RGB (floating point numbers); expected"),
    "fluorescence": (
        "a.ome.tif", ome(np.stack([DEEP[..., 0]] * 4), "CYX", photometric="minisblack"),
        "an OME-TIFF of 4 channels (axes CYX; 16 bits, greyscale: fluorescence, or a stack?); expected one picture",
    ),
    "one channel": ("a.tif", tiff(GREY, photometric="minisblack"), "1 channel, 8 bits, greyscale (fluorescence, or a"),
    "grey of Aperio": ("a.svs", aperio_of(GREY, "minisblack"), "1 channel, 8 bits, greyscale (fluorescence, or a"),
    "five channels": (
        "a.tif", tiff(np.zeros((200, 200, 5), np.uint8)), "5 channels (RGB, and others of unknown meaning); expected",
    ),
    "focal planes": (
        "a.ome.tif", ome(np.stack([noise(200, 200)] * 3), "ZYXS", photometric="rgb"), "an OME-TIFF of 3 pictures (axes",
    ),
    "several pictures": ("a.tif", stack, "holds 3 pictures of 200×200 pixels (a stack?); expected one, and smaller"),
    "turned": ("a.tif", tiff(noise(200, 200), extratags=[(274, "H", 1, 6)]), "its tag Orientation (6) turns or"),
    "MIRAX without its folder": ("a b.mrxs", mirax(), "a MIRAX slide, but there is no folder a b beside it; expected"),
    "MIRAX, empty folder": ("a.mrxs", mirax("a"), "but its folder a holds no Slidedat.ini; expected the folder of"),
    "MIRAX, odd folder": ("a.mrxs", mirax("a", True), "cannot be read as a slide: Key file does not have"),
    "VMS": ("a.vms", text, "a Hamamatsu VMS slide, but it is no such file, or the images that it names are not"),
    "foreign DICOM": ("a.dcm", foreign_dicom, "a DICOM file that holds no slide; expected a slide"),
    "broken JPEG": (
        "a.svs", lambda path: openslide_file(path.parent, "unreadable.svs", path.name), "cannot be read as a slide: B",
    ),
    "DICOM without its slide": (
        "a.dcm", lambda path: openslide_file(path.parent, "boxes_1.dcm", path.name), "cannot be read as a slide",
    ),
}  # fmt: skip


def read_whole(path):
    with open_slide(path) as slide:
        for level, one in enumerate(slide.levels):
            slide.read(level, 0, 0, one.width, one.height)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("folder", ["", "Präparate № 7 (März)"])
def test_a_wrong_file_is_answered_in_one_line(tmp_path, name, folder, capfd):
    file, write, words = WRONG[name]
    (tmp_path / folder).mkdir(exist_ok=True)
    path = tmp_path / folder / file
    write(path)
    with pytest.raises(UserError) as caught:
        read_whole(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ") and words in said and "\n" not in said
    assert "expected" in said or name in ("missing", "cut within its header")
    assert capfd.readouterr() == ("", "")


def test_a_label_or_picture_of_the_glass_is_no_level(tmp_path):
    """Neither by OpenSlide nor by tifffile, and not if it is larger than a level, or stands first."""
    label, glass = noise(190, 200, 1), noise(600, 200, 2)
    aperio = aperio_slide(tmp_path / "a.svs", noise(800, 600), pictures={"label": label, "macro": glass})
    for reader in (open_slide, TifffileReader):
        with reader(aperio) as slide:
            assert [(one.width, one.height) for one in slide.levels] == [(800, 600), (200, 150), (50, 37)]
    path = tmp_path / "b.tif"
    pixels = noise(800, 600)
    with tifffile.TiffWriter(path) as tif:
        for page in (label, glass, pixels, make_slides.reduced(pixels, 2), noise(400, 150, 3)):
            tif.write(page, photometric="rgb", tile=(64, 64), metadata=None)
    with open_slide(path) as slide:
        assert [(one.width, one.height) for one in slide.levels] == [(800, 600), (400, 300)]
        np.testing.assert_array_equal(slide.read(0, 0, 0, 800, 600), pixels)


@pytest.mark.parametrize("write", [aperio_slide, generic_slide])
def test_missing_tiles_are_white(tmp_path, write):
    path = write(tmp_path / ("a.svs" if write is aperio_slide else "a.tif"), noise(300, 200), compression="lossless")
    without_tiles(path, 0, [0, 7])
    with open_slide(path) as slide:
        found = slide.read(0, 0, 0, 300, 200)
    expected = noise(300, 200)
    expected[:64, :64] = 255
    expected[64:128, 128:192] = 255
    np.testing.assert_array_equal(found, expected)


def huge(path):
    tiles = iter([noise(1024, 1024), *[None] * (59 * 59 - 1)])
    tifffile.imwrite(path, tiles, shape=(60_000, 60_000, 3), dtype=np.uint8, tile=(1024, 1024), photometric="rgb",
                     compression="deflate", metadata=None)  # fmt: skip
    return path


def test_a_huge_picture_without_levels_is_read_in_parts(tmp_path):
    """60,000 × 60,000 pixels, nearly all of them left out of the file."""
    path, tile = huge(tmp_path / "a.tif"), noise(1024, 1024)
    with open_slide(path) as slide:
        assert (slide.width, slide.height, len(slide.levels)) == (60_000, 60_000, 1)
        np.testing.assert_array_equal(slide.read(0, 100, 200, 50, 60), tile[200:260, 100:150])
        assert (slide.read(0, 59_990, 59_990, 10, 10) == 255).all()


def test_strips_that_are_too_large_to_decode_are_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(64, 64), photometric="rgb", rowsperstrip=64, metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name, value in (("ImageWidth", 60_000), ("ImageLength", 60_000), ("RowsPerStrip", 60_000)):
            tif.pages[0].tags[name].overwrite(value)
    with pytest.raises(
        UserError, match="strips or tiles of 60000×60000 pixels; at most 178,956,970 are decoded at once"
    ):
        open_slide(path)


# ---- slides of which a part was scanned
def test_where_the_scanned_part_of_a_slide_begins(tmp_path):
    pixels = tissue(600, 400)
    with open_slide(leica_slide(tmp_path / "a.scn", pixels, (2048, 1024), (1000, 300))) as slide:
        assert (slide.width, slide.height, slide.scanned_from) == (2048, 1024, (1000, 300))
        assert (slide.read(0, 0, 0, 990, 290) == 255).all()  # places are those of the whole glass
        assert np.abs(slide.read(0, 1000, 300, 600, 400).astype(int) - pixels).mean() < 3
    with open_slide(aperio_slide(tmp_path / "b.svs", pixels, 0.5)) as slide:
        assert slide.scanned_from == (0, 0)
    note = qupath_crop_note({"a.scn": (1000, 300), "b.svs": (0, 0)})
    assert "part of a.scn (from x 1,000, y 300)" in note and "--no-crop" in note and "b.svs" not in note
    assert not qupath_crop_note({"b.svs": (0, 0)})


# ---- resolution
def test_the_resolution_of_each_format(tmp_path):
    pixels = noise(200, 200)
    for write, ending in ((aperio_slide, ".svs"), (ome_slide, ".ome.tif"), (generic_slide, ".tif")):
        for mpp in (0.1234, 0.25, 0.5, 4.0):
            with open_slide(write(tmp_path / f"a{ending}", pixels, mpp)) as slide:
                assert slide.mpp == pytest.approx((mpp, mpp), rel=1e-4) and not slide.doubt
        with open_slide(write(tmp_path / f"b{ending}", pixels, None)) as slide:
            assert slide.mpp is None


def ome_sized(size, unit):
    how = {"axes": "YXS", "PhysicalSizeX": size, "PhysicalSizeY": size}
    if unit:
        how |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    return lambda path: tifffile.imwrite(path, noise(64, 64), ome=True, metadata=how, photometric="rgb")


def tags(x, y=None, unit="CENTIMETER", **how):
    return tiff(noise(64, 64), resolution=(x, y or x), resolutionunit=unit, **how)


@pytest.mark.parametrize(
    ("write", "mpp"),
    [
        (ome_sized(0.25, None), 0.25),
        (ome_sized(0.25, "µm"), 0.25),
        (ome_sized(250, "nm"), 0.25),
        (ome_sized(0.00025, "mm"), 0.25),
        (ome_sized(0.000025, "cm"), 0.25),
        (ome_sized(2500, "Å"), 0.25),
        (ome_sized(0.25, "pixel"), None),
        (ome_sized(0.25, "reference frame"), None),
        (ome_sized(1e9, "µm"), None),
        (tags(40_000), 0.25),
        (tags(101_600, unit="INCH"), 0.25),
        (tags(40_000, 20_000), (0.25, 0.5)),
        (tags(72, unit="INCH"), None),
        (tags(96, unit="INCH"), None),
        (tags(300, unit="INCH"), None),
        (tags(1200, unit="INCH"), None),
        (tags(1, unit="NONE"), None),
        (tags(40_000, unit="NONE"), None),
        (tags(72, unit="INCH", description="ScanX|AppMag = 40|MPP = 0.2520"), 0.252),
        (tags(40_000, description="ScanX|MPP = 0"), None),
    ],
)
def test_what_a_file_says_of_its_resolution(tmp_path, write, mpp):
    path = tmp_path / "a.tif"
    write(path)
    with open_slide(path) as slide:
        expected = mpp if mpp is None or isinstance(mpp, tuple) else (mpp, mpp)
        assert slide.mpp == (expected and pytest.approx(expected))


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e9", "big"])
def test_a_resolution_that_cannot_be_is_none(tmp_path, text):
    path = aperio_slide(tmp_path / "a.svs", noise(200, 200), 0.5)
    data = path.read_bytes()
    assert data.count(b"MPP = 0.5") == 2
    path.write_bytes(data.replace(b"MPP = 0.5", b"MPP = " + text.encode().ljust(3)))
    for reader in (open_slide, TifffileReader):
        with reader(path) as slide:
            assert slide.mpp is None
    with open_slide(path, mpp=0.5) as slide:
        assert slide.mpp == (0.5, 0.5)


def test_a_resolution_that_is_not_believed_is_named_where_one_is_needed(tmp_path):
    aperio_slide(tmp_path / "a.svs", noise(200, 200), 0.5)
    path = tmp_path / "b.svs"
    path.write_bytes((tmp_path / "a.svs").read_bytes().replace(b"MPP = 0.5", b"MPP = 0.0"))
    with pytest.raises(UserError, match=r"b\.svs: how many µm a pixel is: its resolution is given as 0; expected"):
        PatchReader(open_slide(path), 0.5, 64)
    tags(72, unit="INCH")(tmp_path / "c.tif")
    with pytest.raises(UserError, match=r"c\.tif: .* given as 352\.778 µm in its tags, as programs write"):
        PatchReader(open_slide(tmp_path / "c.tif"), 0.5, 64)


@pytest.mark.parametrize("mpp", [0, -1, math.nan, math.inf, (0.25, 0), 5000])
def test_a_given_resolution_is_checked(tmp_path, mpp):
    path = openslide_file(tmp_path, "small.svs")
    with pytest.raises(UserError, match=r"is not allowed; expected µm per pixel from 0\.005 to 1000"):
        open_slide(path, mpp=mpp)
    assert open_slide(path, mpp=(0.25, 0.26)).mpp == (0.25, 0.26)


def test_what_is_believed():
    assert believed("0.25", 0.5) == (0.25, 0.5)
    for x in (None, "", "0,25", 0, -1, "nan", 1e9, 1e-9, [], (0.5,)):
        assert believed(x, 0.25) is None and believed(0.25, x) is None


# ---- which files are slides
def test_which_files_are_slides(tmp_path):
    Image.fromarray(tissue(64, 64)).save(tmp_path / "plain.png")
    Image.fromarray(tissue(64, 64)).save(tmp_path / "plain.tif")
    np.save(tmp_path / "array.npy", tissue(64, 64))
    text(tmp_path / "notes.txt")
    aperio_slide(tmp_path / "a.svs", noise(200, 200))
    aperio_slide(tmp_path / "named.tif", noise(200, 200))
    ome_slide(tmp_path / "b.ome.tif", noise(300, 200))
    levels_file(tmp_path / "c.tif", [noise(64, 64)], compression="jpeg2000")
    openslide_file(tmp_path, "boxes_0.dcm", "without ending")
    mirax()(tmp_path / "d.mrxs")
    found = {path.name for path in tmp_path.iterdir() if is_slide(path)}
    assert found == {"a.svs", "named.tif", "b.ome.tif", "c.tif", "without ending", "d.mrxs"}
    assert not is_slide(tmp_path) or (tmp_path / "without ending").exists()
    assert not is_slide(tmp_path / "nowhere.tif") and is_slide(tmp_path / "nowhere.svs")


def test_the_slides_of_a_folder(tmp_path):
    for name in ("b.svs", "a.SVS", ".hidden.svs", "c.tif", "notes.txt", "table.csv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "m.mrxs").write_bytes(b"")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "Data0000.dat").write_bytes(b"")
    (tmp_path / "dicom").mkdir()
    openslide_file(tmp_path / "dicom", "boxes_0.dcm")
    openslide_file(tmp_path / "dicom", "boxes_1.dcm")
    names = ["a.SVS", "b.svs", "c.tif", "dicom", "m.mrxs"]
    assert [path.name for path in slide_files(tmp_path)] == names
    assert slide_files(tmp_path / "dicom") == [tmp_path / "dicom"]
    with pytest.raises(UserError, match="nowhere"):
        slide_files(tmp_path / "nowhere")


def test_a_folder_of_dicom_files_is_one_slide(tmp_path):
    for name in ("boxes_1.dcm", "boxes_0.dcm"):
        openslide_file(tmp_path, name)
    assert is_slide(tmp_path)
    with open_slide(tmp_path) as slide:
        assert (slide.path, slide.width, slide.mpp) == (tmp_path, 16, (0.499, 0.499))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without DICOM files; expected a slide"):
        open_slide(tmp_path / "empty")


def test_dicom_files_of_two_slides_in_a_folder_are_told_apart(tmp_path):
    first = openslide_file(tmp_path, "boxes_0.dcm")
    openslide_file(tmp_path, "boxes_1.dcm")
    other = tmp_path / "other.dcm"
    series = b"1747645553.419656796.1689669825649.4.0"
    assert first.read_bytes().count(series) == 1
    other.write_bytes(first.read_bytes().replace(series, series[:-1] + b"9"))
    assert slide_files(tmp_path) == [first, other]
    with pytest.raises(UserError, match=r"holds DICOM files of 2 slides \(boxes_0\.dcm, other\.dcm\); expected one"):
        open_slide(tmp_path)
    for path in (first, other):
        with open_slide(path) as slide:
            assert slide.width == 16


def test_slides_beside_a_dicom_slide_are_found_too(tmp_path):
    for name in ("boxes_0.dcm", "boxes_1.dcm", "small.svs"):
        openslide_file(tmp_path, name)
    Image.fromarray(tissue(64, 64)).save(tmp_path / "a.tif")
    assert [path.name for path in slide_files(tmp_path)] == ["a.tif", "boxes_0.dcm", "small.svs"]
    (tmp_path / "small.svs").unlink()
    assert slide_files(tmp_path) == [tmp_path], "a picture beside the files of a DICOM slide is its preview"


def test_a_dicom_slide_whose_finest_level_is_missing_is_named(tmp_path):
    path = openslide_file(tmp_path, "boxes_0.dcm")
    data = path.read_bytes()
    said, instead = b"DERIVED\\PRIMARY\\VOLUME\\NONE", b"DERIVED\\PRIMARY\\VOLUME\\RESAMPLED "
    place = data.index(said + b"\x08\x00") if said + b"\x08\x00" in data else data.index(said)
    said = data[place : place + 28]
    length = struct.pack("<H", 28)
    assert data[place - 2 : place] == length
    changed = data[: place - 2] + struct.pack("<H", len(instead)) + instead + data[place + 28 :]
    path.write_bytes(changed)
    with pytest.raises(UserError, match="its finest level is not there: the largest file is RESAMPLED"):
        open_slide(tmp_path)


# ---- without the extra
@pytest.fixture
def no_extra(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(packages.importlib, "import_module", missing)


INSTALL = "a whole-slide image; reading these needs `pip install 'd2l-study[wsi]'`"


def test_without_the_extra_a_slide_is_answered_with_the_line_that_installs_it(tmp_path, no_extra):
    openslide_file(tmp_path, "small.svs")
    openslide_file(tmp_path, "boxes_0.dcm")
    mirax()(tmp_path / "a.mrxs")
    for name in ("small.svs", "boxes_0.dcm", "a.mrxs"):
        assert is_slide(tmp_path / name)
        with pytest.raises(UserError) as caught:
            open_slide(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name}: {INSTALL}"


def test_without_the_extra_pyramids_are_answered_so_too(tmp_path, monkeypatch):
    paths = [
        generic_slide(tmp_path / "a.tif", noise(300, 200)),
        ome_slide(tmp_path / "b.ome.tif", noise(300, 200)),
        levels_file(tmp_path / "c.tif", [noise(64, 64)], compression="jpeg2000"),
        huge(tmp_path / "d.tif"),
    ]
    monkeypatch.setattr(opening, "has_wsi", lambda *names: False)
    monkeypatch.setattr(packages.importlib, "import_module", lambda name: exec("raise ImportError(name)"))
    for path in paths:
        with pytest.raises(UserError) as caught:
            open_slide(path)
        assert str(caught.value) == f"{path}: {INSTALL}"


def test_without_the_extra_images_are_still_read(tmp_path, no_extra):
    pixels = tissue(64, 48)
    for ending in (".png", ".tif", ".bmp"):
        Image.fromarray(pixels).save(tmp_path / f"a{ending}")
        with open_slide(tmp_path / f"a{ending}", mpp=0.5) as slide:
            assert slide.reader == "Pillow" and slide.mpp == (0.5, 0.5)
            np.testing.assert_array_equal(slide.read(0, 0, 0, 64, 48), pixels)
        np.testing.assert_array_equal(open_tissue(tmp_path / f"a{ending}", 3).rows(0, 48), pixels)


def test_a_tiff_is_the_same_with_the_extra_and_without_it(tmp_path, monkeypatch):
    pixels, grey = tissue(64, 48), noise(64, 48)[..., 0]
    for i, compression in enumerate((None, "tiff_lzw", "tiff_deflate", "packbits", "jpeg")):
        Image.fromarray(pixels).save(tmp_path / f"{i}.tif", compression=compression)
        Image.fromarray(grey).save(tmp_path / f"grey{i}.tif", compression=compression)
    paths = sorted(tmp_path.iterdir())
    found = []
    for has in (True, False):
        monkeypatch.setattr(tissue_image, "has_wsi", lambda *names, has=has: has)
        found.append([open_tissue(path, 1 if "grey" in path.name else 3).rows(5, 40) for path in paths])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_the_extra_a_tiff_that_that_is_too_large_to_be_decoded_whole_is_answered_so(tmp_path, no_extra):
    path = huge(tmp_path / "a.tif")
    for opened in (open_slide, lambda path: open_tissue(path, 3)):
        with pytest.raises(UserError) as caught:
            opened(path)
        assert str(caught.value) == f"{path}: {INSTALL}"
