"""A study as a table: methods against the number of bags, a panel per bag size, with intervals and counts.

0.952 ± 0.021 (5)          mean, half-width of the 95 % interval, count of replicates
0.952 [0.921, 0.971] (5)   the same with both bounds, where intervals are visibly asymmetric
0.952 ± 0.021 (4 of 5)     one of five replicates is not there

In a distillation study teachers, students and references are groups of rows, and students are also compared with
their teachers.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis import stages
from analysis.differences import TO_TEACHER, Difference, differences
from analysis.intervals import Interval
from analysis.layout import SYMBOL_MEANINGS, Cell, Label, Layout, arrange, axis_text
from analysis.long_form import long_csv
from d2l_study.errors import UserError, nearest

if TYPE_CHECKING:
    import pandas

FORMATS = ("markdown", "csv", "latex")
SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}
ASYMMETRY = 1.5
"""An interval is visibly asymmetric where one side of it is longer by this factor."""
BOUNDS_UP_TO = 4
"""A table of so many columns still has room for both bounds."""
CAPTION_WIDTH = 100


def render(
    rows: pandas.DataFrame,
    metric: str | None = None,
    format: str = "markdown",
    *,
    row_key: str = "method",
    column_key: str = "num_bags",
    panel_key: str | None = "mean_bag_size",
) -> str:
    """The table of a study's rows (`analysis.load`) as text that ends with a newline.

    metric: by default the instance AUC where the study has students, the bag AUC otherwise
    format: markdown (aligned, for terminals too), latex (booktabs), or csv (long: one row per cell and difference).
    UserError for an unknown format, metric or key.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: not known{nearest(format, FORMATS)} (formats: {', '.join(FORMATS)})")
    layout = arrange(rows, metric, row_key, column_key, panel_key)
    if format == "csv":
        return long_csv(layout)
    compared = {panel: differences(layout, panel) for panel in layout.panels}
    style = _Style.of(layout, compared)
    return (_markdown if format == "markdown" else _latex)(layout, style, compared)


_Compared = Mapping[Label, list[Difference]]
"""The differences of each panel."""


def _caption(layout: Layout, style: _Style, compared: _Compared) -> list[str]:
    """The sentences under a table: what the numbers are, and what they do not say."""
    metric, cells = layout.metric, [c for c in layout.cells.values() if c.values]
    where = {"test": " on the test split", "validation": " on the validation split", "": ""}[metric.split]
    shown = "[lower, upper bound]" if style.bounds else "± half-width"
    planned = sorted({c.planned for c in layout.cells.values()})
    count = f"{planned[0]}" if len(planned) == 1 else f"{planned[0]} to {planned[-1]}"
    noun = "replicate" if planned == [1] else "replicates"
    title = metric.title[:1].upper() + metric.title[1:]
    sentences = [f"{title}{where}: mean {shown} of the 95 % interval (count); {count} {noun} planned per cell."]
    kinds = _interval_kinds(cells)
    if kinds:
        sentences.append(f"Interval: {kinds}.")
    if style.asymmetric and not style.bounds:
        sentences.append("Some intervals are asymmetric about their mean (both bounds: --format csv).")
    if any(c.interval.count == 1 for c in cells):
        sentences.append("A single replicate has no interval.")
    sentences.append("The spread is over bags and initialisations, not over data sets.")
    if metric.split == "validation":
        sentences.append("Validation bags also chose the snapshots, so these values are optimistic.")
    else:
        sentences.append("Nothing was chosen on test data.")
    if "tuned" in metric.name.split("_"):
        sentences.append("Tuned: at a threshold set on validation bags, without instance labels.")
    if any(_best(layout, panel, style) for panel in layout.panels):
        line = "row" if layout.column_key == "method" else "column"
        marked = f", {stages.MARK} aside" if any(c.origin.stage == stages.ORACLE for c in cells) else ""
        sentences.append(f"Bold: best mean of a {line} ({metric.better} is better{marked}).")
    found = [difference for by_panel in compared.values() for difference in by_panel]
    if found:
        sentences.append("Differences are paired by replicate, with a t interval on the differences.")
    if any(difference.kind == TO_TEACHER for difference in found):
        sentences.append("“Its teacher” is the one whose labels the student learned from (the first of an ensemble).")
    if any(c.status == "not run" for c in layout.cells.values()):
        sentences.append("Not run: its teacher failed.")
    present = {c.origin.stage for c in layout.cells.values()}
    sentences += [f"{meaning}." for stage, meaning in stages.MEANINGS.items() if stage in present]
    used = [SYMBOL_MEANINGS[k] for k in (layout.column_key, layout.row_key, layout.panel_key) if k in SYMBOL_MEANINGS]
    if used:
        sentences.append("; ".join(used) + ".")
    return sentences + layout.notes


