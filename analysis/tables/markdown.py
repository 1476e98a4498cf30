"""A sheet as markdown whose columns also line up as plain text, for terminals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from analysis.tables.options import EXPLAIN
from analysis.tables.sheet import NO_BREAK, Caption, Entry, Panel, Sheet, head_text, keep_together

CAPTION_WIDTH = 100
HOW = "How this was made:"


def write_markdown(sheet: Sheet, *, explain: bool = True) -> str:
    """Title, a table per panel, caption; ends with a newline. Best is bold, what cannot be told from it italic.

    explain: with the details of the caption; without them, the option that prints them is named.
    """
    blocks = [f"**{escape_markdown(sheet.title)}**"]
    for panel in sheet.panels:
        head = head_text(panel.head)
        table = aligned(_lines(panel), right=[False, *([True] * len(panel.columns))])
        blocks.append(f"{head}\n\n{table}" if head else table)
    blocks += caption_blocks(sheet.caption, explain)
    return "\n\n".join(blocks) + "\n"


def caption_blocks(caption: Caption, explain: bool) -> list[str]:
    """The paragraphs of a caption: what the cells are, with a list of what stands beside; then one of the details."""
    blocks = ["\n".join([*([_filled(caption.cells)] if caption.cells else []),
                         *(_filled(text, "- ") for text in caption.beside)])]  # fmt: skip
    if explain and caption.details:
        blocks.append("\n".join([HOW, *(_filled(text, "- ") for text in caption.details)]))
    elif caption.details:
        blocks.append(f"({EXPLAIN} adds how this was made: intervals, tests, names.)")
    return list(filter(None, blocks))


def _filled(text: str, mark: str = "") -> str:
    """Lines of `CAPTION_WIDTH`. mark: of an entry of a list."""
    lines = textwrap.fill(keep_together(text), CAPTION_WIDTH, initial_indent=mark, subsequent_indent=" " * len(mark),
                          break_on_hyphens=False)  # fmt: skip
    return lines.replace(NO_BREAK, " ")  # lines are broken; a terminal may lack the sign


def escape_markdown(text: str) -> str:
    """The text with the signs of Markdown written out."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*")


def _lines(panel: Panel) -> list[list[str]]:
    lines = [[panel.corner, *(escape_markdown(head_text(column)) for column in panel.columns)]]
    for group in panel.groups:
        if group.heading:
            lines.append([f"*{group.heading}*", *[""] * len(panel.columns)])
        lines += [[escape_markdown(head_text(line.head)), *map(_entry, line.entries)] for line in group.lines]
    return lines


def _entry(entry: Entry) -> str:
    mark = "**" if entry.best else "*" if entry.tied else ""
    return entry.with_mean(f"{mark}{entry.mean}{mark}")


def aligned(lines: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A Markdown table whose columns line up. lines: cells, the heading first; right: for each column whether it is
    aligned right."""
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(right))]
    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    padded = [
        [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True)]
        for line in lines
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [padded[0], rule, *padded[1:]])
