"""A study as a table: methods against the number of bags, a panel per bag size, with intervals and counts.

0.952 ± 0.021 (5)          mean, half-width of the 95 % interval, count of replicates
0.952 [0.921, 0.971] (5)   the same with both bounds, where intervals are visibly asymmetric
0.952 ± 0.021 (4 of 5)     one of five replicates is not there
"""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analysis.intervals import Interval
from analysis.layout import SYMBOL_MEANINGS, Cell, Label, Layout, arrange, axis_text
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
    metric: str = "bag_auc",
    format: str = "markdown",
    *,
    row_key: str = "method",
    column_key: str = "num_bags",
    panel_key: str | None = "mean_bag_size",
) -> str:
    """The table of a study's rows (`analysis.load`) as text that ends with a newline.

    format: markdown (aligned, for terminals too), latex (booktabs), or csv (long: one row per cell).
    UserError for an unknown format, metric or key.
    """
    if format not in FORMATS:
        raise UserError(f"--format {format}: not known{nearest(format, FORMATS)} (formats: {', '.join(FORMATS)})")
    layout = arrange(rows, metric, row_key, column_key, panel_key)
    if format == "csv":
        return _csv(layout)
    style = _Style.of(layout)
    return _markdown(layout, style) if format == "markdown" else _latex(layout, style)


