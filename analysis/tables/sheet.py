"""A table as its reader sees it, whatever the format: panels of groups of lines of entries, and a caption.

`tables` and `compare` make a `Sheet`; `write_markdown`, `write_latex` and `write_html` write it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from analysis.cells.layout import LEVEL, METRICS, Label

Head = Label | str
"""The text of a row or column; a `Label` knows its symbol too."""


@dataclass(frozen=True)
class Entry:
    """One cell. Where `state` is given it stands alone: `failed`, `missing`, `–`."""

    mean: str = ""
    interval_text: str = ""
    """`± 0.021` or `[0.921, 0.971]`."""
    count: str = ""
    """`(5)` or `(4 of 5)`."""
    best: bool = False
    tied: bool = False
    """Not told from the best by a test."""
    state: str = ""
    value: float | None = None
    """The mean, unrounded, to sort by."""

    def with_mean(self, mean: str) -> str:
        """The text, with `mean` (marked up) in the place of the mean."""
        return self.state or " ".join(filter(None, (mean, self.interval_text, self.count)))

    @property
    def text(self) -> str:
        """Mean, interval and count, or the state."""
        return self.with_mean(self.mean)


EMPTY = Entry(state="–")


@dataclass(frozen=True)
class Line:
    """A row: its head and an entry for each column."""

    head: Head
    entries: list[Entry]


@dataclass(frozen=True)
class Group:
    """Lines under a heading; the heading is empty where there is only one group."""

    heading: str
    lines: list[Line]
    differences: bool = False
    """Differences of other lines: set off from them."""


@dataclass(frozen=True)
class Panel:
    """A table over its columns, with a head of its own where there are several."""

    head: Head
    columns: list[Head]
    groups: list[Group]
    corner: str = ""


@dataclass(frozen=True)
class Caption:
    """What is said of a table, in sentences.

    cells: what its cells are, in one; beside: each stands beside the table wherever it is shown, since without it a
    number would be misread; details: how intervals and tests are made, and what else the numbers rest on.
    """

    cells: str = ""
    beside: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it, as one paragraph."""
        return " ".join(filter(None, (self.cells, *self.beside, *self.details)))


@dataclass(frozen=True)
class Sheet:
    """A title, panels and a caption."""

    title: str
    name: str
    """Unique within a document: for labels and anchors."""
    panels: list[Panel]
    caption: Caption = field(default_factory=Caption)


def anchor_text(name: str) -> str:
    """The name of a sheet as a label of LaTeX or an id of HTML: ASCII letters, digits and hyphens. Names in letters of
    another script stay different."""
    return "".join(c if c.isascii() and c.isalnum() else "-" if c.isascii() else f"u{ord(c):x}" for c in name)


NO_BREAK = "\u00a0"
_APART = (
    re.compile(r"(?<=\w) (?=[=<>≥≤±] )"),  # n = 50
    re.compile(r"(?<=[=<>≥≤±]) (?=\S)"),
    re.compile(r"(?<=\bgiven) (?=(?:split|fold))"),
    re.compile(r"(?<=\bt) (?=(?:interval|test)s?\b)"),
    re.compile(r"(?<=\d) (?=%)"),  # 95 % interval
    re.compile(r"(?<=\d[ \u00a0]%) (?=[a-z])"),
    re.compile(r"(?<![\w.])\d([\d,.]*\d)? (?=[A-Za-z])"),  # 5 replicates
)


def keep_together(text: str) -> str:
    """The sentence with no line break between a number and its noun or sign, for whatever breaks its lines."""
    for pattern in _APART:
        text = pattern.sub(lambda found: found.group().replace(" ", NO_BREAK), text)
    return text


def head_text(head: Head) -> str:
    """The text of a head."""
    return head if isinstance(head, str) else head.text


def column_head(panel: Label, column: Label) -> Head:
    """A metric by its title, without the level that the panel says."""
    if column.key != METRICS:
        return column
    title = column.text
    level = dict(panel.keys).get(LEVEL)
    return title.removeprefix(f"{level} ") if level else title
