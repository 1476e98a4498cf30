"""Run the notebooks and keep their outputs: `make notebooks`.

    python docs/notebooks/execute.py                  # all: each NAME.py gives NAME.ipynb beside it
    python docs/notebooks/execute.py mnist_study      # one

The sources are the `.py` files, in jupytext's percent format. Edit these, not the `.ipynb`.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

SMALL = {
    "mnist_study": {"test_bags: 300": "test_bags: 50, root: ../digits, verify: false",
                    "steps: 150, eval_every: 50": "steps: 20, eval_every: 20", "replicates: 5": "replicates: 2"},
    "slides_to_qupath": {"images: 40": "images: 20", "steps: 200, eval_every: 50": "steps: 20, eval_every: 20",
                         "steps: 100, eval_every: 50": "steps: 20, eval_every: 20"},
}  # fmt: skip
"""Of a notebook what its `space` has, and what it has instead where nbmake runs it as a test."""
HERE = Path(__file__).resolve().parent
SOURCES = sorted(path for path in HERE.glob("*.py") if path.stem not in ("conftest", "execute"))
SECONDS = 600
"""For a cell."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(path.stem for path in SOURCES)])
    names = parser.parse_args().names
    for path in SOURCES:
        if not names or path.stem in names:
            notebook = execute(notebook_of(path))
            jupytext.write(notebook, path.with_suffix(".ipynb"), fmt="ipynb")
            print(f"wrote {path.with_suffix('.ipynb')}")


def notebook_of(source: Path) -> Any:
    """The notebook of a source, without outputs. Nothing in it depends on when or where it was made."""
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, start=1):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
        if cell["source"].startswith("space = ") and source.stem in SMALL:
            cell["metadata"] = {"nbmake": {"mock": {"space": small_space(cell["source"], SMALL[source.stem])}}}
    return notebook


def small_space(cell: str, changes: Mapping[str, str]) -> str:
    """The text of a cell's `space` with changes (old -> new), escaped, since nbmake puts it between single quotes.
    ValueError where the space does not have what is to be changed."""
    text = str(ast.literal_eval(cell.removeprefix("space = ")))
    for old, new in changes.items():
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times in the space, expected once")
        text = text.replace(old, new)
    return text.encode("unicode_escape").decode().replace("'", "\\'")


def execute(notebook: Any) -> Any:
    """Run it in a kernel of this Python, by whose name `python` its commands find this one too. Raises
    `nbclient.exceptions.CellExecutionError` where a cell fails."""
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small networks: threads would wait for each other
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", record_timing=False, coalesce_streams=True
    )
    done = client.execute()
    done.metadata["language_info"] = {"name": "python"}  # the kernel adds its version
    return done


if __name__ == "__main__":
    main()
