"""Commands on terminals that cannot print what they say."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import pytest
from make_study import make_study

import d2l_study
from analysis.cli import main as analyse
from d2l_study.cli import main
from d2l_study.terminal import plain, print_entry

HERE = Path(d2l_study.__file__).parents[1]


def run_on(encoding, command, words, monkeypatch):
    """A command's exit code and output on a terminal of that encoding, which is strict as Python's are."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    try:
        code = command(words)
    except SystemExit as ended:  # --help
        code = ended.code
    for stream in (out, err):
        stream.flush()
    monkeypatch.undo()
    return code, *(stream.buffer.getvalue().decode(encoding) for stream in (out, err))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437"])
def test_every_command_prints_on_every_terminal_what_it_prints_elsewhere(encoding, tmp_path, monkeypatch):
    make_study(tmp_path, num_bags=(50,), replicates=3)
    root = ["--root", str(tmp_path)]
    for command, *words in [
        (analyse, "tables", "made", *root), (main, "plan", "--space", "vat_quick", *root),
        (main, "status", "made", *root), (main, "spaces"), (main, "keys"),
        (main, "plan", "--space", "λ−é…×"), (main, "--help"),
    ]:  # fmt: skip
        whole, here = (run_on(name, command, words, monkeypatch) for name in ("utf-8", encoding))
        assert here[0] == whole[0] and whole[1] + whole[2]
        for said, shown in zip(whole[1:], here[1:], strict=True):
            assert plain(shown) == plain(said) and (encoding != "ascii" or shown == plain(said))


def test_every_letter_that_we_print_has_one_that_stands_for_it():
    """Of all texts in the code: none becomes a question mark. `latex_text` has letters that it only reads."""
    lost = {}
    texts = [*(HERE / "d2l_study").rglob("*.py"), *(HERE / "analysis").rglob("*.py")]
    texts.remove(HERE / "analysis" / "tables" / "latex_text.py")
    for path in texts:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isascii():
                lost |= {sign: str(path) for sign in node.value if not sign.isascii() and "?" in plain(sign)}
    assert lost == {}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("λ_adv = 0.5 ± 0.1 − x → 4×4 …", "lambda_adv = 0.5 +/- 0.1 - x -> 4x4 ..."), ("━━│┌─┐┼", "--|+-++"),
        ("Größe é n²", "Grosse e n^2"), ("Σ Δ μ", "Sigma Delta mu"), ("½", "1/2"), ("\udcff", "\\xff"), ("漢", "?"),
        ("█▌", "##"), ("plain", "plain"),
    ],
)  # fmt: skip
def test_what_stands_for_what(text, shown):
    assert plain(text) == shown


def test_a_stream_that_is_closed_or_none_is_no_error(monkeypatch, tmp_path):
    closed = io.TextIOWrapper(io.BytesIO())
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list", "--root", str(tmp_path)]) == 0


def test_a_text_beside_a_name_stays_in_its_column_on_a_terminal_and_in_one_line_elsewhere(monkeypatch, capsys):
    words = " ".join(["seven"] * 20)
    monkeypatch.setenv("COLUMNS", "60")
    print_entry("name", words, 10)
    assert capsys.readouterr().out == f"name        {words}\n"  # a pipe: `grep` finds whole lines
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    print_entry("name", words, 10)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 60
    assert lines[0].startswith("name        seven") and all(line.startswith(" " * 12 + "seven") for line in lines[1:])
