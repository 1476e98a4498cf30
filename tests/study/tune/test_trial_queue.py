"""Teachers before students: which trial comes when, and what a failed teacher means."""

import pytest
from make_trial_request import make_trial_request

from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.tune.trial_queue import TrialQueue


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(LocalStorage(tmp_path), "s")


def make(folder, name, replicates=(0, 1), teachers=()):
    import dataclasses

    base = make_trial_request(folder.storage.root, replicates=replicates)
    return dataclasses.replace(base, config_id=name * 20, label=name, teachers=tuple(t * 20 for t in teachers))


def commit(folder, name, replicates=(0, 1), status="done", cause=None):
    for r in replicates:
        folder.ledger.commit(name * 20, r, {"status": status, "cause": cause}, {})


def test_a_student_waits_for_its_teacher_and_others_do_not_wait_for_it(folder):
    teacher, student = make(folder, "t"), make(folder, "s", teachers="t")
    other = make(folder, "o")
    queue = TrialQueue([(student,), (teacher,), (other,)], folder)
    assert queue.next() == (teacher,)
    assert queue.next() == (other,)  # no barrier
    assert queue.next() is None and len(queue) == 1
    commit(folder, "t")
    queue.trial_ended(teacher)
    assert queue.next() == (student,)
    assert queue.next() is None and len(queue) == 0


def test_a_teacher_that_is_there_already_is_not_waited_for(folder):
    commit(folder, "t")
    queue = TrialQueue([(make(folder, "s", teachers="t"),)], folder)
    assert queue.next()[0].label == "s"


def test_every_member_of_an_ensemble_is_waited_for(folder):
    first, second = make(folder, "a"), make(folder, "b")
    queue = TrialQueue([(first,), (second,), (make(folder, "s", teachers="ab"),)], folder)
    assert [queue.next()[0].label, queue.next()[0].label] == ["a", "b"]
    commit(folder, "a")
    queue.trial_ended(first)
    assert queue.next() is None
    commit(folder, "b")
    queue.trial_ended(second)
    assert queue.next()[0].label == "s"


def test_a_student_of_a_failed_teacher_is_not_run_and_says_why(folder):
    teacher = make(folder, "t")
    queue = TrialQueue([(teacher,), (make(folder, "s", teachers="t"),)], folder)
    queue.next()
    commit(folder, "t", (0,))
    commit(folder, "t", (1,), "failed", "the training loss became nan")
    queue.trial_ended(teacher)
    assert queue.next()[0].replicates == (0,)  # each replicate for itself
    assert folder.failure("s" * 20, 0) is None
    cause = folder.failure("s" * 20, 1)["cause"]
    assert cause.startswith("its teacher tttttttttt r001 failed") and "loss became nan" in cause


def test_a_trial_without_any_teacher_left_is_blocked(folder):
    teacher = make(folder, "t")
    queue = TrialQueue([(teacher,), (make(folder, "s", teachers="t"),), (make(folder, "u", teachers="s"),)], folder)
    queue.next()
    folder.write_failure("t" * 20, 0, {"cause": "ValueError: no"})
    folder.write_failure("t" * 20, 1, {"cause": "ValueError: no"})
    queue.trial_ended(teacher)
    assert queue.next() is None and len(queue) == 0
    assert [blocked.label for blocked in queue.blocked] == ["s", "u"]  # and those that wait for it in turn
    assert "ValueError: no" in folder.failure("s" * 20, 1)["cause"]
