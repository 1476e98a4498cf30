"""Opens a slide by what its file holds, and says what is wrong with one that cannot be read.

    with open_slide("S-001.svs") as slide:             # Aperio, Hamamatsu, MIRAX, DICOM … by OpenSlide
        ...
    open_slide("S-002.ome.tif", mpp=0.25)              # other TIFF by tifffile, with a resolution that it lacks
    open_slide("region.png")                           # images that are decoded whole, and arrays (.npy)

Packages of the extra `[wsi]` are needed for slides; a plain TIFF that Pillow decodes whole is read without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from d2l_study.environment import file_errors_as_user_errors
from d2l_study.errors import UserError, listed
from d2l_study.slides import image_files
from d2l_study.slides import tiff_tags as tiff
from d2l_study.slides.image_files import decode_errors
from d2l_study.slides.image_reader import ImageReader
from d2l_study.slides.openslide_reader import GENERIC, OpenSlideReader, vendor_of
from d2l_study.slides.packages import PACKAGES, has_wsi
from d2l_study.slides.physical_size import COARSEST, FINEST, believed, doubt
from d2l_study.slides.slide import Slide
from d2l_study.slides.tifffile_reader import TifffileReader, check_pages

SLIDE_SUFFIXES = (".svs", ".ndpi", ".mrxs", ".scn", ".vms", ".vmu", ".bif", ".czi", ".svslide", ".qptiff", ".dcm")
"""Names of files that are taken for slides whatever they hold."""

_BY_OPENSLIDE = (image_files.DICOM, image_files.CZI, image_files.SQLITE)

_WITH_COMPANIONS = {
    ".mrxs": ("a MIRAX slide", "the folder of that name with its Slidedat.ini and Data files"),
    ".vms": ("a Hamamatsu VMS slide", "the images that it names beside it"),
    ".vmu": ("a Hamamatsu VMU slide", "the images that it names beside it"),
}

IMAGE_SUFFIXES = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".npy")

EXPECTED = "a slide (Aperio .svs, Hamamatsu .ndpi, MIRAX .mrxs, DICOM, pyramidal or OME-TIFF …) or an 8-bit RGB image"


def open_slide(path: str | Path, mpp: float | Sequence[float] | None = None) -> Slide:
    """A slide or image, opened by the reader that its content asks for.

    path: a file, or the folder of a DICOM slide; mpp: µm per pixel of level 0, one number or (x, y), instead of what
    the file says. `UserError` in one line for what cannot be read: cut short, of other pixels than 8-bit RGB, with
    files missing, or no slide at all; `[wsi]` missing.
    """
    path = Path(path)
    given = None if mpp is None else _given(path, mpp)
    slide = _open(_dicom_file(path) if path.is_dir() else path)
    slide.path = path
    if given is not None:
        slide.mpp, slide.doubt = given, ""
    return slide


def is_slide(path: str | Path) -> bool:
    """Whether a file or folder is one that only a reader of slides takes: by its name (.svs, .mrxs …), DICOM, or a TIFF
    with levels or compressed as Pillow cannot read it. It may be damaged all the same. Needs no package."""
    path = Path(path)
    if path.is_dir():
        return bool(_dicom_files(path))
    if path.suffix.lower() in SLIDE_SUFFIXES:
        return True
    content = _content(path)
    if content == "TIFF":
        image_files.quiet_pillow()
        try:
            with path.open("rb") as file:
                return tiff.needs_slide_reader(tiff.read_tags(file))
        except Exception:  # of a damaged header; whoever opens it says what is wrong
            return False
    return content in _BY_OPENSLIDE


def slide_files(folder: str | Path) -> list[Path]:
    """The slides and images directly in a folder, by name.

    A folder of DICOM files of one slide stands for it, this one or one in it; of several slides, or beside other
    slides, a file of each does. `UserError` if the folder cannot be read.
    """
    folder = Path(folder)
    with file_errors_as_user_errors(str(folder)):
        entries = sorted(folder.iterdir())
    dicom = _dicom_files(folder)
    slides: list[Path] = []
    images: list[Path] = []
    for entry in entries:
        if entry.name.startswith(".") or entry in dicom:
            continue
        if entry.is_dir():
            slides += _named(entry, _dicom_files(entry))
        elif entry.suffix.lower() in SLIDE_SUFFIXES:
            slides.append(entry)
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            images.append(entry)
    if dicom and not slides:  # images beside the files of a DICOM slide are its previews
        return _named(folder, dicom)
    return sorted([*slides, *images, *_dicom_slides(dicom)])


def _named(folder: Path, dicom: Sequence[Path]) -> list[Path]:
    """What DICOM files of a folder are called as slides."""
    if not dicom:
        return []
    slides = _dicom_slides(dicom)
    return [folder] if len(slides) == 1 else slides


def _open(path: Path) -> Slide:
    with decode_errors(path):
        content = _content(path, quietly=False)
    suffix = path.suffix.lower()
    if suffix in _WITH_COMPANIONS and content != "an empty file":
        return _open_with_companions(path)
    if content == "TIFF":
        return _open_tiff(path)
    if content in _BY_OPENSLIDE:
        if vendor_of(path) is None:
            raise UserError(f"{path}: {content} that holds no slide; expected {EXPECTED}")
        return OpenSlideReader(path)
    if content in ("PNG", "JPEG", "BMP", image_files.NUMPY):
        return ImageReader(path)
    raise UserError(f"{path}: is no slide and no image: {content}; expected {EXPECTED}")


def _open_tiff(path: Path) -> Slide:
    if not has_wsi(*PACKAGES):
        with decode_errors(path), path.open("rb") as file:
            tags = tiff.read_tags(file)
            if image_files.fits_whole(tags) and not tiff.needs_slide_reader(tags):
                return ImageReader(path)
    if vendor_of(path) in (None, GENERIC):
        return TifffileReader(path)
    check_pages(path)
    return OpenSlideReader(path)


def _open_with_companions(path: Path) -> Slide:
    """A format of several files, of which OpenSlide says only that it does not know the one given."""
    if vendor_of(path) is None:
        what, needed = _WITH_COMPANIONS[path.suffix.lower()]
        found = "it is no such file, or the images that it names are not beside it"
        if path.suffix.lower() == ".mrxs":
            beside = path.with_suffix("")
            there = f"its folder {beside.name} holds no Slidedat.ini"
            found = there if beside.is_dir() else f"there is no folder {beside.name} beside it"
        raise UserError(f"{path}: {what}, but {found}; expected {needed}")
    return OpenSlideReader(path)


def _dicom_file(folder: Path) -> Path:
    """The file by which the slide of a folder of DICOM files is opened."""
    files = _dicom_files(folder)
    if not files:
        raise UserError(f"{folder}: a folder without DICOM files; expected {EXPECTED}, or the folder of a DICOM slide")
    first = _dicom_slides(files)
    if len(first) > 1:
        raise UserError(
            f"{folder}: holds DICOM files of {len(first)} slides ({listed(path.name for path in first)}); expected "
            "one, or the name of one of its files"
        )
    return first[0]


def _dicom_slides(files: Sequence[Path]) -> list[Path]:
    """A file of each slide among DICOM files of a folder: of each series, which OpenSlide puts together."""
    found: dict[str, Path] = {}
    for path in files:
        with suppress(UserError), OpenSlideReader(path) as slide:
            found.setdefault(slide.properties.get("dicom.SeriesInstanceUID", ""), path)
    return list(found.values()) or list(files[:1])


def _dicom_files(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    return [entry for entry in entries if entry.is_file() and _content(entry) == image_files.DICOM]


def _content(path: Path, quietly: bool = True) -> str:
    try:
        with path.open("rb") as file:
            return image_files.content_of(file.read(image_files.HEAD))
    except OSError:
        if quietly:
            return ""
        raise


def _given(path: Path, mpp: float | Sequence[float]) -> tuple[float, float]:
    x, y = (mpp, mpp) if isinstance(mpp, int | float) else mpp
    found = believed(x, y)
    if found is None:
        raise UserError(
            f"{path}: mpp {doubt(x, y)} is not allowed; expected µm per pixel from {FINEST} to {COARSEST:g}"
        )
    return found
