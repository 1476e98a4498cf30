"""One rule for pixels: the manifest, the archives and `label` give a file the same answer."""

import os
import struct
import zlib

import numpy as np
import pytest
import tiff_bytes as tiff
from PIL import EpsImagePlugin, Image
from tiff_bytes import tiff_bytes

from d2l_study.data import ManifestBags
from d2l_study.errors import UserError
from d2l_study.inference.inputs import open_inputs, read_parts
from d2l_study.inference.tissue_image import open_tissue
from d2l_study.slides import image_files
from d2l_study.slides.image_files import MOST_PIXELS, image_size, read_image

SIDE = 16


def pixels(dtype=np.uint8, channels=3):
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, channels), np.uint8).astype(dtype)


def by_manifest(path):
    """As the one patch of a bag, beside good images."""
    rows = [f"b0,0,{path}"]
    for i in (1, 2):
        good = path.with_name(f"good{i}.png")
        Image.fromarray(pixels() // (i + 1)).save(good)
        rows.append(f"b{i},{i % 2},{good}")
    table = path.with_name("own.csv")
    table.write_text("\n".join(["bag,label,path", *rows]))
    pool = ManifestBags(path=str(table), folds=3).load_pool()
    return pool.instances[pool.bags.instance[0]].transpose(1, 2, 0)


def by_label_of_patches(path):
    shape = (3, SIDE, SIDE)
    (part,) = read_parts(open_inputs([path], shape), shape)
    return part.patches[0].transpose(1, 2, 0)


def by_label_of_images(path):
    image = open_tissue(path, 3)
    return np.concatenate([image.rows(0, 7), image.rows(7, image.height)])


def by_archive(path):
    return read_image(path)


DOORS = (by_manifest, by_label_of_patches, by_label_of_images, by_archive)


def refusal(path, door):
    with pytest.raises(UserError) as caught:
        door(path)
    return str(caught.value)


def saved(image, name, **how):
    return lambda folder: image().save(folder / name, **how)


def written(name, make):
    return lambda folder: (folder / name).write_bytes(make())


def rgb():
    return Image.fromarray(pixels())


def turned():
    exif = Image.Exif()
    exif[274] = 6
    return exif


def two(kind):
    return {"save_all": True, "append_images": [Image.fromarray(255 - pixels())], "format": kind}


def deep_png():
    """RGB of 16 bits a channel, of which only 12 are used: Pillow reads it as RGB, 16 times too dark."""
    rows = (pixels(np.uint16) * 16).astype(">u2")
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))), (b"IEND", b""),
    ]  # fmt: skip
    body = b"".join(struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def bmp_of_15_bits():
    head = struct.pack("<IiiHHIIiiII", 40, SIDE, SIDE, 1, 16, 0, SIDE * SIDE * 2, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + SIDE * SIDE * 2, 0, 0, 54) + head + bytes(SIDE * SIDE * 2)


def a_tiff(**how):
    return written("a.tif", lambda: tiff_bytes(pixels(), **how))


TILES = {tiff.TILE_WIDTH: SIDE, tiff.TILE_LENGTH: SIDE, tiff.TILE_OFFSETS: 8, tiff.TILE_COUNTS: SIDE * SIDE * 3}

REFUSED = {
    "12 bits in a uint16 RGB TIFF": (
        written("a.tif", lambda: tiff_bytes(pixels(np.uint16) * 16)), "16 bits a channel (RGB); expected an 8-bit RGB",
    ),
    "16 bits in a PNG": (written("a.png", deep_png), "16 bits a channel; expected an 8-bit RGB"),
    "16 bits, grey": (saved(lambda: Image.new("I;16", (SIDE, SIDE)), "a.tif"), "16 bits a channel (greyscale)"),
    "floats": (saved(lambda: Image.new("F", (SIDE, SIDE)), "a.tif"), "32-bit floating point numbers"),
    "signed": (a_tiff(tags={tiff.SAMPLE_FORMAT: (2, 2, 2)}), "8-bit signed numbers"),
    "15 bits in a BMP": (written("a.bmp", bmp_of_15_bits), "5 or 6 bits a channel"),
    "grey PNG": (saved(lambda: rgb().convert("L"), "a.png"), "greyscale (mode L)"),
    "grey TIFF": (saved(lambda: rgb().convert("L"), "a.tif"), "greyscale (save it as RGB if grey is meant)"),
    "black and white": (saved(lambda: rgb().convert("1"), "a.png"), "black and white (mode 1)"),
    "CMYK JPEG": (saved(lambda: rgb().convert("CMYK"), "a.jpg"), "CMYK, the colours of print"),
    "CMYK TIFF": (saved(lambda: rgb().convert("CMYK"), "a.tif"), "CMYK, the colours of print"),
    "LAB": (saved(lambda: Image.new("LAB", (SIDE, SIDE)), "a.tif"), "L*a*b* colours"),
    "palette": (saved(lambda: rgb().convert("P"), "a.png"), "a palette of colours (mode P)"),
    "turned JPEG": (saved(rgb, "a.jpg", exif=turned()), "EXIF data turn or flip it (orientation 6)"),
    "turned PNG": (saved(rgb, "a.png", exif=turned()), "EXIF data turn or flip it (orientation 6)"),
    "turned TIFF": (a_tiff(tags={tiff.ORIENTATION: 3}), "tag Orientation (3) turns or flips it"),
    "animated": (saved(rgb, "a.png", **two("PNG")), "is animated, 2 pictures"),
    "two pictures in a JPEG": (saved(rgb, "a.jpg", **two("MPO")), "holds 2 pictures"),
    "pages": (a_tiff(pages=3), "holds 3 pages (a pyramid, or several images)"),
    "pyramid below a page": (a_tiff(tags={330: 8}), "holds smaller copies of itself (a pyramid)"),
    "JPEG 2000 in TIFF": (a_tiff(tags={tiff.COMPRESSION: 33003}), "its compression, JPEG 2000 (33003), is not read"),
    "a fourth channel": (
        written("a.tif", lambda: tiff_bytes(pixels(channels=4), {tiff.EXTRA: 0})),
        "4 channels (RGB, and others of unknown meaning)",
    ),
    "transparent": (saved(lambda: Image.new("RGBA", (SIDE, SIDE)), "a.png"), "has transparent pixels"),
    "transparent TIFF": (
        written("a.tif", lambda: tiff_bytes(pixels(channels=4), {tiff.EXTRA: 2})), "has transparent pixels",
    ),
    "HDF5": (written("a.png", lambda: b"\x89HDF\r\n\x1a\n" + bytes(200)), "is not an image: an HDF5 file"),
    "DICOM": (written("a.png", lambda: bytes(128) + b"DICM" + bytes(9)), "is not an image: a DICOM file"),
    "WebP": (saved(rgb, "a.png", format="WEBP"), "is a WebP image, which is not read; expected an 8-bit RGB PNG"),
    "JPEG 2000": (saved(rgb, "a.png", format="JPEG2000"), "is a JPEG 2000 image, which is not read"),
    "ICO": (saved(rgb, "a.png", format="ICO"), "is not an image: a file of an unknown kind"),
    "GIF": (saved(rgb, "a.png", format="GIF"), "is a GIF image, which is not read"),
    "empty": (written("a.png", bytes), "is not an image: an empty file"),
    "cut short": (written("a.png", lambda: deep_png()[:24]), "cannot be read as an image"),
    "no width": (a_tiff(without=(tiff.WIDTH,)), "its tag ImageWidth is missing"),
    "no colours": (a_tiff(without=(tiff.PHOTOMETRIC,)), "its tag PhotometricInterpretation is missing"),
    "no strips": (a_tiff(without=(tiff.OFFSETS,)), "cannot be read as an image"),
    "no rows": (a_tiff(tags={tiff.LENGTH: 0}), "its tag ImageLength is 0; expected 1 or more"),
    "strips of no rows": (a_tiff(tags={tiff.PER_STRIP: 0}), "cannot be read as an image"),
    "tiles of no size": (
        a_tiff(tags={**TILES, tiff.TILE_WIDTH: 0}, without=(tiff.OFFSETS, tiff.PER_STRIP, tiff.COUNTS)),
        "cannot be read as an image",
    ),
    "a strip beyond the file": (a_tiff(tags={tiff.COUNTS: 2**32 - 1, tiff.OFFSETS: 2**31}), "cannot be read"),
    "samples": (a_tiff(tags={tiff.SAMPLES: 2}), "2 channels (RGB"),
    "bits": (a_tiff(tags={tiff.BITS: (8, 8, 4)}), "8, 8, 4 bits a channel"),
    "unreadable": (lambda folder: (folder / "a.png").symlink_to("/proc/self/mem"), "cannot be read: Input/output"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, cache):
    (tmp_path / "images").mkdir()
    return tmp_path / "images"


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_8_bit_rgb_is_refused_with_what_was_found_at_every_door(folder, name):
    make, words = REFUSED[name]
    make(folder)
    (path,) = folder.iterdir()
    for door in DOORS:
        assert words in (found := refusal(path, door)), door.__name__
        assert found.splitlines()[0].count(str(path)) == 1 or door is by_manifest


@pytest.mark.parametrize(
    "make",
    [
        saved(rgb, "a.png"),
        saved(rgb, "a.bmp"),
        saved(rgb, "a.tif", compression="tiff_lzw"),
        saved(rgb, "a.tif", compression="zstd"),
        saved(lambda: Image.fromarray(np.dstack([pixels(), np.full((SIDE, SIDE), 255, np.uint8)])), "a.png"),
        saved(rgb, "a.jpeg", format="PNG"),  # told by content
        a_tiff(tags={tiff.PER_STRIP: 2**32 - 1}),  # "all rows in one strip"
        a_tiff(next_page=8),  # a chain that leads to no directory ends
        a_tiff(next_page=2**31),
        a_tiff(tags={tiff.ORIENTATION: 1}),
        a_tiff(tags=TILES, without=(tiff.OFFSETS, tiff.PER_STRIP, tiff.COUNTS)),
        a_tiff(without=(tiff.COUNTS,)),
    ],
)
def test_what_is_8_bit_rgb_is_the_same_pixels_at_every_door(folder, make):
    make(folder)
    (path,) = folder.iterdir()
    assert image_size(path) == (SIDE, SIDE)
    for door in DOORS:
        np.testing.assert_array_equal(door(path), pixels())


def test_grey_is_read_for_a_model_of_grey_patches(folder):
    grey = pixels()[..., 0]
    for name, image in (("a.png", grey), ("a.tif", grey), ("b.png", grey > 99)):
        Image.fromarray(image).save(folder / name)
        levels = grey if name != "b.png" else np.where(grey > 99, 255, 0)
        np.testing.assert_array_equal(read_image(folder / name, 1)[..., 0], levels)
        np.testing.assert_array_equal(open_tissue(folder / name, 1).rows(0, SIDE)[..., 0], levels)
    for name in ("12 bits in a uint16 RGB TIFF", "palette", "CMYK TIFF", "pages"):
        REFUSED[name][0](folder)
        path = max(folder.iterdir(), key=lambda p: p.stat().st_mtime_ns)
        assert REFUSED[name][1].split(";")[0] in refusal(path, lambda path: read_image(path, 1))


def test_an_eps_file_with_an_images_name_starts_no_ghostscript(folder, tmp_path, monkeypatch):
    """Pillow opens EPS by running `gs`, the file's own program in it."""
    marker, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 10.0\ntouch {marker}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    path = folder / "a.png"
    rgb().save(path, format="EPS")
    for door in DOORS:
        assert "is not an image: PostScript" in refusal(path, door)
    assert not marker.exists()
    with pytest.raises(OSError), Image.open(path) as image:  # whereas what is not told what to open
        image.load()
    assert marker.exists()


@pytest.mark.parametrize("kind", ["png", "bmp", "tif", "jpg"])
def test_a_huge_image_is_refused_before_it_is_decoded(folder, monkeypatch, kind):
    path = folder / f"a.{kind}"
    rgb().save(path)
    data = bytearray(path.read_bytes())
    if kind == "png":
        data[16:24] = struct.pack(">II", 60_000, 60_000)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    elif kind == "jpg":
        at = data.index(b"\xff\xc0")
        data[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    else:
        data = tiff_bytes(pixels(), {tiff.WIDTH: 60_000, tiff.LENGTH: 60_000, tiff.PER_STRIP: 60_000})
    path.write_bytes(data)
    monkeypatch.setattr(image_files, "_load", lambda *_: pytest.fail("decoded"))
    for door in (by_manifest, by_archive):
        found = refusal(path, door)
        assert "60000×60000 pixels, 3,600,000,000 in all; at most 178,956,970 are decoded at once" in found
    assert MOST_PIXELS == 178_956_970


def test_what_reads_a_tiff_in_parts_has_no_such_limit_but_one_for_a_part(folder):
    part = np.random.default_rng(0).integers(0, 256, (10, 6000, 3), np.uint8)
    tiles = {tiff.TILE_WIDTH: 6000, tiff.TILE_LENGTH: 10, tiff.TILE_OFFSETS: (8,) * 3000}
    size = {tiff.WIDTH: 60_000, tiff.LENGTH: 3000, tiff.TILE_COUNTS: (part.size,) * 3000}
    path = folder / "a.tif"
    path.write_bytes(tiff_bytes(part, {**tiles, **size}, without=(tiff.OFFSETS, tiff.PER_STRIP, tiff.COUNTS)))
    np.testing.assert_array_equal(open_tissue(path, 3).rows(2990, 3000)[:, -6000:], part)
    assert "180,000,000 in all" in refusal(path, read_image)
    path.write_bytes(tiff_bytes(pixels(), dict.fromkeys((tiff.WIDTH, tiff.LENGTH, tiff.PER_STRIP), 2**31)))
    assert "strips or tiles of 2147483648×2147483648 pixels; at most 178,956,970" in refusal(path, by_label_of_images)