def _caption(layout: Layout, style: _Style) -> list[str]:
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
    if any(_best(layout, panel, style) for panel in layout.panels):
        line = "row" if layout.column_key == "method" else "column"
        sentences.append(f"Bold: best mean of a {line} ({metric.better} is better).")
    if any(layout.differences(p) for p in layout.panels):
        sentences.append("Differences are paired by replicate, with a t interval on the differences.")
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

    @classmethod
    def of(cls, layout: Layout) -> _Style:
        intervals = [c.interval for c in layout.cells.values() if c.values]
        widths = sorted(i.half_width for i in intervals if i.has_bounds and i.half_width > 0)
        largest = max((abs(i.mean) for i in intervals), default=1.0)
        scale = widths[len(widths) // 2] if widths else largest / 100 or 1.0
        # Two digits of a typical half-width; differences of AUC below 0.0001 are nobody's concern.
        least, most = (3, 4 if widths else 3) if layout.metric.unit_interval else (0, 4)
        decimals = min(max(1 - math.floor(math.log10(scale)), least), most)
        asymmetric = any(_asymmetric(i, decimals) for i in intervals if i.has_bounds)
        return cls(decimals, asymmetric, asymmetric and len(layout.columns) <= BOUNDS_UP_TO)

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
        half = f" ± {interval.half_width:.{self.decimals}f}" if interval.has_bounds else ""
        return f"{interval.mean:+.{self.decimals}f}{half} ({interval.count})".replace("-", "−")


def _asymmetric(interval: Interval, decimals: int) -> bool:
    below, above = interval.mean - interval.lower, interval.upper - interval.mean
    least = 0.5 * 10**-decimals
    return max(below, above) > ASYMMETRY * max(min(below, above), least) + least


def _count(cell: Cell) -> str:
    return f"({cell.interval.count})" if cell.status == "done" else f"({cell.interval.count} of {cell.planned})"


def _best(layout: Layout, panel: Label, style: _Style) -> set[tuple[Label, Label]]:
    """The (row, column) pairs to print bold: the best mean as printed, ties included, where there is a choice.

    Compared are the rows of each column, or the columns of each row if those are the methods.
    """
    across = layout.column_key == "method"
    lines: dict[Label, dict[tuple[Label, Label], float]] = {}
    for (where, row, column), cell in layout.cells.items():
        if where == panel and cell.values:
            lines.setdefault(row if across else column, {})[row, column] = float(style.mean(cell.interval))
    best = set()
    for means in lines.values():
        if len(set(means.values())) > 1:
            top = max(means.values()) if layout.metric.better == "higher" else min(means.values())
            best |= {place for place, mean in means.items() if mean == top}
    return best


# ---- markdown
def _markdown(layout: Layout, style: _Style) -> str:
    heading = f"{layout.study}: {layout.metric.title}" + (f" ({layout.metric.split})" if layout.metric.split else "")
    blocks = [f"**{heading}**"]
    for panel in layout.panels:
        columns, best = layout.columns_of(panel), _best(layout, panel, style)
        head = ["", *(c.text for c in columns)]
        body = []
        for row in layout.rows_of(panel):
            texts = [
                _markdown_cell(layout.cells.get((panel, row, column)), style, (row, column) in best)
                for column in columns
            ]
            body.append([_escape_markdown(row.text), *texts])
        for name, by_column in layout.differences(panel):
            texts = [style.difference(by_column[c]) if c in by_column else "–" for c in columns]
            body.append([_escape_markdown(name), *texts])
        table = _aligned([[_escape_markdown(h) for h in head], *body])
        blocks.append(f"{panel.text}\n\n{table}" if panel.text else table)
    text = textwrap.fill(" ".join(_caption(layout, style)), CAPTION_WIDTH, break_on_hyphens=False)
    return "\n\n".join([*blocks, text]) + "\n"


def _markdown_cell(cell: Cell | None, style: _Style, best: bool) -> str:
    if cell is None:
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
    "±": r"$\pm$", "−": r"$-$", "–": "--", "≥": r"$\geq$", "≤": r"$\leq$", "…": r"\dots{}", "×": r"$\times$",
    "α": r"$\alpha$", "β": r"$\beta$", "ε": r"$\varepsilon$", "λ": r"$\lambda$", "ξ": r"$\xi$", "ρ": r"$\rho$",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """The text with every character that LaTeX would read as a command written out."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex(layout: Layout, style: _Style) -> str:
    columns = layout.columns
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(' '.join(_caption(layout, style)))}}}",
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
        for row in layout.rows_of(panel):
            cells = [
                _latex_cell(layout.cells.get((panel, row, column)), style, (row, column) in best) for column in columns
            ]
            lines.append(" & ".join([_latex_axis(row), *cells]) + r" \\")
        differences = layout.differences(panel)
        if differences:
            lines.append(r"\addlinespace")
        for name, by_column in differences:
            cells = [escape_latex(style.difference(by_column[c])) if c in by_column else "--" for c in columns]
            lines.append(" & ".join([escape_latex(name), *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_axis(label: Label) -> str:
    """`$n = 50$` where the axis has a symbol, escaped text otherwise."""
    plain = axis_text(label.key, label.value)
    if label.key in SYMBOL_MEANINGS and label.value is not None:
        return f"${plain}$" + escape_latex(label.text.removeprefix(plain))
    return escape_latex(label.text)


def _latex_cell(cell: Cell | None, style: _Style, best: bool) -> str:
    if cell is None:
        return "--"
    if not cell.values:
        return rf"\emph{{{cell.status}}}"
    mean = style.mean(cell.interval)
    mean = rf"\textbf{{{mean}}}" if best else mean
    return " ".join(filter(None, [mean, escape_latex(style.around(cell.interval)), _count(cell)]))


def _latex_label(text: str) -> str:
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in text)


# ---- CSV
def _csv(layout: Layout) -> str:
    """One line per planned cell; empty fields where there is no number."""
    keys = [k for k in (layout.panel_key, layout.row_key, layout.column_key) if k is not None]
    extra = list(dict.fromkeys(k for labels in (layout.rows, layout.columns) for one in labels for k, _ in one.keys))
    staged = any(label.stage for label in (*layout.rows, *layout.columns))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([
        "study", "metric", "split", "row", *keys, *(["stage"] if staged else []), *extra,
        "mean", "lower", "upper", "half_width", "count", "planned", "status", "interval",
    ])  # fmt: skip
    for panel in layout.panels:
        for row in layout.rows:
            for column in layout.columns:
                cell = layout.cells.get((panel, row, column))
                if cell is None:
                    continue
                labels = [one for one in (panel, row, column) if one.key is not None]
                named = {k: v for one in labels for k, v in one.keys}
                stage = next((one.stage for one in labels if one.stage), None)
                interval = cell.interval
                writer.writerow([
                    layout.study, layout.metric.name, layout.metric.split, row.text, *(one.value for one in labels),
                    *([stage] if staged else []), *(named.get(k) for k in extra),
                    *(_number(v) for v in (interval.mean, interval.lower, interval.upper, interval.half_width)),
                    interval.count, cell.planned, cell.status, interval.kind,
                ])  # fmt: skip
    return out.getvalue()


def _number(value: float) -> str:
    return repr(value) if math.isfinite(value) else ""
