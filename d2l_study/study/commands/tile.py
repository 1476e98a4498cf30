"""`tile`: find the tissue of slides, and the tiles that cover it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

from d2l_study.errors import UserError, counted
from d2l_study.inference.output_folder import output_folder, shown, unused_folders_removed
from d2l_study.inference.slide_inputs import slide_inputs, unused_resolution
from d2l_study.inference.tile_slides import EMPTY, FAILED, PICTURES, TABLE, TILED, TiledSlide, tile_slides
from d2l_study.slides.tile_file import ENDING, FOLDER, magnification
from d2l_study.slides.tiles import LEAST_TISSUE, TileSettings
from d2l_study.slides.tissue import check_packages
from d2l_study.study.commands.label_progress import LabelProgress
from d2l_study.study.commands.progress_display import stdout


@dataclass(frozen=True)
class TileOptions:
    """The options of `tile`, by their names on the command line."""

    slides: tuple[str, ...]
    mpp: float
    size: int
    out: str
    overlap: int = 0
    tissue: bool = True
    least_tissue: float | None = None
    slide_mpp: float | None = None


@unused_folders_removed()
def run_tile(options: TileOptions) -> int:
    """Tile the slides, and print what was found. Returns the exit code: 0, 1 if a slide could not be tiled, or 130 if
    it was interrupted.

    `UserError` for what is wrong with the options or the names of slides.
    """
    if options.overlap >= options.size:
        raise UserError(f"--overlap {options.overlap}: expected less than the {options.size} pixels of a tile (--size)")
    if options.least_tissue is not None and not options.tissue:
        raise UserError("--least-tissue: does nothing with --no-tissue; leave one of them out")
    out = output_folder(options.out)
    least = LEAST_TISSUE if options.least_tissue is None else options.least_tissue
    settings = TileSettings(options.mpp, options.size, options.overlap, options.tissue, least)
    inputs = slide_inputs(options.slides, options.slide_mpp)
    if options.tissue:
        check_packages(inputs[0].path)  # said once, not of every slide
    progress = LabelProgress(stdout(), "slides")
    done: list[TiledSlide] = []
    try:
        with progress:
            progress("tiles", 0, len(inputs))
            for slide in tile_slides(inputs, settings, out):
                done.append(slide)
                if not slide.again:
                    progress.say(_line(slide))
                progress("tiles", len(done), len(inputs))
    except KeyboardInterrupt:
        kept = counted(sum(slide.status != FAILED for slide in done), "slide")
        print(f"\nStopped; {kept} of {len(inputs):,} done and kept in {options.out}, and the same command goes on from "
              "there.", file=sys.stderr)  # fmt: skip
        return 130
    _summarise(options, done)
    return 1 if any(slide.status == FAILED for slide in done) else 0


def _line(slide: TiledSlide) -> str:
    name = shown(slide.entry.path.name)
    if slide.tiles is None:
        return f"{name}: failed: {shown(slide.reason)}"
    tissue = "" if slide.share is None else f", {slide.share:.1%} tissue"
    why = f" ({slide.reason})" if slide.reason else ""
    return f"{name}: {len(slide.tiles):,} tiles{tissue}{why}"


def _summarise(options: TileOptions, done: list[TiledSlide]) -> None:
    counts = Counter(slide.status for slide in done)
    tiles = sum(len(slide.tiles) for slide in done if slide.tiles is not None)
    overlap = f", {options.overlap} px overlap" if options.overlap else ""
    print(f"tiles:    {tiles:,} of {options.size} px at {options.mpp:g} µm per pixel "
          f"({magnification(options.mpp):.3g}×){overlap}")  # fmt: skip
    said = [f"{counts[TILED]:,} with tiles"]
    said += [f"{counts[EMPTY]:,} without"] * bool(counts[EMPTY]) + [f"{counts[FAILED]:,} failed"] * bool(counts[FAILED])
    again = sum(slide.again for slide in done)
    said += [f"{again:,} of these were there"] * bool(again)
    print(f"slides:   {', '.join(said)}")
    print(f"files:    {options.out}: {FOLDER}/NAME{ENDING}, {PICTURES}/NAME.png, {TABLE}")
    if note := unused_resolution([(one.entry, one.tiles.slide_mpp) for one in done if one.tiles is not None]):
        print(f"note:     {note}")
