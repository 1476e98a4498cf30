"""The documentation site, built as `make docs` builds it; skipped where its packages (`[docs]`) are missing."""

import argparse
import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.cli_arguments import command_parsers
from d2l_study.cli import command_parser
from d2l_study.study.space.keys_help import OTHERS, PLACES, described_keys

for package in ("mkdocs", "material", "mkdocstrings", "latex2mathml"):
    pytest.importorskip(package, reason=f"the documentation site is not built: {package} is missing (extra [docs])")

ROOT = Path(__file__).resolve().parents[2]


def build(out: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(config),
        "--site-dir",
        str(out),
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = build(out)
    assert built.returncode == 0, built.stderr[-3000:]
    return out


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


@pytest.mark.slow
def test_the_key_reference_has_every_key(site):
    page = (site / "reference" / "keys.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="([^"]+)"', page))
    for name, places in PLACES.items():
        for heading, options in places.items():
            section = heading.rpartition(": ")[2] if name == "data" else name
            assert {f"{section}.{key.name}" for key in described_keys(options)} <= anchors
    assert {f"study.{key}" for key in OTHERS} <= anchors
    text = text_of(site / "reference" / "keys.html")
    assert "lambda_adv: 0" in text
    assert "λ: weight of the distillation term" in text  # a capital λ is another quantity


def test_the_command_reference_has_every_command_and_option(site):
    page = text_of(site / "reference" / "commands.html")
    for name, parser in command_parsers()[1].items():
        assert f"d2l {name} " in page
        for action in parser._actions:
            assert all(option in page for option in action.option_strings if option not in ("-h", "--help"))
    (commands,) = [action for action in command_parser()._actions if isinstance(action, argparse._SubParsersAction)]
    assert len(commands.choices) > 15
    for name in commands.choices:
        assert f"d2l {name} " in page
    assert "µm per pixel of slides" in page  # a capital µ is mega


def test_no_page_fetches_anything_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link|iframe)\b[^>]*(?:src|href)="(https?:[^"]*)"', text)
        assert not fetched, page


def test_a_wide_table_of_a_notebook_scrolls_in_one_box_with_a_shadow_at_its_cut(site):
    page = (site / "notebooks" / "mnist_study.html").read_text(encoding="utf-8")
    assert '<div class="wide"><table>' in page
    rules = (site / "site.css").read_text(encoding="utf-8")
    (shadow,) = re.findall(r"\.output \.wide \{([^}]*)\}", rules)
    assert "--md-default-bg-color" in shadow and "no-repeat local" in shadow
    (boxes,) = re.findall(r"\.md-typeset__scrollwrap[^{]*\{([^}]*)\}", rules)  # the theme puts them about each table
    assert "overflow: visible" in boxes and "margin: 0" in boxes


def test_the_search_works_in_pages_opened_from_a_folder(site):
    """Browsers start no worker and read no JSON there: the index is a script, and each page loads the stand-in for
    workers."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    found = json.loads(index.removeprefix("var __index = "))
    assert any(one["location"] == "students.html" for one in found["docs"])
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    for page in pages:
        (script,) = re.findall(r'<script src="([^"]*iframe-worker[^"]*)"', page.read_text(encoding="utf-8"))
        target = site / script.lstrip("/") if page.name == "404.html" else page.parent / script
        assert target.is_file(), page


@pytest.mark.slow
def test_a_link_without_target_fails(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "index.md").write_text("# Start\n[nowhere](missing.md)\n", encoding="utf-8")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    settings = re.sub(r"^nav:\n.*", "", settings, flags=re.MULTILINE | re.DOTALL)
    settings = settings.replace("docs_dir: docs", "docs_dir: pages").replace("docs_hooks/", f"{ROOT}/docs_hooks/")
    (tmp_path / "mkdocs.yml").write_text(settings.replace("extra_css: [site.css]", ""), encoding="utf-8")
    built = build(tmp_path / "site", tmp_path / "mkdocs.yml")
    assert built.returncode != 0
    assert "missing.md" in built.stderr
