"""The notebooks of the documentation: sources and notebooks agree, and their outputs tell nothing of a machine.

That they run is tested by nbmake (`docs/notebooks/conftest.py`).
"""

import ast
import json
import re
import socket
import sys
from pathlib import Path

import pytest

from analysis.tables.html import STYLE
from d2l_study.study.space.yaml_reader import parse_yaml

for package in ("jupytext", "nbclient"):
    pytest.importorskip(package, reason=f"notebooks are not read: {package} is missing (extra [dev])")

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs" / "notebooks"))

import execute  # noqa: E402

NAMES = [path.stem for path in execute.SOURCES]


def kept(name: str) -> dict:
    return json.loads((execute.HERE / f"{name}.ipynb").read_text(encoding="utf-8"))


def texts(notebook: dict) -> str:
    """All that outputs say, but for pictures."""
    said = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            said.append("".join(output.get("text", [])))
            said += ["".join(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join(said)


def test_each_source_has_a_notebook_and_a_page():
    assert {path.stem for path in execute.HERE.glob("*.ipynb")} == set(NAMES) and len(NAMES) == 3
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"notebooks/{name}.md" in navigation for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_source_and_notebook_agree(name):
    made, there = execute.notebook_of(execute.HERE / f"{name}.py"), kept(name)
    expected = [(cell["cell_type"], cell["source"]) for cell in made.cells]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in there["cells"]] == expected, "make notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_as_tests_notebooks_run_smaller_spaces(name):
    """nbmake gives `space` another value once its cell has run, and the next cell writes it."""
    code = [cell for cell in kept(name)["cells"] if cell["cell_type"] == "code"]
    mocked = [i for i, cell in enumerate(code) if cell["metadata"]]
    assert len(mocked) == (name in execute.SMALL)
    for i in mocked:
        found = {}
        exec(code[i]["source"] if isinstance(code[i]["source"], str) else "".join(code[i]["source"]), found)
        small = ast.literal_eval("'" + code[i]["metadata"]["nbmake"]["mock"]["space"] + "'")
        whole = found["space"]
        assert small != whole and all(new in small and old in whole for old, new in execute.SMALL[name].items())
        assert parse_yaml(small, name).keys() == parse_yaml(whole, name).keys()
        assert "write_text(space)" in "".join(code[i + 1]["source"])


@pytest.mark.parametrize("name", NAMES)
def test_kept_tables_have_the_style_that_tables_have_now(name):
    """An older one may name colours that a dark page makes unreadable."""
    cells = [cell for cell in kept(name)["cells"] if cell["cell_type"] == "code"]
    found = ["".join(output.get("data", {}).get("text/html", "")) for cell in cells for output in cell["outputs"]]
    assert all(text.startswith(f"<style>{STYLE}</style>") for text in found if "d2l-sheet" in text), "make notebooks"


@pytest.mark.parametrize("name", NAMES)
def test_kept_outputs_are_of_one_whole_run_and_tell_nothing_of_a_machine(name):
    notebook = kept(name)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert kinds <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for cell in code for output in cell["outputs"])
    said = texts(notebook)
    found = re.search(rf"/tmp|/home|/root|/Users|{re.escape(socket.gethostname())}|elapsed|\d s left", said)
    assert found is None, said[found.start() - 60 : found.end() + 60]
    assert (execute.HERE / f"{name}.ipynb").stat().st_size < 1_000_000
