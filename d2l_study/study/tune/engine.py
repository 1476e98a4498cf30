"""Ray Tune as the scheduler of trials: one searcher of ours hands out orders, one callback hears of them.

Tune keeps nothing that matters: its experiment state goes to a temporary folder and away. Results are in the
ledger, committed by the workers; a resumed study is a fresh Tuner over what is missing (decision 3).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from d2l_study import thread_calls
from d2l_study.errors import ROOT_ERRORS, UserError
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune import cluster, node_watch
from d2l_study.study.tune.queue import OrderQueue


class Watcher(Protocol):
    """Hears of trials, in the driver. `blocked`: an order will not be run, since a teacher it needs has failed;
    `lost`: an order's worker, node or memory failed, and what is returned is to be run in its place; `root_lost`: the
    root of results takes or gives nothing more."""

    def started(self, order: TrialRequest) -> None: ...
    def reported(self, order: TrialRequest, step: int, values: Mapping[int, Mapping[str, float]]) -> None: ...
    def ended(self, order: TrialRequest) -> None: ...
    def lost(self, order: TrialRequest, log: str) -> Sequence[TrialRequest]: ...
    def blocked(self, order: TrialRequest) -> None: ...
    def root_lost(self, error: OSError) -> None: ...


def check_fits(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials fit side by side on so much; `UserError` if not one does."""
    count = resources.slots(cpus, gpus)
    if count < 1:
        raise UserError(
            f"resources: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; "
            f"there are {cpus:g} and {gpus:g}"
        )
    return count


def slots(ray: Any, resources: Resources, address: str, max_concurrent: int | None) -> int:
    """How many trials to run side by side: what fits on the cluster as it is, at most `max_concurrent`.

    A cluster that starts its nodes on demand has none yet: then it is `max_concurrent`, for which it will grow.
    `UserError` if not one trial fits and that is not given.
    """
    there = ray.cluster_resources()
    cpus, gpus = float(there.get("CPU", 0)), float(there.get("GPU", 0))
    if address == "local":
        fits = check_fits(resources, cpus, gpus)
        return min(fits, max_concurrent or fits)
    fits = resources.slots(cpus, gpus)
    if fits < 1 and max_concurrent is None:
        raise UserError(
            f"--address {address}: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; the "
            f"cluster has {cpus:g} and {gpus:g} now. If it starts nodes on demand, say how many trials at a time it "
            "shall grow for: --max-concurrent N"
        )
    return max_concurrent or fits


Point = tuple[int, dict[str, dict[str, float]]]
"""Of a trial's curves: step, replicate as text -> values."""

REPORT_SECONDS = 1.0
"""Least time between two messages of a worker to the driver, to which a message costs more than the points in it."""


