"""The entries of the page `reference/keys.md`: every key of a space, from the classes that read it.

The file in the repository has the introduction alone, so that links to it lead somewhere there too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from plain_text import escaped  # in this folder, which MkDocs puts on the path while it loads a hook

from d2l_study.options import Options
from d2l_study.study.space.keys_help import OTHERS, PLACES, described_keys

PAGE = "reference/keys.md"
HEADINGS = {
    "study": "The top level",
    "data": "data",
    "teacher": "teacher",
    "student": "student",
    "search": "search",
    "resources": "resources",
}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page as it is in the repository, then its entries."""
    return "\n".join([markdown, *_sections()]) if page.file.src_uri == PAGE else markdown


def _sections() -> Iterator[str]:
    for name, places in PLACES.items():
        yield f"\n## {HEADINGS[name]}\n"
        for heading, options in places.items():
            section = heading.rpartition(": ")[2] if name == "data" else name
            if len(places) > 1:
                yield f"\n### dataset: {section}\n"
            yield from _entries(section, options)
        if name == "study":
            for key, text in OTHERS.items():
                yield _entry(f"study.{key}", f"`{key}`", text)


def _entries(section: str, options: type[Options]) -> Iterator[str]:
    for key in described_keys(options):
        yield _entry(f"{section}.{key.name}", f"`{key.name}: {key.default}`", key.meaning, key.allowed)


def _entry(anchor: str, head: str, meaning: str, allowed: str = "") -> str:
    body = escaped(meaning)
    if allowed:
        body += f"  \n    <small>{escaped(allowed)}</small>"
    return f'{head}{{ id="{anchor}" }}\n:   {body}\n'
