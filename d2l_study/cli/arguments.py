"""What the commands have in common: how one is added, their shared arguments, and numbers within limits."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

ROOT = "runs"
MOST_REPLICATES = 1000
"""As a space may have (`StudyOptions.replicates`), said here again so that a wrong number is answered at once."""


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    """Add a command to the parser's `commands`. function: runs it, and returns its exit code (None is 0); text: its
    line in the help."""
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.set_defaults(command=function, parser=parser)
    return parser


def add_existing_study(
    parser: argparse.ArgumentParser, text: str = "a study's name, or its folder", nargs: str | None = None
) -> None:
    """The arguments STUDY and --root of a command about a study that exists."""
    parser.add_argument("study", metavar="STUDY", help=text, nargs=nargs)
    add_root(parser)


def add_root(parser: argparse.ArgumentParser) -> None:
    """The argument --root."""
    parser.add_argument("--root", default=ROOT, metavar="DIR", help=f"where results are kept; default: {ROOT}/")


def add_device(parser: argparse.ArgumentParser) -> None:
    """The argument --device, of commands that score with a stored model."""
    parser.add_argument("--device", default="auto", metavar="D",
                        help="auto, cpu, cuda, or cuda:N; auto takes a GPU where there is one")  # fmt: skip


def positive(text: str) -> int:
    """A whole number from 1 to 1,000,000."""
    return _whole(text, 1, 1_000_000)


def not_negative(text: str) -> int:
    """A whole number from 0 to 1,000,000."""
    return _whole(text, 0, 1_000_000)


def resolution(text: str) -> float:
    """µm per pixel, from 0.01 to 100."""
    return _number(text, 0.01, 100, "µm per pixel")


def share(text: str) -> float:
    """A share, from 0 to 1."""
    return _number(text, 0, 1, "a share")


def replicate_count(text: str) -> int:
    """A number of replicates, from 1 to `MOST_REPLICATES`."""
    return _whole(text, 1, MOST_REPLICATES)


def replicate_number(text: str) -> int:
    """The number of a replicate, from 0."""
    return _whole(text, 0, MOST_REPLICATES - 1)


def port(text: str) -> int:
    """The number of a port; 0 lets the system choose."""
    return _whole(text, 0, 65535)


def _whole(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number from {least} to {most}")
    return value


def _number(text: str, least: float, most: float, what: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        comma = " (decimals are written with a point)" if "," in text else ""
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected {what} from {least:g} to {most:g}{comma}")
    return value
