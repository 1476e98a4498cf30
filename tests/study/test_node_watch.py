"""The only Ray node is gone: the study is ended, and told why; otherwise it is left alone."""

import threading

from d2l_study.study.node_watch import LOST, node_watched


class Ray:
    def __init__(self, *answers):
        self.answers, self.asked = list(answers), threading.Semaphore(0)

    def nodes(self):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.asked.release()
        if isinstance(answer, Exception):
            raise answer
        return [{"Alive": alive} for alive in answer]


def test_a_lost_node_ends_the_study_once():
    reasons, told = [], threading.Event()

    def end(reason):
        reasons.append(reason)
        told.set()

    with node_watched(Ray([True], ConnectionError("busy"), [True, False], [False]), end, 0.001):
        assert told.wait(20)
    assert reasons == [LOST]


def test_a_node_that_lives_ends_nothing():
    ray, reasons = Ray([True, False]), []
    with node_watched(ray, reasons.append, 0.001):
        for _ in range(3):
            assert ray.asked.acquire(timeout=20)
    assert not reasons
    assert not any(thread.name == "node-watch" for thread in threading.enumerate())
