"""One trial: the missing replicates of one configuration, trained in lockstep and committed by whoever trained them.

Knows the ledger, not Ray: `run_trial` is what a Tune worker runs, and what a debugger can step through.
"""

from __future__ import annotations

import datetime
import io
import json
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from d2l_study.data import DATASETS, Pool, Replicate
from d2l_study.errors import UserError
from d2l_study.learning.config import TeacherConfig
from d2l_study.study.folder import StudyFolder
from d2l_study.study.ledger import trial_id
from d2l_study.study.storage import LocalStorage

if TYPE_CHECKING:
    from d2l_study.learning.teacher import FittedTeacher

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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrialOrder:
        return cls(**{**values, "replicates": tuple(values["replicates"])})


def run_trial(order: TrialOrder, report: Report | None = None) -> dict[int, str]:
    """Train, evaluate and commit the order's runs that are not committed yet.

    Returns each run's status: `done`, or `failed`. An exception is kept as the failure of its runs and not raised:
    it would come again. Out of memory is raised, for the caller to try again.
    """
    folder = StudyFolder(LocalStorage(order.root), order.study)
    missing = [r for r in order.replicates if not folder.ledger.has(order.config_id, r)]
    try:
        _train(order, missing, folder, report)
    except Exception as error:
        if out_of_memory(error):
            raise
        cause = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        failure = {"cause": cause.splitlines()[0] if cause else type(error).__name__,
                   "log": traceback.format_exc()[-LOG_TAIL:], "kind": "exception", "at": _now()}  # fmt: skip
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
    from d2l_study.learning.teacher import fit_teacher

    torch.set_num_threads(order.resources["threads"])
    device = order.resources["device"]
    if device == "auto":
        device = "cuda" if order.resources["gpus"] > 0 else "cpu"
    compute = Compute(device, order.resources["precision"])
    data = DATASETS[order.sections["data"]["dataset"]](**order.sections["data"])
    config = TeacherConfig(**order.sections["teacher"])
    pool = _pool(data)
    if pool.checksum != order.checksum:
        raise UserError(f"data set {pool.name}: checksum {pool.checksum} on this node; the study has {order.checksum}")
    ledger, identity = folder.ledger, order.config_id
    resume = {r: state for r in replicates if (state := ledger.load_checkpoint(identity, r)) is not None}
    problems = [data.replicate(pool, r, order.base_seed) for r in replicates]
    fitted = fit_teacher(
        config, problems, compute=compute, report=report,
        checkpoint=lambda replicate, state: ledger.save_checkpoint(identity, replicate, state),
        checkpoint_every=order.resources["checkpoint_every"], resume=resume,
    )  # fmt: skip
    for problem, result in zip(problems, fitted, strict=True):
        row, files = _results(order, problem, result, compute.device)
        ledger.write_config(identity, {"stage": order.stage, "sections": order.sections, "base_seed": order.base_seed,
                                       "data_checksum": order.checksum})  # fmt: skip
        ledger.commit(identity, result.replicate, row, files, attempt=uuid.uuid4().hex[:8])
        folder.clear_failure(identity, result.replicate)
        ledger.drop_checkpoint(identity, result.replicate)


@lru_cache(maxsize=2)
def _pool(data: Any) -> Pool:
    """The data set's pool; a worker that runs many trials maps it once."""
    return data.load_pool()


def _results(
    order: TrialOrder, problem: Replicate, result: FittedTeacher, device: str
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The committed row of one run and its files."""
    row = {
        "repeat": problem.repeat, "fold": problem.fold, "seed": order.base_seed, "status": result.status,
        "cause": result.cause, **result.metrics, "best_step": result.best_step, "steps_run": result.steps_run,
        "train_seconds": round(result.train_seconds, 3), "eval_seconds": round(result.eval_seconds, 3),
        "device": device, "precision": order.resources["precision"], "threads": order.resources["threads"],
        "code_version": order.code_version, "made_by": order.study, "committed_at": _now(),
    }  # fmt: skip
    files = {"curve.json": json.dumps(result.curve).encode()}
    if result.logits:
        files["predictions.parquet"] = _predictions(order.stage, problem, result)
    if order.keep_weights != "none" and result.params:
        from safetensors.torch import save

        files["weights.safetensors"] = save({k: v.contiguous().cpu() for k, v in result.params.items()})
    return row, files


def _predictions(stage: str, problem: Replicate, result: FittedTeacher) -> bytes:
    """Every logit with its label: replicate, stage, split, level, bag_index, index (into the pool), label, logit.

    Of a split's bags the label is the true one, before label noise; −1 (unknown) becomes null.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from d2l_study.learning.teacher import evaluation_sets

    tables = []
    for (split, level), bags in evaluation_sets(problem).items():
        count, bag = len(bags), level == "bag"
        label = bags.true_label
        tables.append(
            pa.table({
                "replicate": pa.array(np.full(count, problem.number, np.int32)),
                "stage": pa.array([stage] * count).dictionary_encode(),
                "split": pa.array([split] * count).dictionary_encode(),
                "level": pa.array([level] * count).dictionary_encode(),
                "bag_index": pa.array(np.arange(count, dtype=np.int32) if bag else np.full(count, -1, np.int32)),
                "index": pa.array(np.arange(count, dtype=np.int32) if bag else bags.instance.astype(np.int32)),
                "label": pa.array(label, mask=label < 0),
                "logit": pa.array(result.logits[split, level].astype(np.float32)),
            })
        )  # fmt: skip
    out = io.BytesIO()
    pq.write_table(pa.concat_tables(tables, promote_options="permissive"), out, compression="zstd")
    return out.getvalue()


def failure_of_worker(order: TrialOrder, cause: str, log: str) -> dict[str, Any]:
    """The failure record of a run whose worker was lost more often than the space allows."""
    return {
        "cause": cause,
        "log": log[-LOG_TAIL:],
        "kind": "worker",
        "at": _now(),
        "trial_id": trial_id(order.config_id),
    }


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
