"""Commands about studies that exist: `list`, `status`, `stop`, `sync`, `trial`. Only `trial` computes."""

from __future__ import annotations

import dataclasses
import datetime
import json
import time
from collections.abc import Sequence
from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import DamagedError, UserError, counted
from d2l_study.study.ledger import provenance
from d2l_study.study.ledger.lease import ask_to_stop, holder
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.search_document import still_to_ask
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.studies import find_study, list_studies
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.cost import human_seconds
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import compute_runs, run_trial
from d2l_study.study.trial.trial_request import TrialRequest


def show_list(root: str) -> int:
    """Print every study under the root: runs done, failed, in all, and what it asks."""
    storage = open_storage(root)
    storage.ensure_usable()
    names = list_studies(storage)
    if not names:
        print(f"no studies under {storage.root}")
    width = max((len(name) for name in names), default=0)
    for name in names:
        folder = StudyFolder(storage, name)
        try:
            counts, description = _counts(folder), folder.resolved().get("space", {}).get("description", "")
        except DamagedError as error:
            print(f"{name:<{width}}  cannot be read: {error}")
            continue
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        at_work = ", running" if holder(folder) else ""
        print(f"{name:<{width}}  {counts['done']} of {sum(counts.values())} runs{failed}{at_work}  {description}")
    return 0


def show_status(study: str, root: str) -> int:
    """Print how far a study is: runs by state, the driver at work on it, its speed, and what failed."""
    folder = find_study(study, root)
    rows = list(folder.iter_rows())
    counts = _counts(folder, rows)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print(f"{folder.name}: {folder.resolved().get('space', {}).get('description', '')}")
    driver = holder(folder)
    progress = (driver or {}).get("progress") or {}
    running = progress.get("running", [])
    if rows:
        print(f"  {_trial_states(rows, len(running))}; {counted(len(rows), 'run')}: {states}")
    else:
        print("  no trial has been begun yet")
    unasked, later = still_to_ask(folder)
    if unasked:
        print(f"  its search has {counted(unasked, 'trial')} still to ask for")
    if driver is None:
        left = counts["missing"] + later
        print("  nobody is at work on it" + (f"; {left} runs are left: run it again to go on" if left else ""))
    else:
        begun, now = float(driver.get("begun", driver["beat"])), time.time()
        print(f"  process {driver['pid']} on {driver['host']} is at work on it, for {human_seconds(now - begun)}")
        recent = sum(row.get("committed_at", "") >= _iso(begun) for row in rows)
        if recent:
            speed = recent / (now - begun)
            left = progress.get("left") or (counts["missing"] + later) / speed
            ends = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=left)
            print(f"  {recent} runs committed since, {speed * 60:.1f} a minute; {human_seconds(left)} left "
                  f"(until {ends:%d %b %H:%M})")  # fmt: skip
        for trial in running[:10]:
            print(f"    {trial['label']}: step {trial['step']} of {trial['steps']}, {trial['replicates']} replicates")
        if len(running) > 10:
            print(f"    … and {len(running) - 10} more")
    lost = len(folder.storage.list(f"{folder.key}/attempts"))
    if lost:
        print(f"  {lost} runs lost an attempt with their worker, node or memory")
    causes: dict[str, int] = {}
    for row in rows:
        if row["status"] == "failed":
            causes[str(row["cause"])] = causes.get(str(row["cause"]), 0) + 1
    for cause, count in sorted(causes.items(), key=lambda item: -item[1])[:10]:
        print(f"  failed × {count}: {cause}")
    return 0


def stop_study(study: str, root: str, wait_seconds: float = 180.0) -> int:
    """Ask the driver of a study, wherever it runs, to end it cleanly; waits until it has."""
    folder = find_study(study, root)
    driver = holder(folder)
    if driver is None:
        print(f"{folder.name}: nobody is at work on it")
        return 0
    print(f"{folder.name}: asking process {driver['pid']} on {driver['host']} to end it …", flush=True)
    if not ask_to_stop(folder, driver, wait_seconds):
        print(f"{folder.name}: it has not ended after {wait_seconds:g} s; it is still asked to")
        return 1
    counts = _counts(folder)
    print(f"{folder.name}: stopped, {counts['done']} of {sum(counts.values())} runs done")
    command = folder.resolved().get("provenance", {}).get("command")
    if (counts["missing"] or still_to_ask(folder)[0]) and command:
        print(f"  to go on: {masked(command)}")
    return 0


def _trial_states(rows: list[dict[str, Any]], running: int) -> str:
    """Trials (configurations) by state: `84 trials: 31 done, 2 running, 51 waiting`."""
    states: dict[str, set[str]] = {}
    for row in rows:
        states.setdefault(row["config_id"], set()).add(row["status"])
    counts = {"done": 0, "failed": 0, "pruned": 0, "waiting": 0}
    for found in states.values():
        state = "waiting" if "missing" in found else "failed" if "failed" in found else "pruned" if "pruned" in found \
            else "done"  # fmt: skip
        counts[state] += 1
    at_work = min(running, counts["waiting"])
    counts["waiting"] -= at_work
    parts = [("done", counts["done"]), ("running", at_work), ("failed", counts["failed"]),
             ("pruned", counts["pruned"]), ("waiting", counts["waiting"])]  # fmt: skip
    return f"{counted(len(states), 'trial')}: " + ", ".join(f"{count} {name}" for name, count in parts if count)


