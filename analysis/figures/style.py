"""One style for all figures: letters, lines, panels, legends and notes, in each of the sizes."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from analysis.figures.sizes import LOWEST_PANEL, PANEL_HEIGHT, SIZES, Size
from analysis.tables.sheet import NO_BREAK, keep_together
from d2l_study.errors import UserError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GREY = "#555555"

RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.5,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 220,
    "pdf.fonttype": 42,  # text stays text: journals ask for it
    "svg.fonttype": "path",
    "svg.hashsalt": "d2l_study",  # the same figure twice is the same file
}

INCHES_PER_TITLE_LETTER = 0.075
"""Of a title."""
LABEL_WIDTH = 32
"""Letters of a row's label in one line of a legend."""
INCHES_PER_LABEL_LETTER = 0.064
FEW_CURVES = 4
"""Up to so many curves the legend stands above the panels, and bands can be told apart."""
MOST_BANDS = 8
"""Beyond so many curves the bands of a few points, too, hide each other and the curves."""


_current: ContextVar[Size] = ContextVar("size", default=SIZES["page"])


def current_size() -> Size:
    """The size that figures are drawn at now."""
    return _current.get()


@contextlib.contextmanager
def use(size: str = "page") -> Iterator[Size]:
    """Draw in this style and size. UserError for a size that is not known."""
    import matplotlib as mpl

    if size not in SIZES:
        raise UserError(f"--size {size}: not known{nearest(size, SIZES)} (sizes: {', '.join(SIZES)})")
    chosen = SIZES[size]
    scaled = {key: value * chosen.scale for key, value in RC.items() if key in _LENGTHS}
    token = _current.set(chosen)
    try:
        with mpl.rc_context({**RC, **scaled}):
            yield chosen
    finally:
        _current.reset(token)


def new_figure(height: float | None = None) -> Figure:
    """An empty figure with constrained layout, drawn without a display. height: in inches on paper; without it the
    caller gives the figure its size (`Size.set`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure  # not pyplot, whose state is not for threads

    figure = Figure(layout="constrained")
    FigureCanvasAgg(figure)
    if height is not None:
        current_size().set_size_of(figure, height)
    return figure


def panels(
    count: int,
    height: float = PANEL_HEIGHT,
    *,
    beside: float = 0.0,
    around: float = 0.3,
    least: float = 0.0,
    most: int = 9,
    square: bool = False,
    **shared: Any,
) -> Any:
    """A figure on Agg with so many panels, and their axes in order.

    height: of a panel; beside, around: room beside and above or below all panels; least: the figure's least height, all
    in inches on paper; most: panels beside each other; square: panels are about as wide as high; shared: `sharex` and
    `sharey`.
    """
    size = current_size()
    across = size.columns(count, most)
    down = -(-count // across)
    figure = new_figure()
    wide = size.panel_width(count, beside, most)
    high = size.panel_height(wide, height)
    size.set_size_of(figure, max(least, high * down + around), max(least, min(high, LOWEST_PANEL) * down + around))
    if square:  # a fixed aspect would let constrained layout put labels on each other: the room is made square
        whole = figure.get_figheight() / size.scale
        side = min(wide, (whole - around) / down)
        share = [min(1.0, (side * n + more) / of) for n, more, of in
                 ((across, beside, size.width), (down, around, whole))]  # fmt: skip
        engine: Any = figure.get_layout_engine()
        engine.set(rect=((1 - share[0]) / 2, (1 - share[1]) / 2, *share))
    axes = list(figure.subplots(down, across, squeeze=False, **shared).flat)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, axes[:count]


def wrapped(text: str, width: int = LABEL_WIDTH) -> str:
    """A label in lines that leave the panels their room."""
    return "\n".join(textwrap.wrap(text, width, subsequent_indent="   ", break_long_words=False))


def title_lines(text: str, inches: float) -> str:
    """A title in lines that fit a panel of so many inches on paper; its own line breaks stay."""
    width = max(16, int(inches / INCHES_PER_TITLE_LETTER))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width))


def annotate_empty(axis: Any, text: str) -> None:
    """Why an empty panel is empty, in its middle."""
    lines = textwrap.fill(text, 30)
    axis.text(0.5, 0.5, lines, transform=axis.transAxes, ha="center", va="center", color=GREY, style="italic")


def unit_square(axis: Any) -> None:
    """A plot of rates against rates, from 0 to 1; what is drawn on its edge is not cut off."""
    axis.set(xlim=(0, 1), ylim=(0, 1))
    for line in axis.get_lines():
        line.set_clip_on(False)


def limit_to_unit_interval(axis: Any) -> None:
    """Let an axis of matplotlib (`XAxis`, `YAxis`), along which a metric in [0, 1] runs, go no further than 0 and 1.
    What is drawn on its ends is not cut off."""
    lower, upper = axis.get_view_interval()
    axis.axes.set(**{f"{axis.axis_name}lim": (max(lower, 0.0), min(upper, 1.0))})
    shared = getattr(axis.axes, f"get_shared_{axis.axis_name}_axes")().get_siblings(axis.axes)
    for axes in shared:
        for line in axes.get_lines():
            line.set_clip_on(False)


def footnote(figure: Any, text: str) -> None:
    """A sentence below all panels, in lines that fit the figure."""
    figure.supxlabel(note_lines(figure, text), fontsize="small", color=GREY)


def note_lines(figure: Any, text: str) -> str:
    """A note in small letters in lines that fit the figure."""
    width = figure.get_figwidth() * 72 / current_size().scale / 3.7
    lines = textwrap.wrap(keep_together(text), max(30, int(width)))
    return "\n".join(lines).replace(NO_BREAK, " ")


def spread_note(drawn: str, what: str, shown: bool, hidden: bool) -> str:
    """The part of a note on the spread (bars, bands) that is drawn only in panels of at most `FEW_CURVES`.

    drawn: what is said of it where some is; what: its name, in the plural; shown, hidden: whether some panel has it,
    and whether some panel has too many curves for what it would have
    """
    if not hidden:
        return drawn if shown else ""
    if not shown:
        return f"; no {what}, since more than {FEW_CURVES} would hide each other"
    return f"{drawn}; no {what} in panels of more than {FEW_CURVES} curves, where they would hide each other"


_LENGTHS = frozenset({
    "font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize",
    "axes.linewidth", "grid.linewidth", "lines.linewidth", "lines.markersize",
})  # fmt: skip
