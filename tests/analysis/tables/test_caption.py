"""Captions keep together what belongs together."""

import re

import pytest

import analysis
from analysis.tables.sheet import NO_BREAK, keep_together
from analysis.tables.study_table import table


@pytest.mark.parametrize("text", ["a given split of", "on given folds", "95 % t intervals of", "a corrected t test"])
def test_captions_break_no_term(text):
    kept = keep_together(text)
    for pair in ("given split", "given folds", "t intervals", "t test"):
        assert pair not in kept
    assert kept.replace(NO_BREAK, " ") == text


def test_captions_keep_a_number_and_its_noun_together(labelled):
    rows = analysis.load("made", labelled)
    wide = table(rows).sheet().caption.text
    assert "5 replicates planned" in wide
    for width in range(20, 120):
        import textwrap

        for line in textwrap.fill(keep_together(wide), width).splitlines():
            assert not re.search(r"(\b\d+|%|=)$", line)
    latex, html = (table(rows).text(format) for format in ("latex", "html"))
    assert r"95~\%~interval" in latex and "5~replicates" in latex
    assert f"5{NO_BREAK}replicates" in html and NO_BREAK not in table(rows).text()
    assert keep_together("K = 10, n = 50: from 2 pairs (2003) of it") == (
        f"K{NO_BREAK}={NO_BREAK}10, n{NO_BREAK}={NO_BREAK}50: from 2{NO_BREAK}pairs (2003) of it"
    )
