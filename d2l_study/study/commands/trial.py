"""`trial`: run one trial in this process, under a debugger if wished."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from d2l_study.device_errors import ON_PROCESSOR, gpu_errors_in_a_line
from d2l_study.study.commands.recorded_trial import (
    check_committed,
    find_configuration,
    find_device,
    is_in_a_study,
    request_for_record,
    use_recorded_settings,
)
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.trial import compute_runs, run_trial


def run_recorded_trial(identity: str, replicates: list[int] | None, root: str, weights: bool = False) -> int:
    """Run a trial in this process, where a debugger can follow it, on the GPU if its study used one and one is here.
    Returns the exit code: 1 if a run is not done.

    replicates: None runs those that the ledger knows. Runs that are done are not run again; with `weights` those are
    whose weights were not kept. A run that is committed as failed is run again to show its failure, and stays failed.
    """
    storage = open_storage(root)
    config = find_configuration(storage, identity)
    ledger = Ledger(storage)
    known = [int(name[1:]) for name in storage.list(ledger.config_key(config)) if name[1:].isdecimal()]
    request = request_for_record(ledger, config, replicates or known or [0])
    print(f"trial {trial_id(config)} ({request.stage}), replicates {', '.join(map(str, request.replicates))}")
    folder = StudyFolder(storage, request.study)

    def report(step: int, values: Any) -> None:
        print(f"  step {step}: {_report_text(values)}", flush=True)

    there = {r: record["row"] for r in request.replicates if (record := ledger.read(config, r)) is not None}
    if not_in_a_study := not is_in_a_study(ledger, request):
        check_committed(ledger, request, there)
    for replicate in [r for r in there if weights and not ledger.has_weights(config, r)]:
        use_recorded_settings(request, there.pop(replicate))
    left = [r for r in request.replicates if r not in there]
    again = [r for r, row in there.items() if row["status"] != "done"]
    if (left or again) and (device := find_device(request)):
        print(f"  {device}", flush=True)
    for replicate, row, _ in compute_runs(request, again, folder, report):  # what it computes is not committed
        print(f"  r{replicate:03d}: {row['status']} again" + (f": {row['cause']}" if row["cause"] else ""))
    for replicate in there.keys() - set(again):
        print(f"  r{replicate:03d}: done already; `reproduce {trial_id(config)}` trains it again and compares")
    if not left:
        return int(bool(again))
    request = dataclasses.replace(request, replicates=tuple(left))
    with gpu_errors_in_a_line(ON_PROCESSOR):
        statuses = run_trial(request, report)
    for replicate, status in statuses.items():
        record, failure = folder.ledger.read(config, replicate), folder.failure(config, replicate)
        reason = record["row"].get("cause") if record else _failure_text(failure or {})
        print(f"  r{replicate:03d}: {status}" + (f": {reason}" if status != "done" and reason else ""))
        if not_in_a_study and failure:
            folder.clear_failure(config, replicate)  # a folder without a plan would stop `gc`
    return int(bool(again) or any(status != "done" for status in statuses.values()))


def _failure_text(failure: dict[str, Any]) -> str:
    """The log of a failure, and only its cause where that is a mistake of the user's."""
    log, cause = str(failure.get("log", "")), str(failure.get("cause", ""))
    return cause if f"UserError: {cause}" in log else log


def _report_text(values: Any) -> str:
    parts = []
    for replicate, found in values.items():
        shown = {k: round(v, 4) for k, v in found.items() if k in ("train_loss", "val_bag_auc", "val_distill_loss")}
        parts.append(f"r{replicate:03d} {json.dumps(shown)}")
    return "  ".join(parts)
