"""A sheet as a LaTeX table for booktabs, in ASCII, for any LaTeX engine; letters of scripts that LaTeX has no commands
for stay, and a comment names them."""

from __future__ import annotations

import re
from dataclasses import replace

from analysis.cells.layout import Label
from analysis.rows.display_names import SYMBOLS
from analysis.tables.latex_text import beyond_ascii, escape_latex
from analysis.tables.sheet import EMPTY, Entry, Head, Line, Panel, Sheet, anchor_text, head_text, keep_together

COLUMNS_BEFORE_SMALL = 3
WIDE = 60
"""A tabular of more characters in a line is shrunk where it is wider than the line."""
PAGE_LINES = 45
"""A longer table is a `longtable`, which may run over pages."""


def write_latex(sheet: Sheet) -> str:
    """A `table` environment (a `longtable` where a page is too short) with caption and label; ends with a newline.

    Best is bold, what cannot be told from it underlined. Panels over the same axis share a tabular. The first line
    names the characters that are not ASCII, if any are left.
    """
    text = _write(sheet)
    if foreign := beyond_ascii(text):
        said = "% beyond ASCII: " + " ".join(foreign)
        text = f"{said}; needs XeLaTeX or LuaLaTeX and a font that has them, or --label NAME=TEXT\n{text}"
    return text


def _write(sheet: Sheet) -> str:
    parts = _parts(sheet.panels)
    caption = _math(escape_latex(keep_together(sheet.caption.text)))
    label = f"tab:{anchor_text(sheet.name)}"
    count = sum(len(group.lines) + bool(group.heading) for panel in sheet.panels for group in panel.groups)
    if count > PAGE_LINES:
        return _long(parts, caption, label)
    wide = any(_is_wide(panels) for panels in parts)
    lines = [r"% needs \usepackage{booktabs}" + (r"; \usepackage{graphicx} fits it to the line" if wide else "")]
    lines += [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{{label}}}"]
    lines += [r"\providecommand{\resizebox}[3]{#3}"] if wide else []
    if max(len(panel.columns) for panel in sheet.panels) > COLUMNS_BEFORE_SMALL:
        lines += [r"\footnotesize", r"\setlength{\tabcolsep}{3pt}"]
    for i, panels in enumerate(parts):
        lines += [r"\par\medskip"] if i else []
        lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"] if _is_wide(panels) else []
        lines += [rf"\begin{{tabular}}{{l{'r' * len(panels[0].columns)}}}", r"\toprule", _heads(panels[0])]
        lines += [line for panel in panels for line in _body(panel)]
        lines += [r"\bottomrule", r"\end{tabular}" + ("}" if _is_wide(panels) else "")]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _parts(panels: list[Panel]) -> list[list[Panel]]:
    """The panels by tabular. Where the columns are values of one axis a tabular has them all, with dashes where a panel
    lacks one; metrics of bags and of instances are tabulars of their own."""
    if all(panel.columns == panels[0].columns for panel in panels):
        return [panels]
    if all(isinstance(column, Label) for panel in panels for column in panel.columns):
        return [[_widened(panel, _in_order(panels)) for panel in panels]]
    return [[panel] for panel in panels]


def _in_order(panels: list[Panel]) -> list[Head]:
    """All columns: numbers ascending, names as they first appear."""
    columns = [*dict.fromkeys(column for panel in panels for column in panel.columns)]
    values = [column.value for column in columns if isinstance(column, Label)]
    if len(values) == len(columns) and all(isinstance(value, int | float) for value in values):
        return [column for _, column in sorted(zip(values, columns, strict=True), key=lambda pair: pair[0])]
    return columns


def _widened(panel: Panel, columns: list[Head]) -> Panel:
    position = {column: i for i, column in enumerate(panel.columns)}
    groups = [
        replace(group, lines=[
            Line(line.head, [line.entries[position[c]] if c in position else EMPTY for c in columns])
            for line in group.lines
        ])
        for group in panel.groups
    ]  # fmt: skip
    return replace(panel, columns=columns, groups=groups)


def _long(parts: list[list[Panel]], caption: str, label: str) -> str:
    lines = [r"% needs \usepackage{booktabs} and \usepackage{longtable}", r"{\footnotesize\setlength{\tabcolsep}{3pt}"]
    for i, panels in enumerate(parts):
        width = len(panels[0].columns)
        lines.append(rf"\begin{{longtable}}{{l{'r' * width}}}")
        lines += [rf"\caption{{{caption}}}\label{{{label}}}\\"] if i == 0 else []
        lines += [r"\toprule", _heads(panels[0]), r"\endhead", r"\bottomrule", r"\endfoot"]
        lines += [line for panel in panels for line in _body(panel)]
        lines.append(r"\end{longtable}")
    return "\n".join([*lines, "}"]) + "\n"


def _is_wide(panels: list[Panel]) -> bool:
    lines = [line for panel in panels for group in panel.groups for line in group.lines]
    widths = [max((len(line.entries[i].text) for line in lines), default=0) for i in range(len(panels[0].columns))]
    return sum(widths) + max((len(head_text(line.head)) for line in lines), default=0) > WIDE


def _heads(panel: Panel) -> str:
    return " & ".join([escape_latex(panel.corner), *map(_head, panel.columns)]) + r" \\"


def _body(panel: Panel) -> list[str]:
    width = len(panel.columns) + 1
    lines = [r"\midrule"]
    if head_text(panel.head):
        lines.append(rf"\multicolumn{{{width}}}{{l}}{{{_head(panel.head)}}} \\")
    for i, group in enumerate(panel.groups):
        if i and (group.heading or group.differences):
            lines.append(r"\addlinespace")
        if group.heading:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(group.heading)}}}}} \\")
        lines += [" & ".join([_row_head(line.head), *map(_entry, line.entries)]) + r" \\" for line in group.lines]
    return lines


def _row_head(head: Head) -> str:
    r"""A head behind `\\`, which would take a `[` or `*` that follows for an argument of its own."""
    text = _head(head)
    return f"{{}}{text}" if text.startswith(("[", "*")) else text


def _head(head: Head) -> str:
    """`$n = 50$` where an axis has a symbol, escaped text otherwise."""
    return _math(escape_latex(head_text(head)))


def _math(text: str) -> str:
    """Escaped text with `n = 50` and `K = 10` as formulas."""
    return re.sub(rf"(?<![\w\\])({'|'.join(SYMBOLS.values())})[ ~]=[ ~](\d[\d.]*\d|\d)", r"$\1 = \2$", text)


def _entry(entry: Entry) -> str:
    if entry.state:
        return escape_latex(entry.state) if entry.state == "–" else rf"\emph{{{escape_latex(entry.state)}}}"
    mean = _math(escape_latex(entry.mean))
    mean = rf"\textbf{{{mean}}}" if entry.best else rf"\underline{{{mean}}}" if entry.tied else mean
    return " ".join(filter(None, (mean, escape_latex(entry.interval_text), escape_latex(entry.count))))
