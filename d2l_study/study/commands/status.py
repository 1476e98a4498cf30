"""`list` and `status`: which studies there are, and how far each is. They change nothing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from d2l_study.errors import DamagedError, counted
from d2l_study.study.commands.fresh_results import runs_of_others, text_of_others
from d2l_study.study.commands.time_left import rounded_seconds
from d2l_study.study.ledger.lease import holder, holders
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.search_document import still_to_ask
from d2l_study.study.ledger.studies import find_study, list_studies
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.ledger.timestamps import timestamp
from d2l_study.study.plan.cost import human_seconds
from d2l_study.study.plan.trial_labels import trial_labels
from d2l_study.terminal import print_entry, print_wrapped

FEW = 12
"""Trials that are listed unasked."""


def show_list(root: str) -> int:
    """Print every study under the root in a line: its runs done, failed and in all, and its description."""
    storage = open_storage(root)
    storage.ensure_usable()
    names = list_studies(storage)
    if not names:
        print(f"no studies under {storage.root}")
    width = max((len(name) for name in names), default=0)
    folders = [StudyFolder(storage, name) for name in names]
    for name, folder, driver in zip(names, folders, holders(folders), strict=True):
        try:
            counts, description = run_counts(folder), folder.resolved().get("space", {}).get("description", "")
        except DamagedError as error:
            print(f"{name:<{width}}  cannot be read: {error}")
            continue
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        at_work = ", running" if driver else ""
        text = f"{counts['done']} of {sum(counts.values())} runs{failed}{at_work}  {description}"
        print_entry(name, text, width)
    return 0


def show_status(study: str, root: str, every_trial: bool = False) -> int:
    """Print how far a study is: its runs by state, the driver that trains it, its speed, what failed, and its trials
    with their ids. every_trial: list them also where they are many."""
    folder = find_study(study, root)
    rows = list(folder.iter_rows())
    counts = run_counts(folder, rows)
    states = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    print_wrapped(f"{folder.name}: {folder.resolved().get('space', {}).get('description', '')}")
    driver = holder(folder)
    progress = (driver or {}).get("progress") or {}
    running = progress.get("running", [])
    if rows:
        print(f"  {_trial_states(rows, len(running))}; {counted(len(rows), 'run')}: {states}")
    else:
        print("  no trial has been begun yet")
    if others := runs_of_others(folder, rows):
        print(f"  {text_of_others(others)}")
    unasked, later = still_to_ask(folder)
    if unasked:
        print(f"  its search has {counted(unasked, 'trial')} still to ask for")
    if driver is None:
        left = counts["missing"] + later
        print("  nobody is at work on it" + (f"; {left} runs are left: run it again to go on" if left else ""))
    else:
        begun = float(driver.get("begun", driver["beat"]))
        passed = max(1.0, float(driver["beat"]) - begun)  # both by the clock of its machine
        print(f"  process {driver['pid']} on {driver['host']} is at work on it, for {human_seconds(passed)}")
        recent = sum(row.get("committed_at", "") >= timestamp(begun) for row in rows)
        if recent:
            speed = recent / passed
            predicted = ""
            if (seconds := progress.get("left")) is not None:  # too little is known at the beginning
                ends = datetime.datetime.now().astimezone() + datetime.timedelta(seconds=seconds)
                predicted = f"; about {human_seconds(rounded_seconds(seconds))} left (until {ends:%d %b %H:%M})"
            print(f"  {recent} runs committed since, {speed * 60:.1f} a minute{predicted}")
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
    show_trials(folder, rows, every_trial)
    return 0


def show_trials(folder: StudyFolder, rows: Sequence[Mapping[str, Any]], every: bool = False) -> None:
    """Print the trials of a study in a line each: id, arm and values, runs, and whether a model of it is stored; of
    more than `FEW`, how to list them. rows: those of the study; every: list them in any case."""
    labels = trial_labels(folder.plan())
    if not labels:
        return
    if len(labels) > FEW and not every:
        print(f"  --list lists all {len(labels)} trials with the ids that --run takes")
        return
    planned: dict[str, set[int]] = {config: set() for config in labels}
    done: dict[str, set[int]] = {config: set() for config in labels}
    for row in rows:
        planned[row["config_id"]].add(int(row["replicate"]))
        if row["status"] == "done":
            done[row["config_id"]].add(int(row["replicate"]))
    finished = [(config, replicate) for config, own in done.items() for replicate in sorted(own)]
    held = folder.storage.map(lambda run: folder.ledger.holds(*run, WEIGHTS), finished)
    stored = {config for (config, _), there in zip(finished, held, strict=True) if there}
    print("  trials, as --run ID (label, predict, evaluate, export: with a model stored)")
    width = max(map(len, labels.values()))
    for config, label in labels.items():
        runs = f"{len(done[config])} of {counted(len(planned[config]), 'run')}"
        print(f"    {trial_id(config)}  {label:<{width}}  {runs}{', model stored' if config in stored else ''}")


def run_counts(folder: StudyFolder, rows: list[dict[str, Any]] | None = None) -> dict[str, int]:
    """How many runs of a study are done, failed, pruned and missing. rows: those of the study, if they are known."""
    counts = {"done": 0, "failed": 0, "pruned": 0, "missing": 0}
    for row in folder.iter_rows() if rows is None else rows:
        counts[row["status"]] += 1
    return counts


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
