"""Trials, run by Ray Tune: a queue of ours says which trial comes next, and a callback of ours follows them.

Tune keeps nothing that matters. Its experiment state goes to a temporary folder. Results are in the ledger, where the
workers commit them; a study that goes on is a new Tuner over what is missing.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from d2l_study.errors import ROOT_ERRORS
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.packed_trials import Trial
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune import cluster, node_watch
from d2l_study.study.tune.trial_queue import TrialQueue
from d2l_study.study.tune.worker import REPORT_SECONDS, curve_points, train_in_worker
from d2l_study.thread_calls import ThreadCall


class TrialCallback(Protocol):
    """What the driver does when something happens to a trial."""

    def on_trial_start(self, request: TrialRequest) -> None:
        """A worker has begun the trial. Of a packed trial each request has events of its own."""

    def on_trial_report(self, request: TrialRequest, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        """A point of the trial's curves has come: optimizer step, and replicate -> values by name."""

    def on_trial_warning(self, text: str) -> None:
        """A worker warns of something that makes training slow."""

    def on_trial_end(self, request: TrialRequest) -> None:
        """The trial has ended: each of its runs is committed, or marked as failed or pruned."""

    def on_trial_lost(self, trial: Trial, log: str) -> Sequence[Trial]:
        """The trial's worker, node or memory was lost; log: Ray's report. Returns what to run in its place.

        trial: the requests that had not ended."""

    def on_trial_blocked(self, request: TrialRequest) -> None:
        """The trial will not be run, since a teacher that it needs has failed."""

    def on_root_error(self, error: OSError) -> None:
        """The root of results takes or gives nothing more."""


EarlyStoppingRule = Callable[[TrialRequest, int, Mapping[int, Mapping[str, float]]], bool]
"""(request, optimizer step, replicate -> values by name) of each report -> whether the trial is to be ended early."""

STOP_SECONDS, LOST_SECONDS = 60.0, 3.0
"""How long trials at work may take to end when the study is to stop; and where there is no Ray any more to end them."""


