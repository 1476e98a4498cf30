"""Tiles slides one after the other into a folder: a file of coordinates and a picture of each, and a table of all.

    OUT/patches/NAME_patches.h5   coordinates (`slides.tile_file`)
    OUT/pictures/NAME.png         tissue and tiles
    OUT/tiles.csv                 a row for each slide
    OUT/tile_settings.json        what all of them were made with

A slide that has its files, made with the same settings from the same file, is not made again. One that cannot be tiled
is named in the table, and the others go on.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2l_study.atomic_files import write_whole
from d2l_study.environment import file_errors_as_user_errors
from d2l_study.errors import UserError
from d2l_study.inference.output_folder import make_folder, shown, writing
from d2l_study.inference.slide_inputs import SlideInput
from d2l_study.slides.tile_file import ENDING, FOLDER, magnification, read_about, read_tiles, tile_path, write_tiles
from d2l_study.slides.tile_picture import tile_picture
from d2l_study.slides.tiles import SlideTiles, TileSettings, cut_tiles, why_no_tiles

SETTINGS, TABLE, PICTURES = "tile_settings.json", "tiles.csv", "pictures"
COLUMNS = (
    "slide", "path", "file", "width", "height", "mpp", "magnification", "tiles", "tissue_share", "status", "reason",
)  # fmt: skip
TILED, EMPTY, FAILED = "tiled", "empty", "failed"
"""What the column `status` says: tiles, none, or the slide could not be read."""

VERSION = 1
"""Of what finds tissue and tiles: files of another version are made again."""

FALLBACK = "fallback_mpp"
"""What a file is told of the resolution that its slide was taken to have because it did not say its own."""

_AT_A_TIME = 2
"""Slides: one is read while the other is looked at."""


@dataclass(frozen=True)
class TiledSlide:
    """A slide that is done. status: `TILED`, `EMPTY` or `FAILED`; tiles: None if it failed; share: of the slide that is
    tissue, None if it was not looked for; reason: why there are no tiles; again: whether its files were there."""

    entry: SlideInput
    status: str
    tiles: SlideTiles | None = None
    share: float | None = None
    reason: str = ""
    again: bool = False


def check_settings(out: Path, settings: TileSettings) -> None:
    """`UserError` if the folder holds tiles of other settings."""
    path = out / SETTINGS
    with writing(out):
        if not path.exists() or not any((out / FOLDER).glob(f"*{ENDING}")):
            return
        try:
            there = dict(json.loads(path.read_bytes()))
        except ValueError:
            raise UserError(f"--out {out}: {SETTINGS} is damaged; name another folder, or remove it") from None
    mine = dataclasses.asdict(settings)
    other = [f"{key} {there.get(key)} (now {mine[key]})" for key in mine if there.get(key) != mine[key]]
    if other:
        raise UserError(
            f"--out {out}: holds tiles of other settings: {', '.join(other)}; name another folder, or use the same ones"
        )


def tile_slides(inputs: Sequence[SlideInput], settings: TileSettings, out: Path) -> Iterator[TiledSlide]:
    """Tile slides in their order, and keep the table up to date; yields each when its files are there.

    `UserError` for a folder that holds tiles of other settings, or takes no files.
    """
    check_settings(out, settings)
    make_folder(out)
    with writing(out):
        (out / PICTURES).mkdir(exist_ok=True)
        write_whole(out / SETTINGS, json.dumps(dataclasses.asdict(settings), indent=1).encode())
    rows = _rows_there(out)
    executor = ThreadPoolExecutor(_AT_A_TIME)
    try:
        for done, picture, about in executor.map(lambda entry: _tile(entry, settings, out), inputs):
            if picture:
                assert done.tiles is not None
                with writing(out):
                    write_whole(picture_path(out, done.entry.name), picture)
                    write_tiles(out, done.tiles, about)
            rows[done.entry.name] = _row(done, out)
            yield done
    finally:
        executor.shutdown(cancel_futures=True)
        with writing(out):
            write_whole(out / TABLE, _csv(rows))


def picture_path(out: Path, name: str) -> Path:
    """Where the picture of a slide of that name is, in a folder."""
    return out / PICTURES / f"{name}.png"


def _tile(entry: SlideInput, settings: TileSettings, out: Path) -> tuple[TiledSlide, bytes, dict[str, Any]]:
    """A slide, its picture (empty if its files are there already, or it failed), and how it was made."""
    try:
        about = _about(entry, settings)
        there = _there(entry, out, about)
        if there is not None:
            return there, b"", about
        with file_errors_as_user_errors(str(entry.path)), entry.open() as slide:
            tiles = cut_tiles(slide, settings)
            picture = tile_picture(slide, tiles, shown(slide.path.name))
            mpp = entry.fallback_mpp
            about[FALLBACK] = mpp if entry.mpp is None and slide.mpp == (mpp, mpp) else None
    except UserError as error:
        return TiledSlide(entry, FAILED, reason=str(error).removeprefix(f"{entry.path}: ")), b"", {}
    share = None if tiles.tissue is None else tiles.tissue.share
    reason = "" if len(tiles) else why_no_tiles(tiles, settings.least_tissue)
    about |= {"tissue_share": share, "reason": reason}
    return TiledSlide(entry, TILED if len(tiles) else EMPTY, tiles, share, reason), picture, about


def _about(entry: SlideInput, settings: TileSettings) -> dict[str, Any]:
    """What the tiles of a slide depend on."""
    files = [entry.path] if entry.path.is_file() else sorted(entry.path.iterdir())
    try:
        states = [path.stat() for path in files]
    except OSError as error:
        raise UserError(f"{entry.path}: cannot be read: {error.strerror or error}") from None
    return {
        "version": VERSION, **dataclasses.asdict(settings), "given_mpp": entry.mpp,
        "bytes": sum(state.st_size for state in states), "changed": max(state.st_mtime_ns for state in states),
    }  # fmt: skip


def _there(entry: SlideInput, out: Path, about: Mapping[str, Any]) -> TiledSlide | None:
    """The slide as its files have it, if they are whole and made in this way."""
    path = tile_path(out, entry.name)
    if not (path.is_file() and picture_path(out, entry.name).is_file()):
        return None
    try:
        found, tiles = read_about(path), read_tiles(path)
    except UserError:  # damaged
        return None
    if any(found.get(key) != value for key, value in about.items()):
        return None
    if found.get(FALLBACK) not in (None, entry.fallback_mpp):  # the option counts for slides that needed it
        return None
    status = TILED if len(tiles) else EMPTY
    return TiledSlide(entry, status, tiles, found.get("tissue_share"), str(found.get("reason", "")), again=True)


# ---- the table
def _row(done: TiledSlide, out: Path) -> dict[str, Any]:
    row: dict[str, Any] = {
        "slide": shown(done.entry.name), "path": shown(done.entry.path), "status": done.status,
        "reason": shown(done.reason),
    }  # fmt: skip
    if done.tiles is not None and done.tiles.slide_mpp is not None:
        mpp = sum(done.tiles.slide_mpp) / 2
        row |= {
            "file": shown(tile_path(out, done.entry.name).relative_to(out)), "width": done.tiles.width,
            "height": done.tiles.height, "mpp": f"{mpp:.6g}", "magnification": f"{magnification(mpp):.3g}",
            "tiles": len(done.tiles), "tissue_share": "" if done.share is None else f"{done.share:.4f}",
        }  # fmt: skip
    return row


def _rows_there(out: Path) -> dict[str, dict[str, Any]]:
    """The rows of the table that an earlier command wrote, by their slides."""
    try:
        with (out / TABLE).open(newline="", encoding="utf-8") as file:
            return {row["slide"]: row for row in csv.DictReader(file) if set(row) == set(COLUMNS)}
    except (OSError, UnicodeDecodeError, csv.Error, KeyError):
        return {}


def _csv(rows: Mapping[str, Mapping[str, Any]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, restval="")
    writer.writeheader()
    writer.writerows(rows[name] for name in sorted(rows))
    return text.getvalue().encode()
