"""Commands that cannot be carried out, answered before anything heavy is imported or written."""

import subprocess
import sys

import pytest

from d2l_study import cli


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--space", "vat_quik"], ["--space vat_quik", "did you mean 'vat_quick'"]),
        (["run", "--spce", "smoke"], ["unknown option --spce", "--space"]),
        (["rum"], ["unknown command 'rum'", "did you mean 'run'"]),
        (["plan", "--space", "smoke", "--set", "num_bags=1"], ["data.num_bags: 1", "≥ 2"]),
        (["plan", "--space", "smoke", "--set", "data.mean_bag_size=0.5"], ["data.mean_bag_size: 0.5", "≥ 1"]),
        (["plan", "--space", "smoke", "--set", "lambda_adv=-1"], ["lambda_adv", "-1", "≥ 0"]),
        (["plan", "--space", "smoke", "--set", "teacher.epsilon=[]"], ["teacher.epsilon", "empty"]),
        (["plan", "--space", "smoke", "--replicates", "0"], ["--replicates", "'0'"]),
        (["run", "--space", "smoke", "--study", "a/b"], ["--study 'a/b'"]),
        (["run", "--space", "smoke", "--study", ""], ["--study ''"]),
        (["run", "--space", "smoke", "--study", "a" * 300], ["--study", "at most 100"]),
        (["run", "--space", "smoke", "--set", "resources.cpus=1000"], ["asks for 1000 CPUs"]),
        (["run", "--space", "smoke", "--set", "resources.gpus=64"], ["64 GPUs"]),
        (["plan", "--space", "smoke", "--root", "/proc/version"], ["--root /proc/version", "a file"]),
        (["run", "--space", "smoke", "--tracking-uri", ""], ["--tracking-uri", "empty"]),
        (["run", "--space", "smoke", "--tracking-uri", "sqlite:////nowhere/x.db"], ["no folder /nowhere"]),
        (["run", "--space", "smoke", "--root", "/proc/nothing"], ["--root /proc/nothing", "cannot write"]),
        (["run", "--space", "smoke", "--tracking-uri", "http://127.0.0.1:9"], ["http://127.0.0.1:9", "refused"]),
        (["run", "--space", "smoke", "--address", "127.0.0.1:9"], ["--address 127.0.0.1:9", "no Ray cluster"]),
        (["plan", "--space", "smoke", "--set", "data.root=/nowhere"], ["data.root", "/nowhere"]),
        (["data", "--mnist", "/nowhere"], ["/nowhere", "not a folder"]),
        (["ui", "--port", "99999"], ["--port", "99999"]),
        (["run", "--space", "smoke", "--root", ""], ["--root: an empty path"]),
        (["run", "--space", "smoke", "--study", "two\nlines"], ["--study 'two\\nlines'", "invisible"]),
    ],
)
def test_wrong_commands_are_answered_in_a_line_or_two(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert all(word in captured.err for word in words), captured.err
    assert captured.err.startswith("error: ") and len(captured.err.strip().splitlines()) <= 2
    assert not list(tmp_path.glob("runs/studies/*"))


def test_help_and_spaces_need_nothing_heavy(tmp_path):
    code = (
        "import sys; from d2l_study import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "cli.main(['spaces'])\n"
        "print(sorted({'ray', 'torch', 'mlflow', 'optuna', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
    assert "vat_quick" in done.stdout
