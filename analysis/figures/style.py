"""One style for all figures: colours that colour-blind readers tell apart (Okabe & Ito, 2008), and markers
and line styles that differ as well, so that a print in grey reads the same."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.figures.sizes import LOWEST_PANEL, PANEL_HEIGHT, SIZES, Size
from analysis.rows.stages import ORACLE, REFERENCES
from analysis.tables.sheet import NO_BREAK, keep_together
from d2l_study.errors import UserError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette without its yellow, which vanishes on white, and with Paul Tol's wine and a grey, so that
# nine arms have nine colours; black first, for the baseline.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#888888")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
GREY = "#555555"
REFERENCE_MARKERS, ORACLE_MARKER = ("p", "h", "8", "H"), "*"

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

INCHES_PER_LETTER = 0.075
"""Of a title."""


_current: ContextVar[Size] = ContextVar("size", default=SIZES["page"])


def current() -> Size:
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
        current().set(figure, height)
    return figure


def panels(
    count: int,
    height: float = PANEL_HEIGHT,
    *,
    beside: float = 0.0,
    around: float = 0.3,
    most: int = 9,
    square: bool = False,
    **shared: Any,
) -> Any:
    """A figure on Agg with so many panels, and their axes in order.

    height: of a panel; beside, around: room beside and above or below all panels, all in inches on paper; most: panels
    beside each other; square: panels are about as wide as high; shared: `sharex` and `sharey`.
    """
    size = current()
    across = size.columns(count, most)
    down = -(-count // across)
    figure = new_figure()
    wide = size.panel_width(count, beside, most)
    high = size.panel_height(wide, height)
    size.set(figure, high * down + around, min(high, LOWEST_PANEL) * down + around)
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


def legend(figure: Any, handles: list[Any], characters: int) -> None:
    """A legend above all panels, in as many columns as the longest of its labels leaves room for."""
    per = 4.9 * characters + 52
    columns = max(1, min(len(handles), int(figure.get_figwidth() * 72 / current().scale / per)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, handlelength=3.2)


def wrapped(text: str, width: int = 32) -> str:
    """A label in lines that leave the panels their room."""
    return "\n".join(textwrap.wrap(text, width, subsequent_indent="   ", break_long_words=False))


def title_lines(text: str, inches: float) -> str:
    """A title in lines that fit a panel of so many inches on paper; its own line breaks stay."""
    width = max(16, int(inches / INCHES_PER_LETTER))
    return "\n".join(line for part in text.split("\n") for line in textwrap.wrap(part, width))


FEW = 4
"""Up to so many curves the legend stands above the panels, and bands can be told apart."""


def panels_with_legend(
    count: int, height: float, names: list[str], most: int = 9, **shared: Any
) -> tuple[Any, Any, Any]:
    """`panels` with room for a legend of these names: above them, or beside where there are many names and there is
    room. Returns the figure, the axes, and a function that takes the handles of the legend."""
    size = current()
    many = len(names) > FEW
    longest = max(min(len(name), 32) for name in names)
    beside = 0.064 * longest + 0.6 if many and size.columns(count, most) < size.across else 0.0
    lines = 0 if beside else len(names) if many else 1
    figure, axes = panels(count, height, beside=beside, around=0.4 + 0.18 * lines, most=most, **shared)

    def draw(handles: list[Any]) -> None:
        if len(handles) < 2:
            return
        if beside:
            figure.legend(handles=handles, loc="outside right upper", handlelength=3.2, labelspacing=0.7)
        else:
            legend(figure, handles, longest)

    return figure, axes, draw


def say(axis: Any, text: str) -> None:
    """Why an empty panel is empty, in its middle."""
    lines = textwrap.fill(text, 30)
    axis.text(0.5, 0.5, lines, transform=axis.transAxes, ha="center", va="center", color=GREY, style="italic")


def unit_square(axis: Any) -> None:
    """A plot of rates against rates, from 0 to 1; what is drawn on its edge is not cut off."""
    axis.set(xlim=(0, 1), ylim=(0, 1))
    for line in axis.get_lines():
        line.set_clip_on(False)


def end_at_one(axis: Any) -> None:
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
    width = figure.get_figwidth() * 72 / current().scale / 3.7
    lines = textwrap.wrap(keep_together(text), max(30, int(width)))
    return "\n".join(lines).replace(NO_BREAK, " ")


_LENGTHS = frozenset({
    "font.size", "axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize",
    "axes.linewidth", "grid.linewidth", "lines.linewidth", "lines.markersize",
})  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """How one curve looks."""

    colour: str
    marker: str
    line: Any


def marks(families: list[str]) -> list[Mark]:
    """A look for each curve, given the family (the method) that each belongs to.

    A family shares colour and marker, and its members differ by line style; where every family has one member
    the line style differs between families too. Beyond the palette colours come again with other markers.
    """
    order = list(dict.fromkeys(families))
    alone = len(order) == len(families)
    seen: dict[str, int] = {}
    found = []
    for family in families:
        f, member = order.index(family), seen.get(family, 0)
        seen[family] = member + 1
        line = LINES[(f if alone else member) % len(LINES)]
        found.append(Mark(COLOURS[f % len(COLOURS)], MARKERS[f % len(MARKERS)], line))
    return found


def staged_marks(curves: list[tuple[str, str, str]]) -> list[Mark]:
    """A look for each curve of a distillation study, given as (stage, teacher's arm, student's arm).

    Up to four students of a teacher share its colour and marker, and differ from it and each other by their lines;
    with more of them each student's arm has a colour and marker of its own, and the line tells the teacher's arm.
    References are grey, the oracle a dashed grey.
    """
    own = [(stage, teacher, student) for stage, teacher, student in curves if stage not in REFERENCES]
    teachers = list(dict.fromkeys(teacher for _, teacher, _ in own))
    students = list(dict.fromkeys([("teacher", ""), *((stage, student) for stage, _, student in own)]))
    others = [curve for curve in curves if curve[0] in REFERENCES and curve[0] != ORACLE]
    arm_markers = [m for m in MARKERS if m not in (*REFERENCE_MARKERS, ORACLE_MARKER)]
    found = []
    for curve in curves:
        stage, teacher, student = curve
        if stage == ORACLE:
            found.append(Mark(GREY, ORACLE_MARKER, LINES[1]))
            continue
        if stage in REFERENCES:
            i = others.index(curve)
            found.append(Mark(COLOURS[-1], REFERENCE_MARKERS[i % 4], LINES[2 + i % 3]))
            continue
        t, s = teachers.index(teacher), students.index((stage, student))
        arm, member = (t, s) if len(students) <= len(LINES) else (s, t)
        marker = arm_markers[(arm + member // len(LINES)) % len(arm_markers)]
        found.append(Mark(COLOURS[arm % (len(COLOURS) - 1)], marker, LINES[member % len(LINES)]))
    return found
