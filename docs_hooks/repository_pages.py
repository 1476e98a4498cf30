"""Files of the repository as pages of the site, and links that lead from pages into the repository.

The changelog, the benchmarks and their records lie outside `docs/`. They become pages at the same places in the site.
A link to another file of the repository has no target in the site: its text stays, with the file's path beside it. A
link to a file that does not exist stays as it is, so that `--strict` finds it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
SHOWN = ("CHANGELOG.md", "benchmarks/README.md", "benchmarks/records/**/*")
"""Files outside `docs/` that are part of the site, as patterns from the root of the repository."""

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\[\]]+)\]\((?P<target>[^()\s]+)\)")
FENCE = re.compile(r"^( *)(```+|~~~+)[^\n]*\n.*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the files of `SHOWN`; the records' folders are no part of the navigation."""
    for pattern in SHOWN:
        for path in sorted(ROOT.glob(pattern)):
            if path.is_file():
                files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links and pictures outside code: to the site's page where there is one, else the path of the file."""
    place = page.file.src_uri
    folder = posixpath.dirname(place if _is_shown(place) else posixpath.join("docs", place))

    def linked(found: re.Match[str]) -> str:
        text, target = found["text"], found["target"]
        path, hash_sign, anchor = target.partition("#")
        if not path or ":" in path or path.startswith("/"):
            return found[0]
        in_repository = posixpath.normpath(posixpath.join(folder, path))
        for name in (in_repository, f"{in_repository}/README.md"):
            uri = name.removeprefix("docs/")
            if files.get_file_from_path(uri) is not None:
                relative = posixpath.relpath(uri, posixpath.dirname(place) or ".")
                return f"{found['image']}[{text}]({relative}{hash_sign}{anchor})"
        if not found["image"] and (ROOT / in_repository).exists():
            return text if text.strip("`") == in_repository else f"{text} (`{in_repository}`)"
        return found[0]

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(linked, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, LINK.sub(linked, markdown[end:])])


def _is_shown(uri: str) -> bool:
    return uri == "CHANGELOG.md" or uri.startswith("benchmarks/")
