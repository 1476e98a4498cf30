"""Relative links of the Markdown files lead somewhere when the files are read in the repository, without the site."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "benchmarks", "clusters", "d2l_study", "search_spaces", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
MADE_BY_THE_SITE = ("docs/reference/keys.md", "docs/reference/commands.md")
"""Pages whose headings come from the code; `mkdocs build --strict` checks links to them."""

LINK = re.compile(r"\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)")
CODE = re.compile(r"^ *(```+|~~~+).*?^ *\1[ \t]*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The text of a page without its code."""
    return CODE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(
        r"^ *(```+|~~~+).*?^ *\1[ \t]*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    heads = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken(page: Path) -> list[str]:
    """The links of a page whose file or heading does not exist."""
    found = []
    for target in LINK.findall(prose(page)):
        path, _, anchor = unquote(target).partition("#")
        if re.match(r"[a-z][a-z+.-]*:", path):
            continue
        there = (page.parent / path).resolve() if path else page
        exact = there.suffix == ".md" and str(there.relative_to(ROOT)) not in MADE_BY_THE_SITE
        if not there.exists() or (anchor and exact and anchor not in anchors(there)):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_the_page_have_targets(page):
    assert not broken(page)


def test_a_wrong_file_and_a_wrong_heading_are_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "there.md").write_text("# What `x` is\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#what-x-is) [b](gone.md) [c](there.md#gone) `[d](code.md)` [e](https://e.org)\n")
    assert broken(page) == ["gone.md", "there.md#gone"]


@pytest.mark.parametrize("file", ["cluster.yaml", *(f"clusters/{p.name}" for p in (ROOT / "clusters").glob("*.*"))])
def test_files_of_clusters_name_pages_and_headings_that_are_there(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert all((ROOT / page).exists() for page in re.findall(r"\bdocs/\w+\.md", text))
    headings = re.findall(r"\"([^\"\n]+)\" in the README", text)
    assert {head.lower().replace(" ", "-") for head in headings} <= anchors(ROOT / "README.md")
