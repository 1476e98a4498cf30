"""The order of trials: whole tasks, the cheapest first, and an end that waits for no long trial."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from d2l_study.study.commands.prepare_study import PreparedStudy, RunOptions, prepare_study
from d2l_study.study.commands.trial_requests import make_trial_requests, trials_of
from d2l_study.study.plan.cost import makespan, predicted_seconds
from d2l_study.study.plan.trial_order import OrderedTrial, results_first


def grid(seed: int) -> list[OrderedTrial]:
    """Tasks of unlike cost, each with the same arms of unlike cost, shuffled."""
    rng = random.Random(seed)
    arms = [rng.uniform(1, 3) for _ in range(rng.randint(2, 9))]
    trials = [OrderedTrial(task, arm * rng.uniform(1, 10)) for task in range(rng.randint(1, 12)) for arm in arms]
    rng.shuffle(trials)
    return trials


def end_of(trials: Sequence[OrderedTrial], order: Sequence[int], slots: int) -> float:
    """When the last of trials that wait for nobody ends, each given to the place that is free first."""
    free = [0.0] * slots
    for position in order:
        heapq.heapreplace(free, free[0] + trials[position].length)
    return max(free)


@pytest.mark.parametrize("seed", range(10))
def test_one_place_completes_task_after_task_from_the_cheapest_on(seed: int) -> None:
    trials = grid(seed)
    order = results_first(trials, 1)
    assert sorted(order) == list(range(len(trials)))
    longest = max(trial.length for trial in trials)
    left = sum(trial.length for trial in trials)
    early = []  # what is given out before anything can be urgent
    for position in order:
        if left <= 2 * longest:
            break
        early.append(trials[position])
        left -= trials[position].length
    tasks = list(dict.fromkeys(trial.task for trial in early))
    work = {task: sum(t.length for t in trials if t.task == task) for task in {t.task for t in trials}}
    assert tasks == sorted(work, key=lambda task: work[task])[: len(tasks)]
    assert [trial.task for trial in early] == sorted((t.task for t in early), key=tasks.index)  # none in between


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("slots", [2, 3, 8])
def test_the_end_waits_for_no_long_trial(seed: int, slots: int) -> None:
    trials = grid(seed)
    lengths = [trial.length for trial in trials]
    longest_first = makespan(lengths, slots)
    took = end_of(trials, results_first(trials, slots), slots)
    assert took <= longest_first + max(lengths) / 2  # that of the cheapest first can be a whole length later


def test_one_very_long_trial_begins_early_enough() -> None:
    trials = [*(OrderedTrial(n, 1.0) for n in range(30)), OrderedTrial("long", 20.0), OrderedTrial("short", 0.5)]
    order = results_first(trials, 4)
    assert end_of(trials, order, 4) == 20.0 == makespan([t.length for t in trials], 4)
    assert order[-1] != 30
    assert order[0] == 30  # it is as long as all else in four places
    assert order[1] == 31  # beside it, the cheapest task


def test_what_is_left_of_a_task_that_was_begun_comes_first() -> None:
    whole = [OrderedTrial("whole", 1.0) for _ in range(9)]
    order = results_first([*whole, OrderedTrial("begun", 2.0), *whole, *whole], 1)
    assert order[0] == 9


def test_students_follow_the_teachers_of_their_own_task() -> None:
    """The students of the first task come before the teachers of the second, and no student before its teacher."""
    trials = []
    for task in range(20):
        trials += [OrderedTrial(task, 3.0 + task, teaches=True)]
        trials += [OrderedTrial(task, 1.0 + task, waits_for=(len(trials) - 1,)) for _ in range(3)]
    for slots in (1, 2):
        order = results_first(trials, slots)
        place = {position: i for i, position in enumerate(order)}
        assert all(place[t] < place[i] for i, trial in enumerate(trials) for t in trial.waits_for)
        assert max(place[i] for i in range(4)) <= 4  # by two, one teacher of the next task while the first trains
    assert results_first(trials, 1)[:4] == [0, 1, 2, 3]


def test_a_chain_of_teacher_and_student_counts_as_one_length() -> None:
    """A short teacher with a long student must begin early, though it is cheap itself."""
    filling = [OrderedTrial(n, 1.0) for n in range(20)]
    trials = [*filling, OrderedTrial("chain", 5.0, teaches=True), OrderedTrial("chain", 5.0, waits_for=(20,))]
    order = results_first(trials, 3)
    assert order.index(20) < 4


SPACE = """\
description: nine cells
data: {num_bags: [500, 50, 100], mean_bag_size: 3, test_bags: 20}
teacher: {steps: 4, eval_every: 2, feature_width: 8}
methods:
  all: {teacher: {lambda_adv: 1.0, lambda_noise: 1.0}}
  none: {}
  unlabelled: {data: {unlabelled_bags: 50}, teacher: {lambda_adv: 0.1}}
