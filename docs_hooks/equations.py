"""Equations of the pages as MathML, which browsers draw themselves: no script and no font is fetched.

Pages write `$x_j$` within a line, and a block between lines of `$$`, as GitHub shows them too.
"""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    """The page's HTML with its equations drawn."""
    return EQUATION.sub(_drawn, content)


def _drawn(found: re.Match[str]) -> str:
    block = found["open"] == "["
    mathml = convert(html.unescape(found["tex"]).strip(), display="block" if block else "inline")
    return f'<div class="equation">{mathml}</div>' if block else mathml
