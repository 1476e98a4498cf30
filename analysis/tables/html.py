"""A sheet as HTML: a fragment for a report, or a page of its own without anything from a network."""

from __future__ import annotations

from html import escape

from analysis.tables.sheet import Entry, Panel, Sheet, anchor_text, head_text, keep_together

DETAILS = "How this was made"
"""The line that unfolds the details of a caption."""

STYLE = """
.d2l-sheet { font: 14px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.d2l-sheet .wide { overflow-x: auto; }
.d2l-sheet table { border-collapse: collapse; margin: .4em 0 1em; border-top: 1.5px solid; border-bottom: 1.5px solid;
  font-variant-numeric: tabular-nums; }
.d2l-sheet th, .d2l-sheet td { padding: .25em .8em; text-align: right; white-space: nowrap; font-weight: normal; }
.d2l-sheet thead th { border-bottom: 1px solid; font-weight: 600; }
.d2l-sheet th:first-child { text-align: left; padding-left: .3em; }
.jp-OutputArea .d2l-sheet th:first-child { position: sticky; left: 0; background: var(--jp-layout-color0, #fff); }
.d2l-sheet tr.group th { font-style: italic; padding-top: .7em; }
.d2l-sheet tr.first-difference > * { padding-top: .7em; }
.d2l-sheet .around, .d2l-sheet .count, .d2l-sheet .nothing, .d2l-sheet summary {
  color: color-mix(in srgb, currentColor 72%, transparent); }
.d2l-sheet .state { font-style: italic; }
.d2l-sheet .tied { text-decoration: underline; text-underline-offset: 3px; }
.d2l-sheet h2 { font-size: 1.15em; margin: 0 0 .3em; }
.d2l-sheet h3 { font-size: 1em; font-weight: 600; margin: .6em 0 0; }
.d2l-sheet .caption { max-width: 56em; font-size: .92em; margin: 0 0 .4em; }
.d2l-sheet ul.caption { padding-left: 1.2em; }
.d2l-sheet details { font-size: .92em; margin: 0 0 1.5em; } .d2l-sheet details .caption { font-size: 1em; }
.d2l-sheet summary { cursor: pointer; }
@media print { .d2l-sheet .wide { overflow: visible; } .d2l-sheet table { break-inside: auto; font-size: 9pt; }
  .d2l-sheet tr { break-inside: avoid; } }
""".strip()
"""Of a fragment. It has the colours of the page or notebook around it, light or dark, so it names none."""

PAGE_COLOURS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #555; --block: #f5f5f5; --accent: #0072b2;
  --bad: #8a3b00; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #17191e; --ink: #e2e4e9; --soft: #a6abb5;
  --block: #23262d; --accent: #6fb5ec; --bad: #f0a06a; } }
@media print { :root { color-scheme: light; } }
body { background: var(--paper); color: var(--ink); }
.d2l-sheet .state { color: var(--bad); }
.d2l-sheet th, .d2l-sheet td { padding: .25em .65em; }
.d2l-sheet thead th { white-space: normal; vertical-align: bottom; }
@media screen {
  .d2l-sheet th:first-child { position: sticky; left: 0; background: var(--paper); }
  .wide { background: linear-gradient(to right, transparent, var(--paper) 70%) right / 3rem 100% no-repeat local,
    linear-gradient(to left, color-mix(in srgb, var(--ink) 35%, transparent), transparent)
    right / 1rem 100% no-repeat; }
}
@media screen and (max-width: 640px) {
  .d2l-sheet tbody th:first-child:not([colspan]) { white-space: normal; min-width: 6.5em; max-width: 42vw; }
}
""".strip()
"""Of a page of its own: those that the reader prefers on a screen, and black on white on paper. Headings take several
lines where a table is wide. Where it goes on beyond its box there is a shadow, since browsers may hide scroll bars; a
patch of paper at the end of the table covers it."""


def write_html(sheet: Sheet) -> str:
    """A whole page, self-contained."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(sheet.title)}</title>\n<style>\nbody {{ margin: 1.5em; }}\n{STYLE}\n{PAGE_COLOURS}\n"
        f"</style>\n</head>\n<body>\n{html_fragment(sheet, details_open=True)}</body>\n</html>\n"
    )


def html_fragment(sheet: Sheet, *, details_open: bool = False) -> str:
    """The sheet as a `<section class="d2l-sheet">`, for a page that holds `STYLE`. details_open: those of the caption
    are shown, and not folded.

    A cell with a mean has it, unrounded, as `data-value`, so that a script can sort by it. Best is `<strong>`, what
    cannot be told from it has the class `tied`.
    """
    parts = [f'<section class="d2l-sheet" id="{anchor_text(sheet.name)}">', f"<h2>{escape(sheet.title)}</h2>"]
    for panel in sheet.panels:
        if head := head_text(panel.head):
            parts.append(f"<h3>{escape(head)}</h3>")
        parts.append(f'<div class="wide">{_table(panel)}</div>')
    caption = sheet.caption
    if caption.cells:
        parts.append(f'<p class="caption">{escape(keep_together(caption.cells))}</p>')
    if caption.beside:
        each = "".join(f"<li>{escape(keep_together(text))}</li>" for text in caption.beside)
        parts.append(f'<ul class="caption">{each}</ul>')
    if caption.details:
        text = escape(keep_together(" ".join(caption.details)))
        opened = " open" if details_open else ""
        parts.append(f'<details{opened}><summary>{DETAILS}</summary><p class="caption">{text}</p></details>')
    return "\n".join([*parts, "</section>\n"])


def _table(panel: Panel) -> str:
    heads = "".join(f'<th scope="col">{escape(head_text(c))}</th>' for c in panel.columns)
    rows = [f'<thead><tr><th scope="col">{escape(panel.corner)}</th>{heads}</tr></thead>']
    for i, group in enumerate(panel.groups):
        rows.append("<tbody>")
        if group.heading:
            width = len(panel.columns) + 1
            rows.append(f'<tr class="group"><th colspan="{width}" scope="rowgroup">{escape(group.heading)}</th></tr>')
        for j, line in enumerate(group.lines):
            first = ' class="first-difference"' if group.differences and not group.heading and i and not j else ""
            cells = "".join(map(_entry, line.entries))
            rows.append(f'<tr{first}><th scope="row">{escape(head_text(line.head))}</th>{cells}</tr>')
        rows.append("</tbody>")
    return "<table>\n" + "\n".join(rows) + "\n</table>"


def _entry(entry: Entry) -> str:
    if entry.state:
        return f'<td class="{"nothing" if entry.state == "–" else "state"}">{escape(entry.state)}</td>'
    mean = escape(entry.mean)
    mean = f"<strong>{mean}</strong>" if entry.best else f'<span class="tied">{mean}</span>' if entry.tied else mean
    spans = [f'<span class="{name}">{escape(text)}</span>' for name, text in
             (("around", entry.interval_text), ("count", entry.count)) if text]  # fmt: skip
    value = "" if entry.value is None else f' data-value="{entry.value!r}"'
    return f"<td{value}>{' '.join([mean, *spans])}</td>"
