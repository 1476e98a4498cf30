"""How curves look: colours that colour-blind readers tell apart (Okabe & Ito, 2008), and markers and line styles that
differ as well, so that a print in grey reads the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.cells.layout import Label, Layout
from analysis.figures.style import GREY, LABEL_WIDTH, wrapped
from analysis.rows.stages import ORACLE, REFERENCES

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

# Okabe and Ito's palette without its yellow, which vanishes on white, and with Paul Tol's wine and a grey, so that
# nine arms have nine colours; black first, for the baseline.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#888888")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.4)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
REFERENCE_COLOURS = ("#A67C3D", "#5E8F8A", "#9A7BAA", "#B0645C", "#7D8B45", "#888888")
"""Muted, so that references stand back behind the arms of a study: a colour for each kind of them."""
REFERENCE_MARKERS, ORACLE_MARKER = ("X", "P", "<", ">", "v", "D", "p", "^", "s", "o"), "*"
"""In an order that meets the markers of arms, which come from the front of `MARKERS`, last."""


@dataclass(frozen=True)
class Mark:
    """How one curve looks."""

    colour: str
    marker: str
    line: Any


def family_marks(families: list[str]) -> list[Mark]:
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


def stage_marks(curves: list[tuple[str, str, str]]) -> list[Mark]:
    """A look for each curve of a distillation study, given as (stage, teacher's arm, student's arm).

    Up to four students of a teacher share its colour and marker, and differ from it and each other by their lines;
    with more of them each student's arm has a colour and marker of its own, and the line tells the teacher's arm.
    Each kind of reference has a muted colour and a marker of its own, and its rows differ by their lines. The
    oracle is a dashed dark grey.
    """
    own = [(stage, teacher, student) for stage, teacher, student in curves if stage not in REFERENCES]
    teachers = list(dict.fromkeys(teacher for _, teacher, _ in own))
    students = list(dict.fromkeys([("teacher", ""), *((stage, student) for stage, _, student in own)]))
    kinds = list(dict.fromkeys(curve[0] for curve in curves if curve[0] in REFERENCES and curve[0] != ORACLE))
    members = dict.fromkeys(kinds, 0)
    markers = [m for m in MARKERS if m != ORACLE_MARKER]
    found: list[Mark] = []
    for curve in curves:
        stage, teacher, student = curve
        if stage == ORACLE:
            found.append(Mark(GREY, ORACLE_MARKER, LINES[1]))
            continue
        if stage in REFERENCES:
            kind, member = kinds.index(stage), members[stage]
            members[stage] = member + 1
            colour = REFERENCE_COLOURS[kind % len(REFERENCE_COLOURS)]
            found.append(_first_unused(colour, kind, 1 + member, found))
            continue
        t, s = teachers.index(teacher), students.index((stage, student))
        arm, member = (t, s) if len(students) <= len(LINES) else (s, t)
        marker = markers[(arm + member // len(LINES)) % len(markers)]
        found.append(Mark(COLOURS[arm % (len(COLOURS) - 1)], marker, LINES[member % len(LINES)]))
    return found


def _first_unused(colour: str, marker: int, line: int, used: list[Mark]) -> Mark:
    """A reference's mark of these places in the markers and lines, or the next that no other has, in grey too."""
    markers, taken = REFERENCE_MARKERS, {(mark.marker, str(mark.line)) for mark in used}
    tried = [Mark(colour, markers[(marker + i) % len(markers)], LINES[(line + j) % len(LINES)])
             for i in range(len(markers)) for j in range(len(LINES))]  # fmt: skip
    return next((mark for mark in tried if (mark.marker, str(mark.line)) not in taken), tried[0])


def legend_handles(
    rows: Iterable[Label], marks: Mapping[Label, Mark], *, markers: bool = False, width: int = LABEL_WIDTH
) -> list[Line2D]:
    """A line of the legend for each row, its text in lines of so many characters. markers: with their markers."""
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=mark.colour, marker=mark.marker if markers else "", linestyle=mark.line,
               label=wrapped(row.text, width))
        for row, mark in ((row, marks[row]) for row in rows)
    ]  # fmt: skip


def marks_of(layout: Layout) -> dict[Label, Mark]:
    """How each row of a layout looks, in every figure of a study."""
    origins = {row: cell.origin for (_, row, _), cell in layout.cells.items()}
    if len({origin.stage for origin in origins.values()}) == 1:
        return dict(zip(layout.rows, family_marks([str(r.value) for r in layout.rows]), strict=True))
    curves = []
    for row in layout.rows:
        origin, keys = origins[row], ", ".join(f"{k}={v}" for k, v in row.keys)
        if origin.teacher_method is None:  # a teacher, or a row that says no more than its name
            curves.append((origin.stage, str(row.value) + keys, ""))
        else:
            curves.append((origin.stage, origin.teacher_method, (origin.student_method or "") + keys))
    return dict(zip(layout.rows, stage_marks(curves), strict=True))
