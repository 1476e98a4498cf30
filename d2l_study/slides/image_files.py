"""Image files: one reader and one rule for the manifest, the archives and the inputs of `label`.

    pixels = read_image(Path("a.png"))         # (H, W, 3) uint8
    width, height = image_size(Path("a.png"))  # the same rule, as far as headers tell; decodes nothing

PNG, TIFF, BMP and JPEG files are read, told by their content, and of these what is 8-bit RGB; for a model of grey
patches 8-bit grey, too, and RGB by its luminance. An alpha channel may be there if every pixel is opaque. All else is
refused with what was found: to read it would need a guess (which 12 of 16 bits, which way up, what a palette, print
colours or grey should look like), and a wrong guess shows in results only.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from d2l_study.errors import UserError
from d2l_study.slides.tiff_tags import LENGTH, WIDTH, Tags, check_tiff, read_tags

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 178_956_970
"""Of an image that is decoded whole: about 0.7 GB. It is the size at which Pillow, too, suspects a trap."""

EXPECTED = {3: "an 8-bit RGB PNG, TIFF, BMP or JPEG", 1: "an 8-bit grey or RGB PNG, TIFF, BMP or JPEG"}
"""By the channels of what reads the image."""

_MODES = {3: ("RGB", "RGBA"), 1: ("1", "L", "LA", "RGB", "RGBA")}
"""Pillow's names of what is read."""

_MODE_NAMES = {
    "1": "black and white", "L": "greyscale", "LA": "greyscale", "P": "a palette of colours",
    "PA": "a palette of colours", "CMYK": "CMYK, the colours of print", "LAB": "L*a*b* colours",
    "YCbCr": "YCbCr colours", "F": "floating point numbers", "I": "more than 8 bits", "I;16": "16-bit greyscale",
}  # fmt: skip

_FORMATS = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP",
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip
"""How the files begin that are read."""

DICOM, CZI, SQLITE, NUMPY = "a DICOM file", "a Zeiss CZI slide", "an SQLite database", "a NumPy array"
"""Of what `content_of` says, kinds of files that other readers take."""

