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
    assert text.count("validation AUC undefined") == 2 and "undefined" in text.split("val AUC")[1]
    assert "nan" not in text and shown.best == (0.75, "one")
