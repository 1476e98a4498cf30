"""What the command line says of options and names: limits, mistyped names, the name that --set makes."""

from __future__ import annotations

import pytest

from analysis.cli import main as analysis_main
from d2l_study import cli
from d2l_study.cli.arguments import MOST_REPLICATES
from d2l_study.errors import nearest
from d2l_study.options import field_of
from d2l_study.study.space.keys import StudyOptions


def test_replicates_have_one_limit_everywhere(capsys, tmp_path):
    assert field_of(StudyOptions, "replicates")[1]["most"] == MOST_REPLICATES
    root = ["--root", str(tmp_path)]
    for words in (["plan", "--space", "smoke", "--replicates", "1001"], ["trial", "--id", "x", "--replicate", "1000"]):
        assert cli.main([*words, *root]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "from 1 to 1000" in first and "from 0 to 999" in second
    assert cli.main(["plan", "--space", "smoke", "--set", "replicates=1001", *root]) == 2
    assert "≤ 1000" in capsys.readouterr().err


def test_root_means_one_thing_and_where_it_meant_another_the_new_word_is_said(capsys):
    assert cli.main(["data", "--root", "/x"]) == 2
    said = capsys.readouterr().err
    assert "--data DIR" in said and said.count("\n") == 1


@pytest.mark.parametrize("name", ["nope.npy", "xyz", "qq", ""])
def test_what_is_not_near_is_not_suggested(name):
    assert nearest(name, ["api.py", "colon", "tables"]) == ""


@pytest.mark.parametrize(("name", "meant"), [("rum", "run"), ("s4", "s3"), ("nbags", "num_bags"), ("bag", "bag_auc")])
def test_what_is_near_is(name, meant):
    assert nearest(name, [meant, "colon"]) == f"; did you mean {meant!r}?"


def test_a_study_that_set_has_named_says_its_name_last_with_the_commands_that_need_it(capsys, tmp_path):
    root = ["--root", str(tmp_path / "a b")]
    assert cli.main(["plan", "--space", "smoke", "--set", "teacher.steps=7", *root]) == 0
    *_, title, first, second = capsys.readouterr().out.splitlines()
    name = title.split()[-1]
    assert title == f"--set makes another study of smoke: {name}" and name.startswith("smoke-")
    assert first.strip() == f"python -m d2l_study status|stop|sync {name} --root '{tmp_path}/a b'"
    assert second.strip() == f"python -m analysis tables|figure|report {name} --root '{tmp_path}/a b'"
    for words in (["--set", "resources.threads=1"], ["--set", "teacher.steps=7", "--study", "mine"], []):
        assert cli.main(["plan", "--space", "smoke", *words, *root]) == 0
        assert "makes another study" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["status", "a", "b"], ["sync", "a", "b"], ["trial"], ["list", "x"]])
def test_missing_and_further_words_are_refused(arguments, capsys):
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["plan", "vat_grid"], "--space is missing; did you mean --space vat_grid?"),
        (["plan"], "--space is missing (see "),
        (["stop"], "STUDY is missing (see "),
        (["rnu"], "unknown command 'rnu'; did you mean 'run'?"),
        (["tables", "vat_quick"], "Tables and figures: python -m analysis --help"),
        (
            ["--space", "my space.yaml", "run"],
            "comes first: python -m d2l_study run --space 'my space.yaml' ",
        ),
        (
            ["--space=my.yaml", "plan", "--list"],
            "comes first: python -m d2l_study plan --space=my.yaml --list ",
        ),
        (["--space", "my.yaml"], "--space: a command comes first (commands: run, "),
    ],
)
def test_a_mistake_is_answered_in_one_line_with_what_to_type_instead(words, said, capsys):
    assert cli.main(words) == 2
    shown = capsys.readouterr().err
    assert said in shown and shown.count("\n") == 1


def test_what_analysis_misses_is_said_in_the_same_words(capsys):
    assert analysis_main(["figure", "vat_quick"]) == 2
    assert capsys.readouterr().err.startswith("error: --out is missing (see ")


def test_tables_too_have_their_command_first(capsys):
    assert analysis_main(["--root", "r", "tables", "vat_quick"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the command comes first: python -m analysis tables --root r vat_quick (see ")


@pytest.mark.parametrize("main", [cli.main, analysis_main])
def test_without_any_word_the_help_is_printed(main, capsys):
    assert main([]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("usage: ") and "--help" in said.out and not said.err
