"""The command `d2l` of an installed package: both command lines under one name."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
from make_study import make_study

from analysis import cli as analysis_cli
from d2l_study import cli, script


def commands_of(parser: argparse.ArgumentParser) -> set[str]:
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return set(found[0].choices)


def test_it_knows_every_command_of_both(capsys):
    with pytest.raises(SystemExit):
        analysis_cli.main(["--help"])
    of_analysis = capsys.readouterr().out
    assert all(f"    {name}" in of_analysis for name in script.ANALYSIS)
    with pytest.raises(SystemExit):
        script.main(["--help"])
    printed = capsys.readouterr().out
    assert printed.startswith("usage: d2l ")
    for name in commands_of(cli.command_parser()) | set(script.ANALYSIS):
        assert f"\n    {name}" in printed, name
    words = {line.split()[0] for line in of_analysis.splitlines() if line.startswith("    ") and line[4:5].isalpha()}
    assert words == set(script.ANALYSIS)  # a command that analysis gains has to be named here


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabels", "x"], "unknown command 'tabels'; did you mean 'tables'"),
        (["runn"], "unknown command 'runn'; did you mean 'run'"),
        (["run"], "(see d2l run --help)"),
        (["tables"], "(see d2l tables --help)"),
        (["tables", "nowhere", "--root", "nothing"], "nowhere"),
    ],
)
def test_mistakes_are_answered_under_its_own_name(words, said, capsys):
    assert script.main(words) == 2
    answer = capsys.readouterr().err
    assert said in answer and "pip install" not in answer


def test_export_is_of_a_model_or_of_the_rows_of_a_study(tmp_path, capsys):
    make_study(tmp_path)
    assert script.main(["export", "made", "--out", str(tmp_path / "rows.csv"), "--root", str(tmp_path)]) == 0
    assert (tmp_path / "rows.csv").is_file()
    assert script.main(["export", "--run", "ffff", "--to", str(tmp_path / "m"), "--root", str(tmp_path)]) == 2
    assert "--run 'ffff': no such trial" in capsys.readouterr().err
    assert script.main(["export"]) == 2
    assert "--run" in capsys.readouterr().err


def test_a_table_is_that_of_the_analysis_command(tmp_path, capsys):
    make_study(tmp_path)
    found = []
    for main in (analysis_cli.main, script.main):
        assert main(["tables", "made", "--root", str(tmp_path)]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
    assert "|" in found[0]


def test_the_installed_script_runs_and_ends_with_the_exit_code():
    installed = Path(sys.executable).with_name("d2l")
    if not installed.exists():
        pytest.skip("the package is not installed here with its script")
    environment = {**os.environ, "PYTHONPATH": str(Path(script.__file__).parents[1])}
    for words, code in ((["--version"], 0), (["spaces"], 0), (["nonsense"], 2)):
        done = subprocess.run([installed, *words], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == code, done.stderr