def _interval_kinds(cells: Iterable[Cell]) -> str:
    found = {c.interval.kind for c in cells}
    texts = {
        "t": "t",
        "t on the logit": "t on the logit, transformed back",
        "BCa bootstrap": "BCa bootstrap from 20 replicates",
        "no spread": "none (zero width) where all replicates are equal",
    }
    return "; ".join(text for kind, text in texts.items() if kind in found)


@dataclass(frozen=True)
class _Style:
    """How the numbers of one table are written: the same everywhere in it."""

    decimals: int
    asymmetric: bool
    bounds: bool
    """Both bounds are shown in place of a half-width: the table is asymmetric, and has room for them."""
    difference_decimals: int
    """Differences to one's own teacher can be far smaller than the spread over replicates."""

    @classmethod
    def of(cls, layout: Layout, compared: _Compared) -> _Style:
        intervals = [c.interval for c in layout.cells.values() if c.values]
        widths = _widths(intervals)
        largest = max((abs(i.mean) for i in intervals), default=1.0)
        scale = widths[len(widths) // 2] if widths else largest / 100 or 1.0
        # Two digits of a typical half-width; differences of AUC below 0.0001 are nobody's concern.
        least, most = (3, 4 if widths else 3) if layout.metric.unit_interval else (0, 4)
        decimals = min(max(1 - math.floor(math.log10(scale)), least), most)
        asymmetric = any(_asymmetric(i, decimals) for i in intervals if i.has_bounds)
        between = _widths(i for found in compared.values() for one in found for i in one.by_column.values())
        # Steps of at most a fifth of a typical half-width.
        finer = math.ceil(math.log10(5 / between[len(between) // 2])) if between else decimals
        finer = min(max(finer, decimals), max(most, decimals))
        return cls(decimals, asymmetric, asymmetric and len(layout.columns) <= BOUNDS_UP_TO, finer)

    def mean(self, interval: Interval) -> str:
        return f"{interval.mean:.{self.decimals}f}"

    def around(self, interval: Interval) -> str:
        """What follows the mean: the interval, without the count."""
        if not interval.has_bounds:
            return ""
        if self.bounds:
            return f"[{interval.lower:.{self.decimals}f}, {interval.upper:.{self.decimals}f}]"
        return f"± {interval.half_width:.{self.decimals}f}"

    def difference(self, interval: Interval) -> str:
        """Its t interval is symmetric, so it always has a half-width."""
        if interval.count == 0:
            return "–"
        decimals = self.difference_decimals
        half = f" ± {interval.half_width:.{decimals}f}" if interval.has_bounds else ""
        return f"{interval.mean:+.{decimals}f}{half} ({interval.count})".replace("-", "−")


def _widths(intervals: Iterable[Interval]) -> list[float]:
    return sorted(i.half_width for i in intervals if i.has_bounds and i.half_width > 0)


def _asymmetric(interval: Interval, decimals: int) -> bool:
    below, above = interval.mean - interval.lower, interval.upper - interval.mean
    least = 0.5 * 10**-decimals
    if (
        interval.kind == "t on the logit"
        and not 0 <= interval.mean - interval.half_width <= 1 - 2 * interval.half_width
    ):
        return True  # ± would leave the range of the metric
    return max(below, above) > ASYMMETRY * max(min(below, above), least) + least


def _count(cell: Cell) -> str:
    return f"({cell.interval.count})" if cell.status == "done" else f"({cell.interval.count} of {cell.planned})"


def _best(layout: Layout, panel: Label, style: _Style) -> set[tuple[Label, Label]]:
    """The (row, column) pairs to print bold: the best mean as printed, ties included, where there is a choice.

    Compared are the rows of each column, or the columns of each row if those are the methods; never the oracle.
    """
    across = layout.column_key == "method"
    lines: dict[Label, dict[tuple[Label, Label], float]] = {}
    for (where, row, column), cell in layout.cells.items():
        if where == panel and cell.values and cell.origin.stage != stages.ORACLE:
            lines.setdefault(row if across else column, {})[row, column] = float(style.mean(cell.interval))
    best = set()
    for means in lines.values():
        if len(set(means.values())) > 1:
            top = max(means.values()) if layout.metric.better == "higher" else min(means.values())
            best |= {place for place, mean in means.items() if mean == top}
    return best


def _grouped(rows: list[Label]) -> list[tuple[str, list[Label]]]:
    """The rows under the headings of their stages; one group without a heading if there is only one."""
    groups: dict[str, list[Label]] = {}
    for row in rows:
        groups.setdefault(stages.group(row.stage), []).append(row)
    return [*groups.items()] if len(groups) > 1 else [("", rows)]


# ---- markdown
def _markdown(layout: Layout, style: _Style, compared: _Compared) -> str:
    blocks = [f"**{layout.study}: {layout.metric.heading}**"]
    for panel in layout.panels:
        columns, best = layout.columns_of(panel), _best(layout, panel, style)
        head, empty = ["", *(c.text for c in columns)], [""] * len(columns)
        body = []
        groups = _grouped(layout.rows_of(panel))
        for heading, rows in groups:
            if heading:
                body.append([f"*{heading}*", *empty])
            for row in rows:
                texts = [
                    _markdown_cell(layout.cells.get((panel, row, column)), style, (row, column) in best)
                    for column in columns
                ]
                body.append([_escape_markdown(row.text), *texts])
        if compared[panel] and len(groups) > 1:
            body.append(["*paired differences*", *empty])
        for one in compared[panel]:
            texts = [style.difference(one.by_column[c]) if c in one.by_column else "–" for c in columns]
            body.append([_escape_markdown(one.text), *texts])
        table = _aligned([[_escape_markdown(h) for h in head], *body])
        blocks.append(f"{panel.text}\n\n{table}" if panel.text else table)
    text = textwrap.fill(" ".join(_caption(layout, style, compared)), CAPTION_WIDTH, break_on_hyphens=False)
    return "\n\n".join([*blocks, text]) + "\n"


def _markdown_cell(cell: Cell | None, style: _Style, best: bool) -> str:
    if cell is None or cell.status == "no such metric":
        return "–"
    if not cell.values:
        return cell.status
    mean = style.mean(cell.interval)
    parts = [f"**{mean}**" if best else mean, style.around(cell.interval), _count(cell)]
    return " ".join(filter(None, parts))


def _aligned(lines: list[list[str]]) -> str:
    """A markdown table whose columns also line up as plain text: first column left, the others right."""
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(lines[0]))]
    rule = ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]
    padded = [
        [line[0].ljust(widths[0]), *(text.rjust(w) for text, w in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])


def _escape_markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


# ---- LaTeX
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "“": "``", "”": "''", "’": "'", "†": r"$\dagger$", "→": r"$\rightarrow$",
    "±": r"$\pm$", "−": r"$-$", "–": "--", "≥": r"$\geq$", "≤": r"$\leq$", "…": r"\dots{}", "×": r"$\times$",
    "α": r"$\alpha$", "β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "ξ": r"$\xi$", "ρ": r"$\rho$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """The text with every character that LaTeX would read as a command written out."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex(layout: Layout, style: _Style, compared: _Compared) -> str:
    columns = layout.columns
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(' '.join(_caption(layout, style, compared)))}}}",
        rf"\label{{tab:{_latex_label(f'{layout.study}-{layout.metric.name}')}}}",
        *([r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"] if len(columns) > 3 else []),
        rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
        r"\toprule",
        " & ".join(["", *(_latex_axis(c) for c in columns)]) + r" \\",
    ]
    for panel in layout.panels:
        lines.append(r"\midrule")
        if panel.text:
            lines.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{{_latex_axis(panel)}}} \\")
        best = _best(layout, panel, style)
        groups = _grouped(layout.rows_of(panel))
        for i, (heading, rows) in enumerate(groups):
            if heading:
                lines += [*([r"\addlinespace"] if i else []), _latex_heading(heading, len(columns) + 1)]
            for row in rows:
                cells = [
                    _latex_cell(layout.cells.get((panel, row, column)), style, (row, column) in best)
                    for column in columns
                ]
                lines.append(" & ".join([_latex_axis(row), *cells]) + r" \\")
        if compared[panel]:
            lines.append(r"\addlinespace")
            if len(groups) > 1:
                lines.append(_latex_heading("paired differences", len(columns) + 1))
        for one in compared[panel]:
            texts = [style.difference(one.by_column[c]) if c in one.by_column else "–" for c in columns]
            lines.append(" & ".join(escape_latex(text) for text in [one.text, *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_heading(text: str, width: int) -> str:
    return rf"\multicolumn{{{width}}}{{l}}{{\emph{{{text}}}}} \\"


def _latex_axis(label: Label) -> str:
    """`$n = 50$` where the axis has a symbol, escaped text otherwise."""
    plain = axis_text(label.key, label.value)
    if label.key in SYMBOL_MEANINGS and label.value is not None:
        return f"${plain}$" + escape_latex(label.text.removeprefix(plain))
    return escape_latex(label.text)


def _latex_cell(cell: Cell | None, style: _Style, best: bool) -> str:
    if cell is None or cell.status == "no such metric":
        return "--"
    if not cell.values:
        return rf"\emph{{{cell.status}}}"
    mean = style.mean(cell.interval)
    mean = rf"\textbf{{{mean}}}" if best else mean
    return " ".join(filter(None, [mean, escape_latex(style.around(cell.interval)), _count(cell)]))


def _latex_label(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text)
