"""Commands about studies that exist: `list`, `status`, `sync`, `trial`. They read the ledger; only `trial` computes."""

from __future__ import annotations

import datetime
import json
import time
from typing import Any

from d2l_study.errors import UserError
from d2l_study.study import provenance
from d2l_study.study.cost import human_seconds
from d2l_study.study.folder import StudyFolder, find_study, list_studies
from d2l_study.study.lease import holder
from d2l_study.study.ledger import trial_id
from d2l_study.study.resources import Resources
from d2l_study.study.storage import Storage, open_storage
from d2l_study.study.trial import TrialOrder, run_trial


def show_list(root: str) -> int:
    """Print every study under the root: runs done, failed, in all, and what it asks."""
    storage = open_storage(root)
    names = list_studies(storage)
    if not names:
        print(f"no studies under {storage.root}")
    width = max((len(name) for name in names), default=0)
    for name in names:
        folder = StudyFolder(storage, name)
        counts = _counts(folder)
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        at_work = ", running" if holder(folder) else ""
        description = folder.resolved().get("space", {}).get("description", "")
        print(f"{name:<{width}}  {counts['done']} of {sum(counts.values())} runs{failed}{at_work}  {description}")
    return 0


def show_status(study: str, root: str) -> int:
    """Print how far a study is: runs by state, the driver at work on it, its speed, and what failed."""
    folder = find_study(study, root)
    rows = list(folder.iter_rows())
    counts = _counts(folder, rows)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"{folder.name}: {folder.resolved().get('space', {}).get('description', '')}")
    print(f"  {len(rows)} runs: {states}")
    driver = holder(folder)
    if driver is None:
        left = counts["missing"]
        print("  nobody is at work on it" + (f"; {left} runs are left: run it again to go on" if left else ""))
    else:
        begun, now = float(driver.get("begun", driver["beat"])), time.time()
        print(f"  process {driver['pid']} on {driver['host']} is at work on it, for {human_seconds(now - begun)}")
        recent = sum(row.get("committed_at", "") >= _iso(begun) for row in rows)
        if recent:
            speed = recent / (now - begun)
            rest = human_seconds(counts["missing"] / speed)
            print(f"  {recent} runs committed since, {speed * 60:.1f} a minute; {rest} left")
    causes: dict[str, int] = {}
    for row in rows:
        if row["status"] == "failed":
            causes[str(row["cause"])] = causes.get(str(row["cause"]), 0) + 1
    for cause, count in sorted(causes.items(), key=lambda item: -item[1])[:10]:
        print(f"  failed × {count}: {cause}")
    return 0


def sync_study(study: str, root: str, tracking_uri: str | None) -> int:
    """Bring an MLflow store up to date with a study, from the ledger; a second time changes nothing."""
    from d2l_study.study.run_page import study_page
    from d2l_study.study.tracking import resolve_uri, sync

    folder = find_study(study, root)
    uri = resolve_uri(tracking_uri, folder.storage.root)
    page = study_page(folder)
    found = sync(folder, uri, tags=page.tags, params=page.params, description=page.description,
                 live=holder(folder) is not None)  # fmt: skip
    print(
        f"{folder.name}: {found.created} configurations new in MLflow, {found.updated} brought up to date, "
        f"{found.unchanged} right already, {found.not_run} not run yet ({uri})"
    )
    return 0


def run_one(identity: str, replicates: list[int] | None, root: str) -> int:
    """Run one trial in this process, where a debugger can follow it; what is committed already is not run again."""
    storage = open_storage(root)
    config = find_configuration(storage, identity)
    folder = StudyFolder(storage, f"trial-{trial_id(config)}")
    resolved = folder.ledger.read_config(config)
    known = [int(name[1:]) for name in storage.list(folder.ledger.config_key(config)) if name[1:].isdecimal()]
    order = TrialOrder(
        root=str(storage.root), study=str(resolved.get("study", folder.name)), config_id=config, label=trial_id(config),
        stage=resolved["stage"], sections=resolved["sections"], replicates=tuple(replicates or known or [0]),
        base_seed=resolved["base_seed"], checksum=resolved["data_checksum"], resources=Resources().to_dict(),
        keep_weights="none", code_version=provenance.code_version(), teachers=tuple(resolved.get("teachers", ())),
    )  # fmt: skip
    print(f"trial {trial_id(config)} ({order.stage}), replicates {', '.join(map(str, order.replicates))}")
    folder = StudyFolder(storage, order.study)
    statuses = run_trial(order, lambda step, values: print(f"  step {step}: {_line(values)}", flush=True))
    for replicate, status in statuses.items():
        record, failure = folder.ledger.read(config, replicate), folder.failure(config, replicate)
        said = record["row"].get("cause") if record else (failure or {}).get("log")
        print(f"  r{replicate:03d}: {status}" + (f": {said}" if status != "done" and said else ""))
    return int(any(status != "done" for status in statuses.values()))


def find_configuration(storage: Storage, identity: str) -> str:
    """The config_id that begins with `identity`; `UserError` if there is none, or more than one."""
    known = [name for head in storage.list("results") for name in storage.list(f"results/{head}")]
    found = [name for name in known if identity and name.startswith(identity)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"--id {identity!r}: no trial of that id under {storage.root} (see `plan` or the tables' CSV)")
    raise UserError(f"--id {identity!r}: {len(found)} trials begin so: {', '.join(map(trial_id, found[:5]))}")


def _counts(folder: StudyFolder, rows: list[dict[str, Any]] | None = None) -> dict[str, int]:
    counts = {"done": 0, "failed": 0, "pruned": 0, "missing": 0}
    for row in folder.iter_rows() if rows is None else rows:
        counts[row["status"]] += 1
    return counts


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _line(values: Any) -> str:
    parts = []
    for replicate, found in values.items():
        shown = {k: round(v, 4) for k, v in found.items() if k in ("train_loss", "val_bag_auc", "val_distill_loss")}
        parts.append(f"r{replicate:03d} {json.dumps(shown)}")
    return "  ".join(parts)
