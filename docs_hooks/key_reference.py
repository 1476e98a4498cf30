"""The page `reference/keys.md`: every key of a space, from the classes that read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mkdocs.structure.files import File, Files
from plain_text import escaped  # in this folder, which MkDocs puts on the path while it loads a hook

from d2l_study.options import Options
from d2l_study.study.space.keys_help import OTHERS, PLACES, described_keys

PAGE = "reference/keys.md"
INTRODUCTION = """# Keys of a space

This page is made from the code, as what `d2l keys` prints. Each entry says the key with its default,
what it means, and the values that it takes. `null` is YAML's word for no value.
[The space language](../spaces.md) says how keys make a study.
"""
HEADINGS = {
    "study": "The top level",
    "data": "data",
    "teacher": "teacher",
    "student": "student",
    "search": "search",
    "resources": "resources",
}


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content="\n".join(_page())))
    return files


def _page() -> Iterator[str]:
    yield INTRODUCTION
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
