"""The HTML elements of a report, its style for screen and print, and the few lines of script that sort its tables.

Nothing on the page is fetched: styles and script are in it, pictures are data URIs, fonts are those of the reader.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from analysis.tables.html import PAGE_COLOURS, STYLE
from analysis.tables.sheet import keep_together

PAGE_STYLE = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 84rem; padding: 1.2rem 1.5rem 4rem;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .2em 0 .1em; }
.part > h2 { font-size: 1.25rem; margin: 2.2em 0 .6em; padding-bottom: .2em; border-bottom: 2px solid var(--ink); }
h3 { font-size: 1rem; margin: 1.4em 0 .3em; }
p { max-width: 46rem; margin: .4em 0 .8em; }
p.note, figcaption, .when { color: var(--soft); font-size: .9rem; }
p.lead { font-size: 1.05rem; }
nav { font-size: .92rem; margin: .8em 0; }
nav a { margin-right: 1.1em; white-space: nowrap; }
a { color: var(--accent); }
ul.findings { max-width: 48rem; padding-left: 1.2em; }
ul.findings li { margin: .35em 0; }
.numbers { display: flex; flex-wrap: wrap; gap: .5rem 2.2rem; margin: 1em 0; padding: 0; list-style: none; }
.numbers b { display: block; font-size: 1.45rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.numbers span { color: var(--soft); font-size: .88rem; }
.numbers .bad b { color: var(--bad); }
.wide { overflow-x: auto; }
table.plain { border-collapse: collapse; border-top: 1.5px solid; border-bottom: 1.5px solid;
  margin: .4em 0 1em; font-size: 14px; font-variant-numeric: tabular-nums; }
table.plain th, table.plain td { text-align: left; padding: .28em .8em; vertical-align: top; font-weight: normal; }
table.plain thead th { border-bottom: 1px solid; font-weight: 600; }
table.plain td.number, table.plain th.number { text-align: right; white-space: nowrap; }
table.plain td.id { white-space: nowrap; }
@media screen { table.sortable :is(th, td):first-child { position: sticky; left: 0; background: var(--paper); } }
table.facts th { color: var(--soft); white-space: nowrap; padding-right: 1.5em; }
table.facts td { overflow-wrap: anywhere; }
table.facts { border: 0; }
th.sorts { cursor: pointer; } th.sorts:hover { text-decoration: underline; }
th[aria-sort=ascending]::after { content: " ▲"; font-size: .75em; }
th[aria-sort=descending]::after { content: " ▼"; font-size: .75em; }
figure { margin: 1.2em 0 1.8em; }
figure img { display: block; max-width: 100%; height: auto; }
@media screen and (prefers-color-scheme: dark) {
  figure img { padding: .5rem; border-radius: .3rem; background: #fff; filter: brightness(.9); }
}
figcaption { max-width: 46rem; margin-top: .4em; }
pre, code { font: 13px/1.45 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--block); padding: .7em .9em; overflow-x: auto; margin: .4em 0 1em; }
code { overflow-wrap: anywhere; }
details > summary { cursor: pointer; color: var(--accent); margin: .4em 0; }
.d2l-sheet > h2 { font-size: 1.05rem; margin: 1.4em 0 .2em; }
@media (max-width: 640px) {
  body { padding: .8rem .8rem 3rem; } h1 { font-size: 1.35rem; }
  table.facts th { white-space: normal; padding-right: .6em; } table.plain th, table.plain td { padding: .25em .5em; }
  table.sortable :is(th, td):first-child { white-space: normal; min-width: 7.5em; max-width: 42vw; }
  table.plain thead th.number { white-space: normal; min-width: 8em; }
}
@page { size: A4; margin: 14mm 13mm; }
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; } nav, .screen { display: none; }
  a { color: inherit; text-decoration: none; }
  h1 { font-size: 17pt; } .part > h2 { font-size: 13pt; margin-top: 1.5em; }
  .part > h2, h3, .d2l-sheet > h2 { break-after: avoid; } figure, .numbers, table.plain tr { break-inside: avoid; }
  figure img { max-width: 100%; max-height: 235mm; } .wide { overflow: visible; break-inside: avoid; }
  table.plain { font-size: 8.5pt; } .d2l-sheet table { font-size: 8.5pt; }
  .d2l-sheet th, .d2l-sheet td { white-space: normal; padding: .2em .5em; }
  .d2l-sheet tbody th { white-space: nowrap; } .d2l-sheet h3 { break-after: avoid; }
  pre, code { font-size: 8pt; white-space: pre-wrap; }
}
""".strip()

SCRIPT = """
document.querySelectorAll('.d2l-sheet table, table.sortable').forEach(function (table) {
  var heads = table.querySelectorAll('thead th');
  function value(row, i) {
    var cell = row.cells[i], number;
    if (!cell) return [2, 0];
    number = cell.dataset.value !== undefined ? parseFloat(cell.dataset.value)
      : parseFloat(cell.textContent.replace('−', '-').replace('< ', ''));
    if (!isNaN(number)) return [0, number];
    var text = cell.textContent.trim();
    return text === '' || text === '–' ? [2, 0] : [1, text];
  }
  function sort(i, head) {
    var before = head.getAttribute('aria-sort');
    var down = before === 'ascending' || (!before && i > 0);
    heads.forEach(function (h) { h.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
    Array.prototype.forEach.call(table.tBodies, function (body) {
      var rows = Array.prototype.filter.call(body.rows, function (r) { return !r.classList.contains('group'); });
      rows.map(function (r) { return [value(r, i), r]; }).sort(function (a, b) {
        if (a[0][0] !== b[0][0]) return a[0][0] - b[0][0];
        var order = a[0][0] === 1 ? a[0][1].localeCompare(b[0][1], undefined, {numeric: true}) : a[0][1] - b[0][1];
        return down ? -order : order;
      }).forEach(function (pair) { body.appendChild(pair[1]); });
    });
  }
  heads.forEach(function (head, i) {
    head.classList.add('sorts'); head.tabIndex = 0; head.title = 'sort by this column';
    head.addEventListener('click', function () { sort(i, head); });
    head.addEventListener('keydown', function (e) {
      if (e.key === 'Enter' || e.key === ' ') { e.preventDefault(); sort(i, head); }
    });
  });
});
window.addEventListener('beforeprint', function () {
  document.querySelectorAll('details').forEach(function (d) { d.open = true; });
});
""".strip()


