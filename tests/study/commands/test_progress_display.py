"""The lines of progress of a study name what is not defined."""

import io

from rich.console import Console

from d2l_study.study.commands.progress_display import ProgressDisplay


class Request:
    label, steps, replicates, attempt = "one", 10, (0,), 0


def test_a_validation_auc_that_is_not_defined_is_no_number(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("d2l_study.study.commands.progress_display.PLAIN_SECONDS", -1.0)
    shown = ProgressDisplay(Console(file=out, width=200), {"a": 1.0, "b": 1.0}, 1)
    for key, area in (("a", float("nan")), ("b", 0.75)):
        shown.trial_started(key, Request())
        shown.trial_reported(key, 5, area)
        Console(file=out, width=200).print(shown._table())
        shown.trial_ended(key, Request(), 0, area)
    text = out.getvalue()
    assert text.count("no validation AUC") == 2 and "none" in text.split("val AUC")[1]
    assert "nan" not in text and shown.best == (0.75, "one")


def test_lines_count_all_trials_of_the_study_and_say_what_still_runs_when_one_has_ended(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr("d2l_study.study.commands.progress_display.PLAIN_SECONDS", -1.0)
    shown = ProgressDisplay(Console(file=out, width=200), {"a-0": 1.0, "b-0": 1.0, "c-0": 1.0}, 2, there=4)
    for key in ("a-0", "b-0"):
        shown.trial_started(key, Request())
    shown.trial_reported("a-0", 5, 0.5)
    shown.trial_ended("a-0", Request(), 0, 0.5)
    begins = [line[: line.index(" failed")] for line in out.getvalue().splitlines()]
    assert begins == ["[4 of 7 trials done, 2 running, 0", "[5 of 7 trials done, 1 still running, 0"]


def test_parts_of_trials_are_counted_without_the_trials_of_other_commands():
    out = io.StringIO()
    shown = ProgressDisplay(Console(file=out, width=200), {"a-0": 1.0, "a-1": 1.0}, 2, there=4)
    shown.trial_started("a-0", Request())
    shown.trial_ended("a-0", Request(), 0, 0.5)
    assert out.getvalue().startswith("[1 of 2 parts of trials done, 0 still running")


def test_what_every_worker_warns_of_is_said_once():
    out = io.StringIO()
    shown = ProgressDisplay(Console(file=out, width=200), {"a-0": 1.0}, 1)
    for text in ("steps are not compiled: no compiler", "steps are not compiled: no compiler", "another"):
        shown.warn(text)
    assert out.getvalue() == "warning: steps are not compiled: no compiler\nwarning: another\n"
