"""How the curves of a trial go from its worker to the driver."""

from __future__ import annotations

import warnings

import pytest

from d2l_study.errors import SlowStepsWarning
from d2l_study.study.tune.worker import ReportBuffer, curve_points, warnings_told


def test_points_reach_the_driver_in_order_in_few_messages() -> None:
    sent: list[dict] = []
    reports = ReportBuffer(sent.append, pause=3600)
    for step in range(1, 21):
        reports(0, step, {0: {"train_loss": 1 / step}, 3: {"train_loss": 2 / step}})
    assert sent == []
    reports.flush(statuses=[{"0": "done", "3": "done"}])
    reports.flush()  # nothing is left
    (message,) = sent
    assert [step for _, step, _ in curve_points(message)] == list(range(1, 21))
    assert list(curve_points(message))[1] == (0, 2, {0: {"train_loss": 0.5}, 3: {"train_loss": 1.0}})
    assert message["statuses"] == [{"0": "done", "3": "done"}]


def test_requests_of_a_packed_trial_end_one_by_one() -> None:
    sent: list[dict] = []
    reports = ReportBuffer(sent.append, pause=3600)
    reports(1, 5, {0: {"val_bag_auc": 0.9}})
    reports.ended(1)
    reports.flush()
    reports.ended(0)
    reports.flush()
    assert [message["ended"] for message in sent] == [[1], [0]]
    assert [list(curve_points(message)) for message in sent] == [[(1, 5, {0: {"val_bag_auc": 0.9}})], []]


def test_without_a_pause_every_point_is_a_message() -> None:
    sent: list[dict] = []
    reports = ReportBuffer(sent.append, pause=0.0)
    for step in (5, 10):
        reports(0, step, {0: {"val_bag_auc": 0.9}})
    assert [list(curve_points(message)) for message in sent] == [
        [(0, 5, {0: {"val_bag_auc": 0.9}})],
        [(0, 10, {0: {"val_bag_auc": 0.9}})],
    ]


def test_a_message_goes_once_the_pause_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("d2l_study.study.tune.worker.time.monotonic", lambda: now)
    sent: list[dict] = []
    reports = ReportBuffer(sent.append, pause=1.0)
    for step in range(1, 8):
        now += 0.4
        reports(0, step, {0: {"train_loss": 0.0}})
    assert [[step for _, step, _ in curve_points(message)] for message in sent] == [[1, 2, 3], [4, 5, 6]]
    assert [step for _, step, _ in reports.points] == [7]


def test_what_makes_training_slow_reaches_the_driver_and_nothing_else_does(capsys: pytest.CaptureFixture[str]) -> None:
    sent: list[dict] = []
    reports = ReportBuffer(sent.append, pause=3600)
    with warnings_told(reports.warn):
        warnings.warn("steps are not compiled: no compiler", SlowStepsWarning, stacklevel=1)
        warnings.warn("of a library", UserWarning, stacklevel=1)
    reports.flush()
    reports.flush()
    assert [message["warnings"] for message in sent] == [["steps are not compiled: no compiler"]]
