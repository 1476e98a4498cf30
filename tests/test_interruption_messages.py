"""What a command says when it is interrupted or refused: of its own work, and never a traceback."""

import errno
import os
import signal
from types import SimpleNamespace

import pytest

import analysis.cli
from d2l_study import cli
from d2l_study.cli import information_commands, model_commands, slide_commands, study_commands, trial_commands
from d2l_study.errors import MachineError, StorageError, UnreadableError
from d2l_study.interruption_messages import continuation_text
from d2l_study.study.commands.run import stopped_by_signals
from d2l_study.study.commands.study_summary import show_study_summary

COMMANDS = {
    "run": ["--space", "smoke"], "plan": ["--space", "smoke"], "trial": ["--id", "a"], "reproduce": ["a"],
    "sync": ["few"], "stop": ["few"], "status": ["few"], "list": [], "spaces": [], "data": [], "ui": [],
    "label": ["--run", "a", "x.npy", "--out", "o"], "tile": ["a.svs", "--mpp", "1", "--size", "9", "--out", "o"],
    "evaluate": ["--run", "a", "--data", "x.csv"], "predict": ["--run", "a", "x.npy", "--out", "o.csv"],
}  # fmt: skip


def raising(error):
    def command(arguments):
        raise error

    return command


def let_fail(monkeypatch, name, error):
    """Let a command raise an error instead of its work."""
    modules = (study_commands, trial_commands, information_commands, slide_commands, model_commands)
    (module,) = [m for m in modules if hasattr(m, f"_{name}")]
    monkeypatch.setattr(module, f"_{name}", raising(error))


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_promises_what_the_command_keeps(name, monkeypatch, capsys):
    let_fail(monkeypatch, name, KeyboardInterrupt())
    assert cli.main([name, *COMMANDS[name]]) == 130
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("\nStopped") and said.err.count("\n") == 2
    assert ("committed is safe" in said.err) is (name in ("run", "trial"))
    assert ("goes on" in said.err) is (name in ("run", "trial", "tile"))
    assert ("begins anew" in said.err) is (name in ("reproduce", "predict", "evaluate"))
    assert ("nothing had been scored" in said.err) is (name == "label")


@pytest.mark.parametrize("name", ["run", "list", "label"])
def test_a_refusal_promises_what_the_command_keeps(name, monkeypatch, capsys):
    for error, said in (
        (StorageError(errno.ENOSPC, "No space left on device", "/x"), "cannot write to /x: No space left on device"),
        (UnreadableError(errno.EIO, "Input/output error", "/x"), "cannot read /x: Input/output error"),
        (OSError(errno.EIO, "Input/output error", "/x"), "/x: Input/output error"),
    ):
        let_fail(monkeypatch, name, error)
        assert cli.main([name, *COMMANDS[name]]) == 1
        promised = "; what was committed is safe. When that is mended, give the same command" if name == "run" else ""
        assert capsys.readouterr().err == f"error: {said}{promised}\n"
    let_fail(monkeypatch, name, MachineError("Ray did not start on this machine"))
    assert cli.main([name, *COMMANDS[name]]) == 1
    promised = ". What was committed is safe; give the same command again" if name == "run" else ""
    said = "Ray did not start on this machine; the machine may only be busy"
    assert capsys.readouterr().err == f"error: {said}{promised}\n"


def test_ctrl_c_ends_an_analysis_in_a_word(monkeypatch, capsys):
    monkeypatch.setattr(analysis.cli, "_tables", raising(KeyboardInterrupt()))
    assert analysis.cli.main(["tables", "few"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"


class Held:
    """Stands for the lease: the first reason stays."""

    reason = None

    def end(self, reason):
        self.reason = self.reason or reason


@pytest.fixture
def _ctrl_c_is_heard():
    """Also where the tests are a background job of a script, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_heard")
def test_a_lost_ctrl_c_ends_a_study_all_the_same():
    held, before = Held(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stopped_by_signals(held):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)  # a place for it to be raised
        assert held.reason == "Ctrl-C"
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (None, "the same command goes on from here"),
        ("Ctrl-C", "the same command goes on from here"),
        ("another driver has taken up the study", "the other one goes on with them"),
        ("--fail-fast, after a run of vat failed", "without --fail-fast past what fails"),
    ],
)
def test_the_runs_that_are_left_are_gone_on_with_as_is_said(reason, words):
    assert words in continuation_text(reason)


@pytest.mark.parametrize(
    ("reason", "code"), [(None, 130), ("`stop` was said on here", 130), ("cannot write to /x: full", 1)]
)
def test_a_search_that_ends_before_its_first_trial_says_why(reason, code, capsys):
    options = SimpleNamespace(root="runs", study="s")
    study = SimpleNamespace(name="s", options=options, search=SimpleNamespace(trials=[]))
    assert show_study_summary(study, True, 0, 4, reason) == code
    said = capsys.readouterr()
    assert "Stopped before the first trial" in said.out and (reason is None or f"({reason})" in said.out)
    assert ("error: cannot write to /x: full; what was committed is safe" in said.err) is (code == 1)


def test_a_python_without_our_packages_is_a_line(monkeypatch, capsys):
    """As where a command is given to another Python than the one that was installed into."""
    let_fail(monkeypatch, "run", ModuleNotFoundError("No module named 'torch'", name="torch.nn"))
    assert cli.main(["run", *COMMANDS["run"]]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: the package torch is not installed for ") and said.count("\n") == 1
    assert "activate" in said

    def gone(arguments):
        raise ModuleNotFoundError("No module named 'pandas'", name="pandas")

    monkeypatch.setattr(analysis.cli, "_tables", gone)
    assert analysis.cli.main(["tables", "some"]) == 2
    assert capsys.readouterr().err.startswith("error: the package pandas is not installed for ")
