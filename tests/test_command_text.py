"""Messages name commands as the running one was called: `d2l …`, or `python -m d2l_study …`."""

import ast
from pathlib import Path

import pytest

from analysis import cli as analysis_cli
from d2l_study import cli, script
from d2l_study.command_line import ANALYSIS_MODULE, D2L, STUDY_MODULE, called_as, command_text

ROOT = Path(cli.__file__).resolve().parents[2]


def texts_of(source: str) -> list[str]:
    """The texts of a module that are no documentation, pieces of f-strings among them."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


@pytest.mark.parametrize(
    ("words", "as_modules"),
    [
        ("plan --space x", "python -m d2l_study plan --space x"),
        ("status|stop|sync x", "python -m d2l_study status|stop|sync x"),
        ("tables x", "python -m analysis tables x"),
        ("tables|figure|report x", "python -m analysis tables|figure|report x"),
        ("export", "python -m d2l_study export"),
        ("", "python -m d2l_study "),
    ],
)
def test_a_command_is_named_as_the_process_was_called(words, as_modules):
    for program in (STUDY_MODULE, ANALYSIS_MODULE):
        with called_as(program):
            assert command_text(words) == as_modules
    with called_as(D2L):
        assert command_text(words) == f"d2l {words}"
    assert command_text(words) == f"d2l {words}"  # of a notebook


@pytest.mark.parametrize(("main", "program"), [(cli.main, "python -m d2l_study"), (script.main, "d2l")])
def test_both_ways_to_call_a_command_speak_as_they_were_called(main, program, tmp_path, capsys):
    space, other = str(tmp_path / "one.yaml"), D2L if program != D2L else STUDY_MODULE
    assert main(["new", space]) == 0
    assert f"{program} plan --space {space}" in capsys.readouterr().out
    assert main(["plan", "--space", "smoke", "--set", "teacher.steps=7", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"{program} status|stop|sync " in shown and f"{other} " not in shown
    assert main(["plan", "--space", "smoke", "--set", "teacher.zzz=1"]) == 2
    assert f"{program} keys" in capsys.readouterr().err


@pytest.mark.parametrize("main", [cli.main, analysis_cli.main, script.main])
def test_how_one_command_was_called_is_forgotten_after_it(main, capsys):
    assert main(["tables" if main is not cli.main else "plan"]) == 2
    assert "is missing (see " in capsys.readouterr().err
    assert command_text("plan") == "d2l plan"


def test_no_message_names_a_module_by_itself():
    found = [
        f"{path.relative_to(ROOT)}: {text[:80]}"
        for folder in ("d2l_study", "analysis")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for text in texts_of(path.read_text(encoding="utf-8"))
        if "python -m d2l_study" in text or "python -m analysis" in text
    ]
    assert len(found) == 2 and all(one.startswith("d2l_study/command_line.py") for one in found), found
    sources = [path for folder in ("d2l_study", "analysis") for path in (ROOT / folder).rglob("*.py")]
    assert not [path for path in sources if '"-m", "d2l_study"' in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda path: path.stem)
def test_documentation_says_d2l(page):
    if page.name != "installation.md":  # which says that both are the same
        text = page.read_text(encoding="utf-8")
        assert "python -m d2l_study" not in text and "python -m analysis" not in text
