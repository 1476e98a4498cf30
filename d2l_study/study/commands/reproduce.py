"""`reproduce`: train a committed run again from its record, and compare. The ledger is not changed."""

from __future__ import annotations

import io
import math
import shlex
from collections.abc import Mapping
from typing import Any

from d2l_study.device_errors import ON_PROCESSOR, gpu_errors_in_a_line
from d2l_study.errors import UserError
from d2l_study.learning.science_version import changes_of
from d2l_study.study.commands.recorded_trial import (
    find_configuration,
    find_device,
    is_stacked,
    kind_of_device,
    request_for_record,
    use_recorded_settings,
)
from d2l_study.study.ledger import provenance
from d2l_study.study.ledger.ledger import Ledger, config_id, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.run_files import PREDICTIONS
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import committed_replicates
from d2l_study.study.trial.rerun_differences import LOGIT_ROUNDING, ROUNDING, differing_results, largest_difference
from d2l_study.study.trial.stages import typed_sections
from d2l_study.study.trial.trial import compute_runs
from d2l_study.study.trial.trial_request import TrialRequest


@gpu_errors_in_a_line(ON_PROCESSOR)
def reproduce(identity: str, replicates: list[int] | None, root: str) -> int:
    """Train the committed runs of a trial again, on the device that they were trained on if it is here, and print how
    far they are from their record.

    Returns the exit code: 0 if all metrics and predictions are equal within rounding, else 1. On other hardware, and
    with other versions of torch, rounding differs, and long trainings magnify that. `UserError` if there is no record
    to compare with, `MachineError` where a GPU fails.
    """
    storage = open_storage(root)
    config = find_configuration(storage, identity)
    ledger = Ledger(storage)
    found = {r: ledger.read(config, r) for r in sorted(committed_replicates(ledger, config))}
    records = {r: record for r, record in found.items() if record is not None}
    missing = [r for r in replicates or [] if r not in records]
    if missing or not records:
        raise UserError(
            f"trial {identity!r}: replicate {', '.join(map(str, missing)) or 0} is not committed, so there is nothing "
            f"to compare with; committed: {', '.join(map(str, records)) or 'none'}"
        )
    chosen = list(dict.fromkeys(replicates or records))
    request = request_for_record(ledger, config, chosen)
    first = records[chosen[0]]["row"]
    use_recorded_settings(request, first)
    print(f"trial {trial_id(config)} ({request.stage}): as committed on {first['host']} by {first['code_version']}, "
          f"now {request.code_version}")  # fmt: skip
    if device := find_device(request):
        print(f"  {device}", flush=True)
    for what in _changed_since(request):
        print(f"  it was trained by an earlier version; since then {what}")
    same = True
    for replicate, row, files in compute_runs(request, chosen, StudyFolder(storage, request.study)):
        before = records[replicate]
        if row["status"] != before["row"]["status"]:
            same = False
            print(f"  r{replicate:03d}: {_status_text(before['row'], 'then')}, {_status_text(row, 'now')}")
            continue
        most = largest_difference(row, before["row"])
        logits = _logit_difference(ledger, config, replicate, files)
        differs = most > ROUNDING or (logits or 0.0) > LOGIT_ROUNDING
        same = same and not differs
        said = "identical" if most == 0 else f"metrics differ by at most {most:.3g}"
        if not differs and (most or logits):
            said = f"equal within rounding: {said}"
        said += (
            "; its predictions are not kept"
            if logits is None
            else ", predictions too"
            if logits == 0 == most
            else f", logits by {logits:.3g}"
        )
        if most or logits:
            said += _computed_otherwise(request, before["row"], row)
        print(f"  r{replicate:03d}: {said}")
        if differs and most:
            for name, (old, new) in differing_results(row, before["row"]).items():
                print(f"    {name}: {old} -> {new}")
    if not same:
        changed = provenance_changes(storage, str(first.get("made_by")))
        if changed:
            print(f"  it was made by: {shlex.join(changed)}")
    return 0 if same else 1


def _computed_otherwise(request: TrialRequest, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """In brackets, on which other device a run was computed then, and whether it was stacked; empty if on the same."""
    old, new = kind_of_device(then), kind_of_device(now)
    if old == new:
        return ""
    words = {True: "stacked", False: "by turns", None: ""}
    before, after = (words[is_stacked(request, kind)] for kind in (old, new))
    way = f"; {before} then, {after} now" if before and after and before != after else ""
    return f" ({old} then, {new} now{way})"


def _status_text(row: dict[str, Any], when: str) -> str:
    """The status of a run, and its cause if there is one."""
    return f"{row['status']} {when}" + (f": {row['cause']}" if row.get("cause") else "")


def _changed_since(request: TrialRequest) -> list[str]:
    """What this version computes in another way than the version that gave the configuration its id."""
    identity = {name: section.identity() for name, section in typed_sections(request).items()}
    if config_id(request.stage, identity, request.data_checksum, request.base_seed) == request.config_id:
        return []
    return [change.what for change in changes_of(request.stage, identity)]


def provenance_changes(storage: Any, study: str) -> list[str]:
    """What is different here from where a study was run, as `key then -> now`."""
    folder = StudyFolder(storage, study)
    if not folder.exists():
        return []
    then, now = folder.resolved().get("provenance", {}), provenance.collect()
    pairs = {**{k: (then.get(k), now[k]) for k in ("code_version", "python", "processor", "science_version")},
             **{k: (then.get("packages", {}).get(k), v) for k, v in now["packages"].items()}}  # fmt: skip
    return [f"{key} {old} -> {new}" for key, (old, new) in pairs.items() if old != new]


def _logit_difference(ledger: Ledger, config: str, replicate: int, files: dict[str, bytes]) -> float | None:
    """The largest difference of a logit, or None if no predictions were kept; infinite if only one run has a logit, or
    if one is not a number."""
    import numpy as np
    import pandas as pd

    try:
        before = pd.read_parquet(io.BytesIO(ledger.read_file(config, replicate, PREDICTIONS)))
    except (KeyError, FileNotFoundError):
        return None
    if PREDICTIONS not in files:
        return math.inf
    now = pd.read_parquet(io.BytesIO(files[PREDICTIONS]))
    if len(before) != len(now):
        return math.inf
    old, new = before["logit"].to_numpy(np.float64), now["logit"].to_numpy(np.float64)
    differing = (old != new) & ~(np.isnan(old) & np.isnan(new))
    return float(np.nan_to_num(np.abs(old[differing] - new[differing]), nan=math.inf, posinf=math.inf).max(initial=0.0))
