"""Ray Tune as the scheduler of trials: one searcher of ours hands out orders, one callback hears of them.

Tune keeps nothing that matters: its experiment state goes to a temporary folder and away. Results are in the
ledger, committed by the workers; a resumed study is a fresh Tuner over what is missing (decision 3).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from d2l_study.errors import ROOT_ERRORS, UserError, first_line
from d2l_study.study import ray_token
from d2l_study.study.address import find_head
from d2l_study.study.queue import OrderQueue
from d2l_study.study.resources import Resources
from d2l_study.study.trial import TrialOrder

if TYPE_CHECKING:
    from d2l_study.study.prepared import Request


class Watcher(Protocol):
    """Hears of trials, in the driver. `blocked`: an order will not be run, since a teacher it needs has failed;
    `lost`: an order's worker, node or memory failed, and what is returned is to be run in its place; `root_lost`: the
    root of results takes or gives nothing more."""

    def started(self, order: TrialOrder) -> None: ...
    def reported(self, order: TrialOrder, step: int, values: Mapping[int, Mapping[str, float]]) -> None: ...
    def ended(self, order: TrialOrder) -> None: ...
    def lost(self, order: TrialOrder, log: str) -> Sequence[TrialOrder]: ...
    def blocked(self, order: TrialOrder) -> None: ...
    def root_lost(self, error: OSError) -> None: ...


def quiet_environment() -> None:
    """Before Ray is imported: no telemetry unless the user asked for it, no boxes, no per-trial log writers."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "1",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "1e9",  # its state, which nobody reads, grows with the trials
        "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    }.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Ray, started here on loopback (`local`) or joined (`auto`, `HOST:PORT`); what was started here is ended here."""
    quiet_environment()
    if (wide := ray_token.warning()) is not None:
        print(f"warning: {wide}", file=sys.stderr, flush=True)
    with ray_token.own_token() if address == "local" else contextlib.nullcontext():
        yield from _cluster(address)


def _cluster(address: str) -> Iterator[Any]:
    if address == "local":
        # On loopback only, which `_node_ip_address` alone does not give: Ray replaces 127.0.0.1 by the machine's own
        # address unless it believes that clusters are unsupported here. It reads this when it is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    place = find_head(address)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        # Never whatever cluster the temp folder remembers.
        options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        options["address"] = place
    try:
        ray.init(**options)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        reason = first_line(error)
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({reason}); start one, or use --address local"
        ) from None
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures of trials are told by us, once
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        shut_down(ray)


def shut_down(ray: Any) -> None:
    """End Ray with no garbage of its own left to be found meanwhile.

    Tune leaves cycles that hold object references. If the collector, which runs in whatever thread allocates (that of
    MLflow, say), finds them while Ray is ending, Ray ends the whole process, with exit code 1.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()


def check_fits(resources: Resources, cpus: float, gpus: float) -> int:
    """How many trials fit side by side on so much; `UserError` if not one does."""
    count = resources.slots(cpus, gpus)
    if count < 1:
        raise UserError(
            f"resources: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; "
            f"there are {cpus:g} and {gpus:g}"
        )
    return count


def slots(ray: Any, resources: Resources, request: Request) -> int:
    """How many trials to run side by side: what fits on the cluster as it is, at most `max_concurrent`.

    A cluster that starts its nodes on demand has none yet: then it is `max_concurrent`, for which it will grow.
    `UserError` if not one trial fits and that is not given.
    """
    there = ray.cluster_resources()
    cpus, gpus = float(there.get("CPU", 0)), float(there.get("GPU", 0))
    if request.address == "local":
        fits = check_fits(resources, cpus, gpus)
        return min(fits, request.max_concurrent or fits)
    fits = resources.slots(cpus, gpus)
    if fits < 1 and request.max_concurrent is None:
        raise UserError(
            f"--address {request.address}: a trial asks for {resources.cpus:g} CPUs and {resources.gpus:g} GPUs; the "
            f"cluster has {cpus:g} and {gpus:g} now. If it starts nodes on demand, say how many trials at a time it "
            "shall grow for: --max-concurrent N"
        )
    return request.max_concurrent or fits


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

    from d2l_study.study.nodes import ensure_seen
    from d2l_study.study.trial import run_trial

    order = TrialOrder.from_dict(config["order"])
    ensure_seen(order)
    reports = Reports(tune.report, config["pause"])
    try:
        statuses = run_trial(order, reports)
    except Exception:
        reports.flush()
        raise
    reports.flush(statuses={str(r): status for r, status in statuses.items()})


Judge = Callable[[TrialOrder, int, Mapping[int, Mapping[str, float]]], bool]
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

    by_trial: dict[str, TrialOrder] = {}

    class OrderSearcher(Searcher):
        """Hands out the orders; Tune's trial ids mean nothing beyond this run."""

        def __init__(self) -> None:
            super().__init__(metric="step", mode="max")

        def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
            if ending is not None and ending.is_set():
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
            if judge is None or order is None:
                return FIFOScheduler.CONTINUE
            late = any(judge(order, step, values) for step, values in _points_of(result))
            return FIFOScheduler.STOP if late else FIFOScheduler.CONTINUE

        def __reduce__(self) -> tuple[Any, ...]:
            return (FIFOScheduler, ())

    class Hearing(tune.Callback):
        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.Callback, ())  # Tune pickles its callbacks into a state that nobody reads

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            watcher.started(by_trial[trial.trial_id])

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            for step, values in _points_of(result):
                watcher.reported(by_trial[trial.trial_id], step, values)

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            with told(watcher):
                queue.settled(by_trial[trial.trial_id])
                watcher.ended(by_trial[trial.trial_id])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            order = by_trial[trial.trial_id]
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
            return ending is not None and ending.is_set()

        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.stopper.NoopStopper, ())

    with tempfile.TemporaryDirectory(prefix="d2l_study-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(train_in_worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=OrderSearcher(), scheduler=Ending(), num_samples=-1, max_concurrent_trials=concurrent,
                reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="study", storage_path=scratch, callbacks=[Hearing()], verbose=0, log_to_file=False,
                stop=Ender(), failure_config=tune.FailureConfig(max_failures=0),  # `losses` decides
            ),
        )  # fmt: skip
        tuner.fit()


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
