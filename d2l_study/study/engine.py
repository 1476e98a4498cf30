"""Ray Tune as the scheduler of trials: one searcher of ours hands out orders, one callback hears of them.

Tune keeps nothing that matters: its experiment state goes to a temporary folder and away. Results are in the
ledger, committed by the workers; a resumed study is a fresh Tuner over what is missing (decision 3).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from d2l_study.errors import UserError
from d2l_study.study.queue import OrderQueue
from d2l_study.study.resources import Resources
from d2l_study.study.trial import TrialOrder

if TYPE_CHECKING:
    from d2l_study.study.run import Request


class Watcher(Protocol):
    """Hears of trials, in the driver. `blocked`: an order will not be run, since a teacher it needs has failed."""

    def started(self, order: TrialOrder) -> None: ...
    def reported(self, order: TrialOrder, step: int, values: Mapping[int, Mapping[str, float]]) -> None: ...
    def ended(self, order: TrialOrder) -> None: ...
    def lost(self, order: TrialOrder, cause: str, log: str) -> None: ...
    def blocked(self, order: TrialOrder) -> None: ...


def _quiet_environment() -> None:
    """Before Ray is imported: no telemetry unless the user asked for it, no boxes, no per-trial log writers."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_DEDUP_LOGS": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        "TUNE_MAX_PENDING_TRIALS_PG": "auto",
    }.items():
        os.environ.setdefault(name, value)


def check_address(address: str) -> None:
    """`UserError` within seconds if nothing listens where a named cluster should be."""
    if address in ("local", "auto"):
        return
    host, _, port = address.rpartition(":") if ":" in address else (address, "", "6379")
    try:
        with socket.create_connection((host, int(port)), timeout=5):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--address {address}: no Ray cluster answers at {host}:{port} ({reason}); "
            "expected local, auto, or the HOST[:PORT] of a Ray head"
        ) from None


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Ray, started here on loopback (`local`) or joined (`auto`, `HOST:PORT`); what was started here is ended here."""
    _quiet_environment()
    if address == "local":
        # On loopback only, which `_node_ip_address` alone does not give: Ray replaces 127.0.0.1 by the machine's own
        # address unless it believes that clusters are unsupported here. It reads this when it is imported.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if address == "local":
        # Never whatever cluster the temp folder remembers.
        options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        options |= {"address": address if address == "auto" or ":" in address else f"{address}:6379"}
    try:
        ray.init(**options)
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({reason}); start one, or use --address local"
        ) from None
    for name in ("ray.tune", "ray.train", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield ray
    finally:
        ray.shutdown()


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


def train_in_worker(config: dict[str, Any]) -> None:
    """What a Tune worker runs."""
    from ray import tune

    from d2l_study.study.trial import run_trial

    def report(step: int, values: Mapping[int, Mapping[str, float]]) -> None:
        tune.report({"step": step, "values": {str(r): dict(v) for r, v in values.items()}})

    statuses = run_trial(TrialOrder.from_dict(config["order"]), report)
    tune.report({"statuses": {str(r): status for r, status in statuses.items()}})


def run_orders(queue: OrderQueue, resources: Resources, concurrent: int, watcher: Watcher) -> None:
    """Run every order of the queue, `concurrent` at a time. Returns when all have ended or at Ctrl-C."""
    from ray import tune
    from ray.tune.search import Searcher

    by_trial: dict[str, TrialOrder] = {}

    class OrderSearcher(Searcher):
        """Hands out the orders; Tune's trial ids mean nothing beyond this run."""

        def __init__(self) -> None:
            super().__init__(metric="step", mode="max")

        def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
            order = queue.next()
            while queue.blocked:
                watcher.blocked(queue.blocked.pop())
            if order is None:
                return None if len(queue) else Searcher.FINISHED
            by_trial[trial_id] = order
            return {"order": order.to_dict()}

        def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None: ...

        # Tune saves its searcher too; ours is made anew from the ledger.
        def __reduce__(self) -> tuple[Any, ...]:
            return (Searcher, ())

        def save(self, checkpoint_path: str) -> None: ...

        def restore(self, checkpoint_path: str) -> None: ...

    class Hearing(tune.Callback):
        def __reduce__(self) -> tuple[Any, ...]:
            return (tune.Callback, ())  # Tune pickles its callbacks into a state that nobody reads

        def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            watcher.started(by_trial[trial.trial_id])

        def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
            if "values" in result and "statuses" not in result:
                values = {int(r): v for r, v in result["values"].items()}
                watcher.reported(by_trial[trial.trial_id], int(result["step"]), values)

        def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            queue.settled(by_trial[trial.trial_id])
            watcher.ended(by_trial[trial.trial_id])

        def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
            log = _error_text(trial)
            queue.settled(by_trial[trial.trial_id])
            watcher.lost(by_trial[trial.trial_id], _cause(log), log)

    with tempfile.TemporaryDirectory(prefix="d2l_study-tune-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(train_in_worker, {"cpu": resources.cpus, "gpu": resources.gpus}),
            tune_config=tune.TuneConfig(
                search_alg=OrderSearcher(), num_samples=-1, max_concurrent_trials=concurrent,
                reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="study", storage_path=scratch, callbacks=[Hearing()], verbose=0, log_to_file=False,
                failure_config=tune.FailureConfig(max_failures=resources.retries),
            ),
        )  # fmt: skip
        tuner.fit()


def _error_text(trial: Any) -> str:
    path = getattr(trial, "error_file", None)
    if path:
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    return ""


def _cause(log: str) -> str:
    """One line for people from Ray's long report of a lost worker."""
    low = log.lower()
    if "outofmemory" in low or "out of memory" in low:
        return "the worker ran out of memory"
    if "actordied" in low or "died unexpectedly" in low or "worker" in low:
        return "the worker process was lost"
    lines = [line for line in log.strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else "the worker was lost"