_OTHERS = (
    (0, b"\x89HDF", "an HDF5 file (of features?)"), (0, b"%!PS", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "PostScript"), (0, b"%PDF", "a PDF file"), (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"), (4, b"jP  ", "a JPEG 2000 image"), (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (4, b"ftyp", "a HEIC or AVIF image"), (0, b"PK", "a zip file"), (0, b"\x93NUMPY", NUMPY),
    (0, b"\x1f\x8b", "a gzip file"), (0, b"PAR1", "a Parquet file"), (0, b"ZISRAWFILE", CZI),
    (0, b"8BPS", "a Photoshop file"), (128, b"DICM", DICOM), (0, b"<", "XML or HTML text"),
    (0, b"SQLite format 3", SQLITE),
)  # fmt: skip
"""(offset, bytes there, name) of files that are taken for images."""

_TURNED = range(2, 9)
"""EXIF orientations that turn or flip; 1 is upright, others mean nothing."""

_ONE_AT_A_TIME = threading.Lock()
_LARGE = 2**25
"""Pixels of an image from which on threads decode one after the other, so that memory stays bounded."""


HEAD = 132
"""Bytes from a file's beginning that `content_of` looks at."""


def content_of(head: bytes) -> str:
    """What a file is, by its first bytes: `PNG`, `JPEG`, `BMP` or `TIFF`, else words for it (`a DICOM file`)."""
    kind = next((name for begin, name in _FORMATS.items() if head.startswith(begin)), None)
    if kind is not None:
        return kind
    if not head:
        return "an empty file"
    return next((name for at, mark, name in _OTHERS if head[at:].startswith(mark)), "a file of an unknown kind")


def read_image(path: Path, channels: int = 3) -> np.ndarray:
    """(H, W, channels) uint8: RGB, or grey for channels 1; `UserError` with file and reason if it cannot be read."""
    with _opened(path, channels) as image, _turn(image):
        _load(path, image)
        mode = "L" if channels == 1 else "RGB"
        pixels = np.asarray(image if image.mode == mode else image.convert(mode))
        return pixels.reshape(image.height, image.width, channels)


def decoded(path: Path, channels: int = 3) -> Image.Image:
    """The decoded image, of one of Pillow's modes RGB and RGBA (opaque), for channels 1 also 1, L, LA."""
    with _opened(path, channels) as image:
        _load(path, image)
        return image


def _load(path: Path, image: Image.Image) -> None:
    image.load()
    _check_upright(path, image.getexif())  # a PNG may say so after its pixels
    _check_opaque(path, image)


def _turn(image: Image.Image) -> AbstractContextManager[object]:
    return _ONE_AT_A_TIME if image.width * image.height >= _LARGE else nullcontext()


def image_size(path: Path, channels: int = 3) -> tuple[int, int]:
    """(width, height) from the file's header, without decoding it; `UserError` as of `read_image`."""
    with _opened(path, channels) as image:
        return image.size


@contextmanager
def _opened(path: Path, channels: int) -> Iterator[Image.Image]:
    """An image whose header keeps the rule, its pixels not yet decoded."""
    from PIL import Image

    quiet_pillow()
    if channels not in EXPECTED:
        raise UserError(f"{path}: an image has 1 or 3 channels; {channels} are expected: give an array (.npy)")
    with decode_errors(path), path.open("rb") as file:
        kind = _format(path, file, channels)
        try:
            image = Image.open(file, formats=(kind,))
        except Image.DecompressionBombError:
            file.seek(0)
            with Image.OPEN[kind][0](file, str(path)) as header:
                raise _too_large(path, *header.size) from None
        with image:
            if image.width * image.height > MOST_PIXELS:
                raise _too_large(path, *image.size)
            if image.mode not in _MODES[channels]:
                found = _MODE_NAMES.get(image.mode, "pixels of a kind that is not read")
                grey = " (save it as RGB if grey is meant)" if image.mode in ("1", "L", "LA") else ""
                raise UserError(f"{path}: {found} (mode {image.mode}); expected {EXPECTED[channels]}{grey}")
            pages = getattr(image, "n_frames", 1) if kind != "TIFF" else 1
            if pages > 1:
                moving = "is animated, " if kind == "PNG" else "holds "
                raise UserError(f"{path}: {moving}{pages} pictures; expected one")
            if kind == "JPEG" or "exif" in image.info:
                _check_upright(path, image.getexif())
            yield image


def _format(path: Path, file: IO[bytes], channels: int) -> str:
    """Pillow's name for the format of a file that is read, the parts of its header checked that Pillow says nothing
    about; leaves `file` at its beginning."""
    head = file.read(HEAD)
    kind = content_of(head)
    if kind not in _FORMATS.values():
        if kind.endswith("image"):
            raise UserError(f"{path}: is {kind}, which is not read; expected {EXPECTED[channels]}")
        raise UserError(f"{path}: is not an image: {kind}; expected {EXPECTED[channels]}")
    depth = 8
    if kind == "PNG" and head[12:16] == b"IHDR":
        depth = head[24]  # Pillow reads 16-bit RGB as if it were of 8 bits
    elif kind == "BMP" and len(head) >= 30:
        (header,) = struct.unpack_from("<I", head, 14)
        (bits,) = struct.unpack_from("<H", head, 24 if header == 12 else 28)
        if bits == 16:
            raise UserError(f"{path}: 5 or 6 bits a channel; expected {EXPECTED[channels]}")
    elif kind == "TIFF":
        check_tiff(path, read_tags(file), channels, EXPECTED[channels])
    if depth > 8:
        raise UserError(f"{path}: {depth} bits a channel; expected {EXPECTED[channels]}")
    file.seek(0)
    return kind


def fits_whole(tags: Tags) -> bool:
    """Whether a TIFF is small enough to be decoded whole."""
    return tags.number(WIDTH, least=1) * tags.number(LENGTH, least=1) <= MOST_PIXELS


def _too_large(path: Path, width: int, height: int) -> UserError:
    return UserError(
        f"{path}: {width}×{height} pixels, {width * height:,} in all; at most {MOST_PIXELS:,} are decoded at once (cut "
        "it into regions; `label` reads TIFF and .npy of any size in parts)"
    )


def _check_upright(path: Path, exif: Any) -> None:
    orientation = exif.get(274)
    if orientation in _TURNED:
        raise UserError(
            f"{path}: its EXIF data turn or flip it (orientation {orientation}); expected an image that is stored "
            "upright, so that places in it mean the same to all programs"
        )


def _check_opaque(path: Path, image: Image.Image) -> None:
    """`UserError` for transparent pixels, looked for band by band: what they would look like is in no file."""
    if image.mode not in ("LA", "RGBA") and "transparency" not in image.info:
        return
    step = max(1, 2**22 // image.width)
    for first in range(0, image.height, step):
        band = image.crop((0, first, image.width, min(image.height, first + step))).convert("RGBA")
        least: Any = band.getchannel("A").getextrema()[0]
        if least < 255:
            raise UserError(f"{path}: has transparent pixels; expected an opaque image")


@contextmanager
def decode_errors(path: Path) -> Iterator[None]:
    """What readers say of a file that cannot be read, in the user's words: `UserError`, whatever they raise (Pillow
    OSError, SyntaxError, ValueError, struct.error, KeyError, ZeroDivisionError …)."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnidentifiedImageError:  # its own text repeats the path
        raise UserError(f"{path}: cannot be read as an image: its header is damaged") from None
    except MemoryError:
        raise UserError(f"{path}: cannot be read as an image: it needs more memory than there is") from None
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read{' as an image' if not error.strerror else ''}: {reason}") from None
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path}: cannot be read as an image: damaged ({reason})") from None


def quiet_pillow() -> None:
    """Pillow warns of what it finds odd in a damaged file, and then raises: the error alone is for the user. It warns
    of large images, too, half as large as it refuses."""
    from PIL import Image

    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\..*")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
