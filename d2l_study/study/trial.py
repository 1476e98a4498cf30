"""One trial: the missing replicates of one configuration, trained in lockstep and committed by whoever trained them.

Knows the ledger, not Ray: `run_trial` is what a Tune worker runs, and what a debugger can step through.
"""

from __future__ import annotations

import datetime
import io
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from d2l_study.data import DATASETS, Pool
from d2l_study.errors import UserError
from d2l_study.study.folder import StudyFolder
from d2l_study.study.ledger import Ledger, trial_id
from d2l_study.study.stages import FITS, run_results
from d2l_study.study.storage import open_storage

Report = Callable[[int, Mapping[int, Mapping[str, float]]], None]

LOG_TAIL = 4000
"""Characters of a traceback that a failure keeps."""


@dataclass(frozen=True)
class TrialOrder:
    """All that a worker needs to know, as plain values."""

    root: str
    study: str
    config_id: str
    label: str
    stage: str
    sections: dict[str, dict[str, Any]]
    replicates: tuple[int, ...]
    base_seed: int
    checksum: str
    resources: dict[str, Any]
    keep_weights: str
    code_version: str
    teachers: tuple[str, ...] = ()

    @property
    def keeps_weights(self) -> bool:
        return self.keep_weights != "none"

    @property
    def steps(self) -> int:
        """Optimizer steps of each run."""
        if self.stage == "attention":
            return 0
        own = self.sections["teacher" if self.stage == "teacher" else "student"]
        return own["steps"] * own.get("generations", 1)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialOrder:
        return cls(**{**values, "replicates": tuple(values["replicates"]), "teachers": tuple(values["teachers"])})


def run_trial(order: TrialOrder, report: Report | None = None) -> dict[int, str]:
    """Train, evaluate and commit the order's runs that are not committed yet.

    Returns each run's status: `done`, or `failed`. An exception is kept as the failure of its runs and not raised:
    it would come again. Out of memory is raised, for the caller to try again.
    """
    folder = StudyFolder(open_storage(order.root), order.study)
    folder.ledger.write_config(order.config_id, {
        "stage": order.stage, "sections": order.sections, "base_seed": order.base_seed,
        "data_checksum": order.checksum, "teachers": order.teachers, "study": order.study,
    })  # fmt: skip
    with_weights = order.keep_weights == "all" and order.stage != "attention"
    there = folder.ledger.has_weights if with_weights else folder.ledger.has
    missing = [r for r in order.replicates if not there(order.config_id, r)]
    try:
        _train(order, missing, folder, report)
    except Exception as error:
        if out_of_memory(error):
            raise
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        failure = {"cause": cause.splitlines()[0] if cause else type(error).__name__,
                   "log": traceback.format_exc()[-LOG_TAIL:], "kind": "exception", "at": now()}  # fmt: skip
        for replicate in missing:
            if not folder.ledger.has(order.config_id, replicate):
                folder.write_failure(order.config_id, replicate, failure)
    return run_statuses(folder, order)


def run_statuses(folder: StudyFolder, order: TrialOrder) -> dict[int, str]:
    """The status of each of the order's runs: that of its committed row, else `failed`."""
    records = {r: folder.ledger.read(order.config_id, r) for r in order.replicates}
    return {r: record["row"]["status"] if record else "failed" for r, record in records.items()}


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or "out of memory" in str(error).lower()


def _train(order: TrialOrder, replicates: list[int], folder: StudyFolder, report: Report | None) -> None:
    if not replicates:
        return
    import torch

    from d2l_study.learning.prediction import Compute

    torch.set_num_threads(order.resources["threads"])
    device = order.resources["device"]
    if device == "auto":
        device = "cuda" if order.resources["gpus"] > 0 else "cpu"
    compute = Compute(device, order.resources["precision"])
    data = DATASETS[order.sections["data"]["dataset"]](**order.sections["data"])
    pool = _pool(data)
    if pool.checksum != order.checksum:
        raise UserError(f"data set {pool.name}: checksum {pool.checksum} on this node; the study has {order.checksum}")
    ledger, identity = folder.ledger, order.config_id
    problems = [data.replicate(pool, r, order.base_seed) for r in replicates]
    fitted = FITS[order.stage](order, problems, ledger, {
        "compute": compute, "report": report,
        "checkpoint": lambda replicate, state: ledger.save_checkpoint(identity, replicate, state),
        "checkpoint_every": order.resources["checkpoint_every"],
        "resume": _checkpoints(ledger, identity, replicates),
    })  # fmt: skip
    for problem, result in zip(problems, fitted, strict=True):
        row, files = run_results(order, problem, result, compute.device, now())
        again = ledger.has(identity, result.replicate)  # made again for its weights
        ledger.commit(identity, result.replicate, row, files, attempt=uuid.uuid4().hex[:8], replace=again)
        folder.clear_failure(identity, result.replicate)
        ledger.drop_checkpoint(identity, result.replicate)


def _checkpoints(ledger: Ledger, config: str, replicates: list[int]) -> dict[int, bytes]:
    """The checkpoints that can be read; a damaged one, or one of another version, costs its run a new start."""
    import torch

    found = {}
    for replicate in replicates:
        state = ledger.load_checkpoint(config, replicate)
        if state is None:
            continue
        try:
            torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)["step"]
        except Exception:  # torch, pickle and zipfile each raise their own
            ledger.drop_checkpoint(config, replicate)
        else:
            found[replicate] = state
    return found


@lru_cache(maxsize=2)
def _pool(data: Any) -> Pool:
    """The data set's pool; a worker that runs many trials maps it once."""
    return data.load_pool()


def failure_of_worker(order: TrialOrder, cause: str, log: str) -> dict[str, Any]:
    """The failure record of a run whose worker was lost more often than the space allows."""
    return {
        "cause": cause,
        "log": log[-LOG_TAIL:],
        "kind": "worker",
        "at": now(),
        "trial_id": trial_id(order.config_id),
    }


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