def run_trials(
    queue: TrialQueue, resources: Resources, concurrent: int, callback: TrialCallback,
    early_stopping: EarlyStoppingRule | None = None, stop_requested: threading.Event | None = None,
) -> None:  # fmt: skip
    """Run every trial of the queue, `concurrent` at a time.

    Returns when all have ended, at Ctrl-C, or soon after `stop_requested` was set. Trials at work are then ended; the
    next command takes them up at their last checkpoint. early_stopping: None trains every trial to its end.
    """
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher

    given: dict[str, Trial] = {}
    """By Tune's trial id, which means nothing beyond this call."""
    open_requests: dict[str, list[TrialRequest]] = {}
    """Those of a trial that have not ended."""
    stop = stop_requested or threading.Event()
    left_behind = threading.Event()
    """Set when Tune did not end in time. What it says from then on is ignored."""

    class QueueSearcher(Searcher):
        """Gives Tune the trials of the queue."""

        def __init__(self) -> None:
            super().__init__(metric="step", mode="max")

        def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
            if stop.is_set() or left_behind.is_set():
                return Searcher.FINISHED
            trial = None
            with root_errors_reported(callback):
                trial = queue.next()
                while queue.blocked:
                    callback.on_trial_blocked(queue.blocked.pop())
            if trial is None:
                return Searcher.FINISHED if queue.idle else None
            given[trial_id], open_requests[trial_id] = trial, list(trial)
            pause = REPORT_SECONDS if early_stopping is None else 0.0
            return {"requests": [request.to_dict() for request in trial], "pause": pause}

        def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None: ...

        # Tune saves its searcher too; ours is made anew from the ledger.
        def __reduce__(self) -> tuple[Any, ...]:
            return (Searcher, ())

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    class EarlyStoppingScheduler(FIFOScheduler):
        """Ends trials by our rule. Tune's own schedulers compare single values of single trials; ours are means over
        replicates, compared within an arm."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
            own = given.get(trial.trial_id)
            if early_stopping is None or own is None or left_behind.is_set():
                return FIFOScheduler.CONTINUE
            ended = any(early_stopping(own[number], step, values) for number, step, values in curve_points(result))
            return FIFOScheduler.STOP if ended else FIFOScheduler.CONTINUE

        def __reduce__(self) -> tuple[Any, ...]:
            return (FIFOScheduler, ())

    class TuneCallback(tune.Callback):
        """Passes Tune's events on to the queue and to our callback."""

        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.Callback, ())  # Tune pickles its callbacks into a state that nobody reads

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            for request in given[trial.trial_id] if not left_behind.is_set() else ():
                callback.on_trial_start(request)

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if left_behind.is_set():
                return
            own = given[trial.trial_id]
            for number, step, values in curve_points(result):
                callback.on_trial_report(own[number], step, values)
            for text in result.get("warnings", ()):
                callback.on_trial_warning(text)
            for number in result.get("ended", ()):
                end(trial.trial_id, own[number])

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            for request in list(open_requests[trial.trial_id]) if not left_behind.is_set() else ():
                end(trial.trial_id, request)

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            if left_behind.is_set():
                return
            left = tuple(open_requests[trial.trial_id])
            with root_errors_reported(callback):
                retries = callback.on_trial_lost(left, _error_text(trial))  # writes the failure that the queue reads
                queue.lost(left, retries)

    def end(trial_id: str, request: TrialRequest) -> None:
        """A request of a trial has ended."""
        open_requests[trial_id].remove(request)
        with root_errors_reported(callback):
            queue.trial_ended(request)
            callback.on_trial_end(request)

    class StudyStopper(tune.Stopper):
        """Ends all trials when the study is to stop."""

        def __call__(self, trial_id: str, result: dict) -> bool:
            return False

        def stop_all(self) -> bool:
            return stop.is_set() or left_behind.is_set()

        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.stopper.NoopStopper, ())

    tuner = tune.Tuner(
        tune.with_resources(train_in_worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=QueueSearcher(), scheduler=EarlyStoppingScheduler(), num_samples=-1,
            max_concurrent_trials=concurrent, reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="study", storage_path=cluster.tune_folder(), callbacks=[TuneCallback()], verbose=0, log_to_file=False,
            stop=StudyStopper(), failure_config=tune.FailureConfig(max_failures=0),  # `retries` decides
        ),
    )  # fmt: skip
    run_until_stopped(tuner.fit, stop, left_behind)


def run_until_stopped(work: Callable[[], Any], stop: threading.Event, left_behind: threading.Event) -> None:
    """Run Tune, and wait for its end. What it raises is raised.

    Ctrl-C sets `stop`. Once `stop` is set, Tune has `STOP_SECONDS` to end, and `LOST_SECONDS` where Ray is lost or at
    a second Ctrl-C. If it has not ended then, `left_behind` is set, and this process has to end by force
    (`thread_calls.abandoned`).
    """
    call = ThreadCall(work, "tune")
    stopping_since, interrupts, ended = None, 0, False
    while not ended:
        try:
            ended = call.ended(0.2)
            stopping_since = stopping_since or (time.monotonic() if stop.is_set() else None)
            seconds = LOST_SECONDS if interrupts > 1 or node_watch.lost.is_set() else STOP_SECONDS
            if stopping_since is not None and time.monotonic() - stopping_since > seconds and not ended:
                left_behind.set()
                call.abandon()
                break
        except KeyboardInterrupt:
            interrupts += 1
            stop.set()
    if interrupts:
        raise KeyboardInterrupt
    if not left_behind.is_set():
        call.raise_error()


@contextlib.contextmanager
def root_errors_reported(callback: TrialCallback) -> Iterator[None]:
    """Give errors of the root of results to the callback. Tune would take them for errors of the trial."""
    try:
        yield
    except ROOT_ERRORS as error:
        callback.on_root_error(error)


def _error_text(trial: Any) -> str:
    path = getattr(trial, "error_file", None)
    if path:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    return ""