def sync_study(study: str, root: str, tracking_uri: str | None) -> int:
    """Bring an MLflow store up to date with a study, from the ledger; a second time changes nothing."""
    from d2l_study.study.commands.remove import forget_removed, was_removed
    from d2l_study.study.commands.sync import sync
    from d2l_study.study.mlflow.address import resolve_uri
    from d2l_study.study.mlflow.run_page import study_page

    if was_removed(storage := open_storage(root), study):
        return int(not forget_removed(storage, study, tracking_uri))
    folder = find_study(study, root)
    uri = resolve_uri(tracking_uri, folder.storage.root)
    page = study_page(folder)
    found = sync(folder, uri, tags=page.tags, params=page.params, description=page.description,
                 live=holder(folder) is not None)  # fmt: skip
    print(
        f"{folder.name}: {found.created} configurations new in MLflow, {found.updated} brought up to date, "
        f"{found.unchanged} right already, {found.not_run} not run yet"
        + (f", {counted(found.deleted, 'run')} deleted that left its plan" if found.deleted else "")
        + f" ({masked(uri)})"
    )
    return 0


def run_one(identity: str, replicates: list[int] | None, root: str, weights: bool = False) -> int:
    """Run one trial in this process, where a debugger can follow it; what is committed already is not run again.

    weights: but for the runs whose weights were not kept, which are then."""
    storage = open_storage(root)
    config = find_configuration(storage, identity)
    ledger = Ledger(storage)
    known = [int(name[1:]) for name in storage.list(ledger.config_key(config)) if name[1:].isdecimal()]
    order = alone(ledger, config, replicates or known or [0])
    print(f"trial {trial_id(config)} ({order.stage}), replicates {', '.join(map(str, order.replicates))}")
    folder = StudyFolder(storage, order.study)

    def report(step: int, values: Any) -> None:
        print(f"  step {step}: {_line(values)}", flush=True)

    there = {r: record["row"] for r in order.replicates if (record := ledger.read(config, r)) is not None}
    for replicate in [r for r in there if weights and not ledger.has_weights(config, r)]:
        as_committed(order, there.pop(replicate))
    again = [r for r, row in there.items() if row["status"] != "done"]
    for replicate, row, _ in compute_runs(order, again, folder, report):  # committed as failed, and stays so
        print(f"  r{replicate:03d}: {row['status']} again" + (f": {row['cause']}" if row["cause"] else ""))
    for replicate in there.keys() - set(again):
        print(f"  r{replicate:03d}: done already; `reproduce {trial_id(config)}` trains it again and compares")
    if not (left := [r for r in order.replicates if r not in there]):
        return int(bool(again))
    order = dataclasses.replace(order, replicates=tuple(left))
    statuses = run_trial(order, report)
    for replicate, status in statuses.items():
        record, failure = folder.ledger.read(config, replicate), folder.failure(config, replicate)
        said = record["row"].get("cause") if record else _said(failure or {})
        print(f"  r{replicate:03d}: {status}" + (f": {said}" if status != "done" and said else ""))
    return int(bool(again) or any(status != "done" for status in statuses.values()))


def _said(failure: dict[str, Any]) -> str:
    """The log of a failure; of one that is a mistake of the user's, its cause alone."""
    log, cause = str(failure.get("log", "")), str(failure.get("cause", ""))
    return cause if f"UserError: {cause}" in log else log


def alone(ledger: Ledger, config: str, replicates: Sequence[int]) -> TrialRequest:
    """The order that runs replicates of a known configuration in this process. Weights are kept, whatever the space
    says: a teacher's students may be waiting for them."""
    resolved = ledger.read_config(config)
    return TrialRequest(
        root=str(ledger.storage.root), study=str(resolved.get("study", f"trial-{trial_id(config)}")), config_id=config,
        label=trial_id(config), stage=resolved["stage"], sections=resolved["sections"], replicates=tuple(replicates),
        base_seed=resolved["base_seed"], checksum=resolved["data_checksum"], resources=Resources().to_dict(),
        keep_weights="all", code_version=provenance.code_version(), teachers=tuple(resolved.get("teachers", ())),
    )  # fmt: skip


def as_committed(order: TrialRequest, row: dict[str, Any]) -> None:
    """Let an order round as a committed run of it did, so that on the same kind of machine it comes out the same."""
    order.resources.update({"precision": row["precision"], "threads": int(row["threads"])})


def find_configuration(storage: Storage, identity: str) -> str:
    """The config_id that begins with `identity`; `UserError` if there is none, or more than one."""
    known = [name for head in storage.list("results") for name in storage.list(f"results/{head}")]
    found = [name for name in known if identity and name.startswith(identity)]
    found = found or (_planned(storage, identity) if identity else [])
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f"--id {identity!r}: no trial of that id in a study under {storage.root} (ids are in the "
                        "tables' CSV and in MLflow, and, once the study was begun, in `plan`)")  # fmt: skip
    raise UserError(f"--id {identity!r}: {len(found)} trials begin so: {', '.join(map(trial_id, found[:5]))}")


def _planned(storage: Storage, identity: str) -> list[str]:
    """Configurations that begin so, which a study has in its plan and nobody has begun yet: what their ids stand for is
    made from the study's space, and kept."""
    from d2l_study.study.search.restore import restore_configurations

    found: set[str] = set()
    for name in list_studies(storage):
        folder = StudyFolder(storage, name)
        try:
            wanted = {entry["config_id"] for entry in folder.plan() if entry["config_id"].startswith(identity)}
        except (DamagedError, FileNotFoundError):
            continue
        if wanted:
            found |= restore_configurations(folder, wanted)
    return sorted(found)


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
