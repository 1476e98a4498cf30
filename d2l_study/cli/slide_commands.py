"""The command about whole-slide images: `tile`."""

from __future__ import annotations

import argparse
from typing import Any

from d2l_study.cli.arguments import add_command, not_negative, positive, resolution, share


def add_slide_commands(commands: Any) -> None:
    """Add `tile` to a parser's `commands`."""
    tile = add_command(commands, "tile", _tile, "find the tissue of whole-slide images, and the tiles that cover it")
    tile.add_argument("slides", nargs="+", metavar="SLIDE",
                      help="slides (.svs, .ndpi, .mrxs, DICOM, TIFF …), folders of slides, or tables with column path "
                           "and perhaps mpp, the slide's own resolution, which corrects the file's")  # fmt: skip
    tile.add_argument("--mpp", type=resolution, required=True, metavar="X",
                      help="resolution of the tiles in µm per pixel, whatever the slides have: 0.5 is 20×")  # fmt: skip
    tile.add_argument("--size", type=positive, required=True, metavar="PX", help="side of a tile in its pixels")
    tile.add_argument("--overlap", type=not_negative, default=0, metavar="PX",
                      help="pixels that a tile shares with the next; default: 0")  # fmt: skip
    tile.add_argument("--tissue", action=argparse.BooleanOptionalAction, default=True,
                      help="only tiles of tissue, or all; default: of tissue")  # fmt: skip
    tile.add_argument("--least-tissue", type=share, metavar="SHARE",
                      help="share of a tile that is tissue at least; default: 0.5")  # fmt: skip
    tile.add_argument("--slide-mpp", type=resolution, metavar="X",
                      help="resolution of slides that do not say theirs, in µm per pixel: 0.25 is 40×")  # fmt: skip
    tile.add_argument("--out", required=True, metavar="DIR",
                      help="folder for patches/NAME_patches.h5 (TRIDENT's layout), pictures, tiles.csv")  # fmt: skip


def _tile(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.tile import TileOptions, run_tile

    return run_tile(TileOptions(
        tuple(arguments.slides), arguments.mpp, arguments.size, arguments.out, arguments.overlap, arguments.tissue,
        arguments.least_tissue, arguments.slide_mpp,
    ))  # fmt: skip
