"""A figure written to a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from analysis.figures import style
from analysis.rows.output_files import writable_path, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")


def save_figure(figure: Figure, out: str | Path) -> Path:
    """Write a figure as .png, .svg or .pdf; returns its path. UserError for another suffix, or where
    that is not possible."""
    import matplotlib as mpl

    path = writable_path(out, SUFFIXES)
    # Without a date in it the same figure is the same file.
    suffix = path.suffix.lower()
    metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with writing(path) as place, mpl.rc_context(style.RC):
        figure.savefig(place, format=suffix[1:], metadata=metadata)
    return path
