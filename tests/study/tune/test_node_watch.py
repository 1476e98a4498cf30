"""Ray's only node is gone, stopped or silent: the study is ended, and told why; otherwise it is left alone."""

import threading
import time

import pytest

from d2l_study.study.tune import node_watch, processes
from d2l_study.study.tune.node_watch import LOST, SILENT, STOPPED, node_watched


class Ray:
    def __init__(self, *answers):
        self.answers, self.asked = list(answers), threading.Semaphore(0)

    def nodes(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.asked.release()
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, threading.Event):
            answer.wait()
        return [{"Alive": alive} for alive in answer] if isinstance(answer, list) else []


class Told:
    def __init__(self):
        self.reasons, self.told = [], threading.Event()

    def __call__(self, reason):
        self.reasons.append(reason)
        self.told.set()


@pytest.fixture
def states(monkeypatch):
    """Of the two processes of a node, at each look; the last stays."""
    found = [["running", "running"]]
    monkeypatch.setattr(processes, "children_named", lambda *names: [0, 1])
    monkeypatch.setattr(
        processes, "process_state", lambda part: (found.pop(0) if part and len(found) > 1 else found[0])[part]
    )
    return found


def test_a_lost_node_ends_the_study_once(states):
    told = Told()
    with node_watched(Ray([True], ConnectionError("busy"), [True, False], [False]), told, 0.001):
        assert told.told.wait(20)
    assert told.reasons == [LOST] and node_watch.lost.is_set()


def test_a_node_that_lives_ends_nothing(states):
    ray, told = Ray([True, False]), Told()
    with node_watched(ray, told, 0.001):
        for _ in range(3):
            assert ray.asked.acquire(timeout=20)
    assert not told.reasons and not node_watch.lost.is_set()
    for thread in [one for one in threading.enumerate() if one.name == "node-watch"]:
        thread.join(20)  # it ends soon after, and on a busy machine not at once
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("found", "reason"), [(["running", "ended"], LOST), (["ended", "running"], LOST), (["stopped", "running"], STOPPED)]
)
def test_a_process_of_ray_that_is_gone_or_stopped_ends_the_study(states, found, reason):
    states[:] = [["running", "running"], found]
    told = Told()
    with node_watched(Ray([True]), told, 0.001):
        assert told.told.wait(20)
    assert told.reasons == [reason]


def test_a_process_that_was_stopped_for_a_moment_ends_nothing(states):
    few = [["stopped", "stopped"]] * (node_watch.STOPPED_CHECKS - 1)
    states[:] = [*few, ["running", "running"], *few, ["running", "running"]]
    told = Told()
    with node_watched(Ray([True]), told, 0.001):
        while len(states) > 1:
            time.sleep(0.01)
    assert not told.reasons


@pytest.mark.parametrize("answer", [threading.Event(), ConnectionError("away")])
def test_a_cluster_that_never_answers_ends_the_study(states, answer):
    told = Told()
    with node_watched(Ray(answer), told, 0.01, silent=0.2):
        assert told.told.wait(20)
    assert told.reasons == [SILENT]
    if isinstance(answer, threading.Event):
        answer.set()