@dataclass(frozen=True)
class Text:
    """A string that is HTML already; every other string is escaped."""

    html: str


@dataclass
class Section:
    """A part of the report under a heading; one without pieces is left out."""

    title: str
    pieces: list[str] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The id by which links reach it."""
        return "part-" + "".join(c if c.isalnum() and c.isascii() else "-" for c in self.title.lower())


def document(title: str, subtitle: str, made: str, parts: Iterable[Section]) -> str:
    """The whole document. title, subtitle, made: plain text."""
    shown = [part for part in parts if part.pieces]
    links = "".join(f'<a href="#{part.anchor}">{escape(part.title)}</a> ' for part in shown)
    body = "\n".join(
        f'<section class="part" id="{part.anchor}">\n<h2>{escape(part.title)}</h2>\n'
        + "\n".join(part.pieces)
        + "\n</section>"
        for part in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n{PAGE_COLOURS}\n{PAGE_STYLE}\n</style>\n</head>\n"
        f"<body>\n<header>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(subtitle)}</p>\n<p class="when">{escape(made)}</p>\n'
        f"<nav>{links}</nav>\n</header>\n<main>\n{body}\n</main>\n<script>\n{SCRIPT}\n</script>\n</body>\n</html>\n"
    )


def paragraph(text: str | Text, kind: str = "") -> str:
    """kind: its CSS class."""
    return f"<p{_class(kind)}>{_html(text)}</p>"


def bullet_list(texts: Iterable[str | Text], kind: str = "findings") -> str:
    """kind: its CSS class. Empty without texts."""
    lines = "".join(f"<li>{_html(text)}</li>" for text in texts)
    return f"<ul{_class(kind)}>{lines}</ul>" if lines else ""


def large_numbers(found: Iterable[tuple[str, str, bool]]) -> str:
    """Large numbers with a word below each: (number, word, bad)."""
    lines = "".join(
        f"<li{_class('bad' if bad else '')}><b>{escape(number)}</b><span>{escape(word)}</span></li>"
        for number, word, bad in found
    )
    return f'<ul class="numbers">{lines}</ul>'


def fact_table(found: Iterable[tuple[str, str | Text]]) -> str:
    """A table of names and values; empty values are left out."""
    lines = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{_html(value)}</td></tr>' for name, value in found if value
    )
    return f'<table class="plain facts"><tbody>{lines}</tbody></table>' if lines else ""


@dataclass(frozen=True)
class Number:
    """A cell of a table: shown as `text`, sorted by `value`."""

    text: str
    value: float


def sortable_table(heads: Sequence[str], rows: Iterable[Sequence[str | Text | Number]], ids: Sequence[int] = ()) -> str:
    """A table that sorts. ids: columns that are never broken over lines."""
    found = [list(row) for row in rows]
    right = {i for i in range(len(heads)) if found and any(isinstance(row[i], Number) for row in found)}
    head = "".join(
        f'<th scope="col"{_class("number" if i in right else "")}>{escape(h)}</th>' for i, h in enumerate(heads)
    )
    lines = []
    for row in found:
        cells = []
        for i, cell in enumerate(row):
            kind = "number" if i in right else "id" if i in ids else ""
            data = f' data-value="{cell.value!r}"' if isinstance(cell, Number) and cell.value == cell.value else ""
            cells.append(f"<td{_class(kind)}{data}>{_html(cell.text if isinstance(cell, Number) else cell)}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return (
        f'<div class="wide"><table class="plain sortable"><thead><tr>{head}</tr></thead>'
        f"<tbody>{chr(10).join(lines)}</tbody></table></div>"
    )


def link(address: str, text: str) -> Text:
    """A link. address, text: plain text."""
    return Text(f'<a href="{escape(address)}">{escape(text)}</a>')


def code(text: str) -> Text:
    """Plain text in the letters of code."""
    return Text(f"<code>{escape(text)}</code>")


def preformatted(text: str) -> str:
    """Plain text whose lines stay as they are."""
    return f"<pre>{escape(text)}</pre>"


def folded(summary: str, content: str) -> str:
    """HTML content that opens by a click. summary: plain text."""
    return f"<details><summary>{escape(summary)}</summary>\n{content}\n</details>"


def figure(data: bytes, kind: str, width: float, caption: str) -> str:
    """A figure. kind: `svg+xml`, `png` or `jpeg`; width: in CSS pixels; caption: plain text, its alternative too."""
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    image = f'<img src="{uri}" width="{width:.0f}" alt="{escape(caption)}">'
    return f"<figure>{image}<figcaption>{escape(keep_together(caption))}</figcaption></figure>"


def _html(value: Any) -> str:
    return value.html if isinstance(value, Text) else escape(str(value))


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
