"""Reports and tables as pages: readable in light and dark, and no wider than the screen."""

import re
from html.parser import HTMLParser

import pytest
from make_study import make_study

import analysis
from analysis.report import html_elements as html
from analysis.report.report import make_report
from analysis.tables.html import STYLE
from analysis.tables.study_table import table

HEX = r"#[0-9a-f]{3}(?:[0-9a-f]{3})?\b"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The report of a study, and its table, as pages."""
    root = tmp_path_factory.mktemp("runs")
    make_study(root, "made", num_bags=(50,), bag_sizes=(10,), with_predictions=True, failed=((0, 1),))
    rows = analysis.load("made", root)
    return make_report(rows, root=str(root)), table(rows, "bag_auc").text("html")


def style_of(page):
    return "\n".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))


def colours(style):
    """The named colours of a page: in light, and in dark."""
    light, dark = re.findall(r":root \{([^}]*--[^}]*)\}", style)
    assert re.search(r"@media screen and \(prefers-color-scheme: dark\) \{ :root \{[^}]*--paper", style)
    return [dict(re.findall(rf"--(\w+): ({HEX})", text)) for text in (light, dark)]


def luminance(colour):
    """The relative luminance of WCAG 2."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_colour_stands_out_from_the_paper_in_light_and_in_dark(pages):
    for page in pages:
        style = style_of(page)
        assert "color-scheme: light dark" in style
        for named in colours(style):
            assert set(re.findall(r"var\(--(?!jp-)(\w+)\)", style)) <= set(named)
            for name in ("ink", "soft", "accent", "bad"):
                for ground in ("paper", "block"):
                    bright, dim = sorted((luminance(named[name]), luminance(named[ground])), reverse=True)
                    assert (bright + 0.05) / (dim + 0.05) >= 4.5, f"{name} on {ground}"


def test_colours_have_names_but_for_the_card_behind_figures(pages):
    for page in pages:
        style = re.sub(r":root \{[^}]*\}|\.jp-OutputArea[^}]*\}|figure img \{[^}]*\}", "", style_of(page))
        assert not re.findall(rf"[:\s]{HEX}(?=[;\s}}])", style)


def test_a_fragment_takes_the_colours_of_the_page_around_it():
    """As the output of a notebook: its own would be dark on dark in half of them."""
    own = [rule for rule in re.findall(r"[^{}]+\{[^{}]*\}", STYLE) if "jp-layout" not in rule]
    assert not [rule for rule in own if re.search(rf"{HEX}|background|(?<![-\w])color: (?!color-mix)", rule)]


class Boxes(HTMLParser):
    """The tables that are no list of facts, each with the classes of the elements around it."""

    def __init__(self, page):
        super().__init__()
        self.around, self.tables = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag in ("div", "section", "figure", "table"):
            kind = dict(attrs).get("class", "")
            if tag == "table" and "facts" not in kind:
                self.tables.append(list(self.around))
            self.around.append(kind)

    def handle_endtag(self, tag):
        if tag in ("div", "section", "figure", "table"):
            self.around.pop()


def test_wide_tables_scroll_in_a_box_of_their_own_and_figures_shrink(pages):
    for page in pages:
        found = Boxes(page).tables
        assert found
        assert all("wide" in around for around in found)
        assert re.search(r"\.wide \{ overflow-x: auto; \}", style_of(page))
        (shadow,) = re.findall(r"\.wide \{ background: ([^}]*)\}", style_of(page))  # scroll bars may be hidden
        cover, below = shadow.split("no-repeat local,")  # the first lies on the second, and moves with the table
        assert "var(--paper)" in cover and "var(--ink)" in below and "local" not in below
        (heads,) = re.findall(r"\.d2l-sheet thead th \{ (white-space[^}]*)\}", style_of(page))
        assert "white-space: normal" in heads
    rules = re.findall(r"figure img \{([^}]*)\}", html.PAGE_STYLE)
    assert [rule for rule in rules if "max-width: 100%" in rule]
    assert not [rule for rule in rules if "max-width: none" in rule]