replicates: 2
"""


def test_a_study_that_is_stopped_has_whole_columns(tmp_path: Path) -> None:
    """Arms of one n come together, also an arm with a data key of its own, and small n come first."""
    path = tmp_path / "mine.yaml"
    path.write_text(SPACE)
    study = prepare_study(RunOptions(str(path), root=str(tmp_path / "runs")))
    requests, weights = make_trial_requests(study, 2, "code")
    assert len(requests) == len(weights) == 9
    bags = [request.sections["data"]["num_bags"] for request in requests]
    assert bags[:3] == [50, 50, 50]
    assert requests[0].label.startswith("none")


def student_study(tmp_path: Path, num_bags: str, more: str = "") -> PreparedStudy:
    """A study of a teacher and its student at each n."""
    path = tmp_path / "mine.yaml"
    path.write_text(
        f"description: pairs\ndata: {{num_bags: {num_bags}, mean_bag_size: 3, test_bags: 20}}\n"
        "teacher: {steps: 4, eval_every: 2, feature_width: 8}\nstudent: {steps: 4, eval_every: 2, feature_width: 8}\n"
        f"teachers: {{none: {{}}}}\nmethods: {{student: {{}}}}\nreplicates: 2\n{more}"
    )
    return prepare_study(RunOptions(str(path), root=str(tmp_path / "runs")))


def test_a_student_study_gives_students_of_the_first_task_before_teachers_of_the_last(tmp_path: Path) -> None:
    study = student_study(tmp_path, "[6, 60, 600]")
    requests, _ = make_trial_requests(study, 1, "code")
    told = [(request.stage, request.sections["data"]["num_bags"]) for request in requests]
    assert told[:2] == [("teacher", 6), ("student", 6)]
    for position, request in enumerate(requests):
        assert set(request.teachers) <= {earlier.config_id for earlier in requests[:position]}


def test_trials_of_several_configurations_come_results_first_and_end_together(tmp_path: Path) -> None:
    """`vat_grid` in stacks of 280 runs, four at a time: small K first, and no long stack alone at the end."""
    options = RunOptions("vat_grid", root=str(tmp_path), replicates=20, overrides=("resources.pack=280",))
    study = prepare_study(options)
    requests, _ = make_trial_requests(study, 4, "code")
    trials = trials_of(study, requests, 4)
    assert len(trials) < 30
    assert sorted(r.config_id for trial in trials for r in trial) == sorted(r.config_id for r in requests)
    sizes = [{request.sections["data"]["mean_bag_size"] for request in trial} for trial in trials]
    assert sizes[:4] == [{10.0}] * 4
    by_id = {c.config_id: c for c in study.plan.configurations}
    lengths = [
        OrderedTrial(
            0, sum(predicted_seconds(by_id[r.config_id], study.space.resources, 280) * len(r.replicates) for r in trial)
        )
        for trial in trials
    ]
    mean_load = sum(trial.length for trial in lengths) / 4
    assert end_of(lengths, range(len(lengths)), 4) < 1.15 * mean_load  # 1.3 as the first of their requests stood


def test_packed_students_come_after_their_teachers(tmp_path: Path) -> None:
    study = student_study(tmp_path, "[6, 60]", "resources: {pack: 8}\n")
    requests, _ = make_trial_requests(study, 1, "code")
    trials = trials_of(study, requests, 1)
    assert [len(trial) for trial in trials] == [2, 1, 1]
    assert [trial[0].stage for trial in trials] == ["teacher", "student", "student"]