class Reports:
    """The points of a trial's curves on their way to the driver: at most one message in `pause` seconds."""

    def __init__(self, send: Callable[[dict[str, Any]], None], pause: float) -> None:
        self._send, self._pause, self._sent = send, pause, time.monotonic()
        self.points: list[Point] = []

    def __call__(self, step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        self.points.append((step, {str(r): dict(v) for r, v in values.items()}))
        if time.monotonic() - self._sent >= self._pause:
            self.flush()

    def flush(self, **more: Any) -> None:
        """Send what is left, and `more`."""
        if self.points or more:
            points, self.points = self.points, []
            self._send({"points": points, **more})
            self._sent = time.monotonic()


def train_in_worker(config: dict[str, Any]) -> None:
    """What a Tune worker runs."""
    from ray import tune

    from d2l_study.study.trial.trial import run_trial
    from d2l_study.study.tune.nodes import ensure_seen

    order = TrialRequest.from_dict(config["order"])
    ensure_seen(order)
    reports = Reports(tune.report, config["pause"])
    try:
        statuses = run_trial(order, reports)
    except Exception:
        reports.flush()
        raise
    reports.flush(statuses={str(r): status for r, status in statuses.items()})


ENDING_SECONDS, LOST_SECONDS = 60.0, 3.0
"""How long trials at work may take to end when the study is to end, and where there is no Ray any more to end them."""

Judge = Callable[[TrialRequest, int, Mapping[int, Mapping[str, float]]], bool]
"""Hears a report (step, replicate -> values); True ends the trial early."""


def run_orders(
    queue: OrderQueue, resources: Resources, concurrent: int, watcher: Watcher, judge: Judge | None = None,
    ending: threading.Event | None = None,
) -> None:  # fmt: skip
    """Run every order of the queue, `concurrent` at a time. Returns when all have ended, at Ctrl-C, or soon after
    `ending` was set: trials at work are then ended, and go on from their last checkpoint another time."""
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler
    from ray.tune.search import Searcher

    by_trial: dict[str, TrialRequest] = {}
    asked = ending or threading.Event()
    over = threading.Event()
    """Tune was left to itself: what it says now is not heard."""

    class OrderSearcher(Searcher):
        """Hands out the orders; Tune's trial ids mean nothing beyond this run."""

        def __init__(self) -> None:
            super().__init__(metric="step", mode="max")

        def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
            if asked.is_set() or over.is_set():
                return Searcher.FINISHED
            order = None
            with told(watcher):
                order = queue.next()
                while queue.blocked:
                    watcher.blocked(queue.blocked.pop())
            if order is None:
                return Searcher.FINISHED if queue.idle else None
            by_trial[trial_id] = order
            return {"order": order.to_dict(), "pause": REPORT_SECONDS if judge is None else 0.0}

        def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None: ...

        # Tune saves its searcher too; ours is made anew from the ledger.
        def __reduce__(self) -> tuple[Any, ...]:
            return (Searcher, ())

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    class Ending(FIFOScheduler):
        """Tune's schedulers compare single values of single trials; ours are means, compared within an arm."""

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict) -> str:
            order = by_trial.get(trial.trial_id)
            if judge is None or order is None or over.is_set():
                return FIFOScheduler.CONTINUE
            late = any(judge(order, step, values) for step, values in _points_of(result))
            return FIFOScheduler.STOP if late else FIFOScheduler.CONTINUE

        def __reduce__(self) -> tuple[Any, ...]:
            return (FIFOScheduler, ())

    class Hearing(tune.Callback):
        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.Callback, ())  # Tune pickles its callbacks into a state that nobody reads

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            if not over.is_set():
                watcher.started(by_trial[trial.trial_id])

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            for step, values in _points_of(result) if not over.is_set() else ():
                watcher.reported(by_trial[trial.trial_id], step, values)

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            if over.is_set():
                return
            with told(watcher):
                queue.settled(by_trial[trial.trial_id])
                watcher.ended(by_trial[trial.trial_id])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            order = by_trial[trial.trial_id]
            if over.is_set():
                return
            with told(watcher):
                again = watcher.lost(order, _error_text(trial))  # writes the failure that the queue then reads
                if again:
                    queue.again(again)
                else:
                    queue.settled(order)

    class Ender(tune.Stopper):
        def __call__(self, trial_id: str, result: dict) -> bool:
            return False

        def stop_all(self) -> bool:
            return asked.is_set() or over.is_set()

        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.stopper.NoopStopper, ())

    tuner = tune.Tuner(
        tune.with_resources(train_in_worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
        tune_config=tune.TuneConfig(
            search_alg=OrderSearcher(), scheduler=Ending(), num_samples=-1, max_concurrent_trials=concurrent,
            reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="study", storage_path=cluster.scratch(), callbacks=[Hearing()], verbose=0, log_to_file=False,
            stop=Ender(), failure_config=tune.FailureConfig(max_failures=0),  # `losses` decides
        ),
    )  # fmt: skip
    until_ended(tuner.fit, asked, over)


def until_ended(work: Callable[[], Any], ending: threading.Event, over: threading.Event) -> None:
    """Do Tune's work, and wait for its end; after `ending` was set, or Ctrl-C (which sets it), at most
    `ENDING_SECONDS`, and hardly at all where Ray is lost or at a second Ctrl-C. Work that has not ended then is left:
    `over` is set, and this process has to end by force (`thread_calls.abandoned`). What the work raises is raised."""
    call = thread_calls.ThreadCall(work, "tune")
    begun, interrupts, ended = None, 0, False
    while not ended:
        try:
            ended = call.ended(0.2)
            begun = begun or (time.monotonic() if ending.is_set() else None)
            seconds = LOST_SECONDS if interrupts > 1 or node_watch.lost.is_set() else ENDING_SECONDS
            if begun is not None and time.monotonic() - begun > seconds and not ended:
                over.set()
                thread_calls.abandoned.set()
                break
        except KeyboardInterrupt:
            interrupts += 1
            ending.set()
    if interrupts:
        raise KeyboardInterrupt
    if not over.is_set():
        call.raise_error()


@contextlib.contextmanager
def told(watcher: Watcher) -> Iterator[None]:
    """What a root that is lost raises is told, and not raised into Tune, which would take it for the trial's."""
    try:
        yield
    except ROOT_ERRORS as error:
        watcher.root_lost(error)


def _points_of(result: Mapping[str, Any]) -> Iterator[tuple[int, dict[int, dict[str, float]]]]:
    for step, values in result.get("points", ()):
        yield step, {int(r): v for r, v in values.items()}


def _error_text(trial: Any) -> str:
    path = getattr(trial, "error_file", None)
    if path:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    return ""
