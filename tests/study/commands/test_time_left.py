"""The predicted time left: near the truth from the first line on, and steady."""

import heapq
import io
import itertools

import pytest
from rich.console import Console

from d2l_study.study.commands.progress_display import ProgressDisplay
from d2l_study.study.commands.time_left import TimeLeft, rounded_seconds


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def simulated(trials, places, start=30.0, later_start=1.0, reports=10, after=0.1):
    """(seconds left, predicted) at each event of a study. trials: (kind, work, seconds of training) in their order;
    start: seconds of a worker's start, which the first trial of each place takes besides; later_start: those of others;
    after: seconds of the test. What takes no training has no reports.
    """
    clock, events, log = Clock(), [], []
    names = {f"t{i}": trial for i, trial in enumerate(trials)}
    left = TimeLeft({k: t[1] for k, t in names.items()}, {k: t[0] for k, t in names.items()}, places, clock)
    waiting = list(names)

    def begin(beside):
        key = waiting.pop(0)
        left.started(key)
        for i in range(1, reports + 1) if names[key][2] else ():
            heapq.heappush(events, (clock.now + beside + names[key][2] * i / reports, len(events), key, i / reports))
        heapq.heappush(events, (clock.now + beside + names[key][2] + after, len(events), key, None))

    for _ in range(places):
        begin(start)
    while events:
        clock.now, _, key, share = heapq.heappop(events)
        if share is not None:
            left.reported(key, share)
        else:
            left.ended(key)
            if waiting:
                begin(later_start)
        log.append((clock.now, left.seconds()))
    return [(clock.now - at, predicted) for at, predicted in log]


def largest_jump(found):
    """Of the predicted end from one event to the next, in shares of the whole time."""
    ends = [predicted - truth for truth, predicted in found if predicted is not None]
    return max(abs(b - a) for a, b in itertools.pairwise(ends)) / max(truth for truth, _ in found)


@pytest.mark.parametrize("start", [5.0, 60.0])
def test_the_start_of_workers_says_nothing_of_the_trials_that_come(start):
    found = simulated([("a", 10.0, 40.0)] * 12, 2, start)
    truth, first = next((t, p) for t, p in found if p is not None)
    assert first == pytest.approx(truth, rel=0.1)
    assert largest_jump(found) < 0.03


def test_the_test_of_short_trials_says_nothing_of_the_training_of_long_ones():
    trials = [("a", 10.0, 30.0)] * 4 + [("a", 200.0, 600.0)] * 4
    found = simulated(trials, 2, 5.0, after=20.0)
    truth, first = next((t, p) for t, p in found if p is not None)
    assert first == pytest.approx(truth, rel=0.1)
    assert largest_jump(found) < 0.06


def test_what_reads_a_teacher_says_nothing_of_training():
    """Else its seconds would count without any work."""
    clock = Clock()
    left = TimeLeft({"teacher": 10.0, "reading": 0.0, "other": 10.0}, {}, 1, clock)
    left.started("teacher")
    left.reported("teacher", 0.0)
    clock.now = 100.0
    left.reported("teacher", 1.0)
    left.ended("teacher")
    left.started("reading")
    clock.now = 160.0
    left.ended("reading")
    assert left.seconds() == pytest.approx(100, rel=0.05)


def test_each_kind_has_a_factor_of_its_own():
    """`b` takes four times as long as predicted, and comes last: once one is seen, all others are known."""
    trials = [("a", 10.0, 20.0)] * 4 + [("b", 10.0, 80.0)] * 6
    found = simulated(trials, 1, 5.0)
    begun = next(i for i, (truth, _) in enumerate(found) if truth < 4.5 * 81)
    truth, predicted = found[begun]
    assert predicted == pytest.approx(truth, rel=0.35)  # one and a half of six are seen
    assert found[-15][1] == pytest.approx(found[-15][0], rel=0.15)


def test_trials_of_a_stack_hold_a_place_together():
    clock = Clock()
    keys = [f"t{i}" for i in range(8)]
    left = TimeLeft(dict.fromkeys(keys, 1.0), dict.fromkeys(keys, "a"), 1, clock)
    for key in keys[:4]:
        left.started(key)
    for share in (0.25, 0.5, 0.75, 1.0):
        clock.now += 25
        for key in keys[:4]:
            left.reported(key, share)
    for key in keys[:4]:
        left.ended(key)
    assert left.seconds() == pytest.approx(100, rel=0.1)  # another stack of four


def test_nothing_is_said_before_training_has_been_seen():
    clock = Clock()
    left = TimeLeft({"a": 1.0, "b": 99.0}, {}, 1, clock)
    left.started("a")
    clock.now = 300.0  # a worker that starts slowly
    assert left.seconds() is None
    left.reported("a", 0.1)
    assert left.seconds() is None
    clock.now = 310.0
    left.reported("a", 0.6)
    assert left.seconds() is None  # half a hundredth of all work
    left.ended("a")
    assert left.seconds() is None
    left.started("b")
    left.reported("b", 0.0)
    clock.now = 400.0
    left.reported("b", 0.1)
    assert left.seconds() == pytest.approx(810, rel=0.1)


def test_trials_that_are_lost_or_come_later_count():
    clock = Clock()
    left = TimeLeft({"a": 1.0, "b": 1.0}, {"a": "x", "b": "x"}, 1, clock)
    left.expect(2, 1.0)
    left.started("a")
    left.reported("a", 0.0)
    clock.now = 100.0
    left.reported("a", 1.0)
    left.ended("a")
    assert left.seconds() == pytest.approx(300, rel=0.05)
    left.add("c", 1.0, "x")
    assert left.seconds() == pytest.approx(300, rel=0.05)
    left.started("b")
    left.replaced("b", ["b1", "b2"])
    assert left.seconds() == pytest.approx(300, rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(3, 10), (44, 40), (130, 120), (610, 600), (1250, 1200), (4900, 4500), (40000, 39600)]
)
def test_a_prediction_is_rounded_to_what_is_known(seconds, shown):
    assert rounded_seconds(seconds) == shown


def test_a_line_says_about_how_long(monkeypatch):
    class Request:
        label, steps, replicates, attempt = "one", 10, (0,), 0

    clock, out = Clock(), io.StringIO()
    monkeypatch.setattr("d2l_study.study.commands.progress_display.time.monotonic", clock)
    shown = ProgressDisplay(Console(file=out, width=200), dict.fromkeys("abc", 1.0), 1)
    shown.trial_started("a", Request())
    clock.now = 40.0
    shown.trial_reported("a", 0, 0.5)
    clock.now = 640.0
    shown.trial_reported("a", 10, 0.5)
    shown.trial_ended("a", Request(), 0, 0.5)
    first, *_, last = out.getvalue().splitlines()
    assert " left" not in first and "11 min elapsed, about 20 min left]" in last
