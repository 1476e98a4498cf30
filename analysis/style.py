"""One style for all figures: colours that colour-blind readers tell apart (Okabe & Ito, 2008), and markers
and line styles that differ as well, so that a print in grey reads the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analysis.stages import ORACLE, REFERENCES

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

PANEL_WIDTH = 3.0
PANEL_HEIGHT = 2.6
"""Size of one panel, in inches."""


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
