"""The notebooks of `docs/notebooks/` as pages: text, code and kept outputs as Markdown, and their pictures as files.

Notebooks are JSON, so that building the site needs none of Jupyter's packages. Each page offers the notebook itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PICTURES = {"image/png": "png", "image/jpeg": "jpg"}
NOTEBOOKS = Path(__file__).resolve().parent.parent / "docs" / "notebooks"


def on_files(files: Files, config: Any) -> Files:
    """Add a page for each notebook, and its pictures."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        pictures: dict[str, bytes] = {}
        text = "\n".join(_page(json.loads(path.read_text(encoding="utf-8")), path, pictures))
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def _page(notebook: dict[str, Any], path: Path, pictures: dict[str, bytes]) -> Iterator[str]:
    """The Markdown of a notebook. pictures: gets the name and content of each."""
    for number, cell in enumerate(notebook["cells"]):
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            yield f"{text}\n"
            if number == 0:
                yield f"This page is a notebook: [{path.name}]({path.name}){{ download }}.\n"
            continue
        language, code = ("bash", text.partition("\n")[2]) if text.startswith("%%bash") else ("python", text)
        yield f"```{language}\n{code}\n```\n"
        for place, output in enumerate(cell["outputs"]):
            yield from _output(output, f"{path.stem}-{number}-{place}", pictures)


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """What a cell has put out, in the richest form that a page can show."""
    if output["output_type"] == "stream":
        yield f"```text\n{''.join(output['text']).rstrip()}\n```\n"
        return
    data = output.get("data", {})
    picture = next((kind for kind in PICTURES if kind in data), None)
    if picture:
        file = f"{name}.{PICTURES[picture]}"
        pictures[file] = base64.b64decode("".join(data[picture]))
        width = output.get("metadata", {}).get(picture, {}).get("width")
        size = f'{{ width="{width}" }}' if width else ""
        yield f"![Output of the cell above]({file}){size}\n"
    elif "text/html" in data:
        lines = "".join(data["text/html"]).split("\n")
        yield "\n".join(['<div class="output">', *(line for line in lines if line.strip()), "</div>\n"])
    elif "text/plain" in data:
        yield f"```text\n{''.join(data['text/plain'])}\n```\n"
