"""A study that goes on with a changed space. It is refused, with the difference shown, unless `--extend` is given.

An extended study keeps the runs that it has, and only what is new is trained. What the space no longer asks for stays
with the runs that it has; nothing more of it is trained.
"""

from __future__ import annotations

import json
from typing import Any

from d2l_study import SCIENCE_VERSION as LATEST
from d2l_study.errors import UserError, listed
from d2l_study.learning.science_version import Change, changes_of
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import check_extension, keep_replicates
from d2l_study.study.space.data_location import without_location
from d2l_study.study.space.keys import sections_of
from d2l_study.study.space.space import Space

Entry = dict[str, Any]
"""An entry of a plan (`StudyFolder.write`)."""

NOT_TRAINED = (
    "resources", "replicates", "overrides", "keep_weights", "log_images", "metric", "description", "name", "file",
    "labels", "folder", "recipe",
)  # fmt: skip

NEVER_MIXED = ("base_seed", "data_checksum")
"""Two values of these in one study would be averaged, since no table tells them apart. Two science versions of one
configuration would be averaged, too (`_outdated`); two versions in two arms stand beside each other."""


def check_same_study(folder: StudyFolder, entries: list[Entry], space: Space, extend: bool = False) -> None:
    """`UserError`, with the difference shown, if the folder holds a study of another space. extend: only if the results
    of the two cannot stand in one table."""
    before = folder.plan_or_empty()
    if not before:
        return
    if extend:
        for name in NEVER_MIXED:
            then, now = ({e.get("values", {}).get("dataset"): e.get(name) for e in part} for part in (before, entries))
            differing = [dataset for dataset in then.keys() & now.keys() if then[dataset] != now[dataset]]
            if differing:
                old, new = listed([then[differing[0]]]), listed([now[differing[0]]])
                raise UserError(
                    f"--extend: study {folder.name!r} has {name} {old}, and now it would be {new}: a table would "
                    "average over both; give the new one a name of its own: --study NEWNAME"
                )
        if outdated := _outdated(folder, before):
            methods = listed(dict.fromkeys(entry["method"] for entry, _ in outdated))
            changes = listed(dict.fromkeys(change.what for _, found in outdated for change in found), 3)
            raise UserError(
                f"--extend: study {folder.name!r} has results of {methods} that this version would not give any more, "
                f"and a table would show both ({changes}); give the new one a name of its own: --study NEWNAME (runs "
                "that both contain are reused)"
            )
        return
    known_space = folder.resolved_or_empty().get("space", {})
    if _ids(entries) <= _ids(before) and _trained_part(known_space) == _trained_part(space.to_dict()):
        return  # an extended study still has in its plan what it was extended from
    check_extension(folder, entries)


def check_same_schedule(folder: StudyFolder, space: Space) -> None:
    """`UserError` if the study was run with another rule of early ends: which runs are finished would depend on when it
    was changed. `none` is allowed, since what was ended early is then trained to its end."""
    known_space = folder.resolved_or_empty().get("space")
    before = (known_space or {}).get("schedule", "none")
    if known_space and folder.plan_or_empty() and space.schedule not in ("none", before):
        raise UserError(
            f"study {folder.name!r} was started with another schedule:\n  schedule: {before} -> {space.schedule}\n"
            "Which of its runs are ended early would depend on when it was changed. To keep both apart, give the new "
            "one a name of its own: --study NEWNAME (runs that both contain are reused); to go on with this study, "
            "whose finished runs stay: --extend"
        )


def _outdated(folder: StudyFolder, before: list[Entry]) -> list[tuple[Entry, list[Change]]]:
    """The entries with runs whose configuration has a later science version now, and the changes that raised it."""
    found = []
    for entry in before:
        changes = changes_of(entry["stage"], sections_of(entry.get("values", {})))
        newer = [change for change in changes if change.version > entry.get("science_version", LATEST)]
        if newer and any(row["status"] != "missing" for row in folder.rows_of(entry)):
            found.append((entry, newer))
    return found


def is_known(folder: StudyFolder, entries: list[Entry]) -> bool:
    """Whether the folder holds a study that has these configurations. Its space was accepted then."""
    return folder.exists() and _ids(entries) <= _ids(folder.plan_or_empty())


def merged_plan(folder: StudyFolder, entries: list[Entry]) -> list[Entry]:
    """The plan to write: these entries, and what was run of replicates and entries that are no longer asked for."""
    now = keep_replicates(folder, entries)
    before, ids = folder.plan_or_empty(), _ids(now)
    kept = []
    for entry in {(entry["method"], entry["config_id"]): entry for entry in before}.values():
        if (entry["method"], entry["config_id"]) in ids:
            continue
        run = [row["replicate"] for row in folder.rows_of(entry) if row["status"] != "missing"]
        if run:
            kept.append({**entry, "replicates": run})
    if not kept:
        return now
    varied = list(dict.fromkeys([*(k for e in (*now, *kept) for k in e["varied"]), *_changed(kept, now)]))
    return [{**entry, "varied": varied} for entry in (*now, *kept)]


def runs_that_leave(folder: StudyFolder, entries: list[Entry]) -> list[tuple[str, int]]:
    """The runs, as (config_id, replicate), that failed or were ended early in the plan that `entries` will replace, and
    that these do not have: if they are asked for again, they begin anew."""
    stay = {(entry["config_id"], replicate) for entry in entries for replicate in entry["replicates"]}
    gone = {
        (entry["config_id"], replicate): (entry, replicate)
        for entry in folder.plan_or_empty()
        for replicate in entry["replicates"]
        if (entry["config_id"], replicate) not in stay
    }
    rows = folder.rows_of_runs(list(gone.values())) if gone else []
    return [run for run, row in zip(gone, rows, strict=True) if row["status"] in ("failed", "pruned")]


def _changed(before: list[Entry], now: list[Entry]) -> list[str]:
    """The keys that have one value in all of `before` and another one in all of `now`."""
    found = []
    for key in dict.fromkeys(key for entry in (*before, *now) for key in entry["values"]):
        old, new = ({json.dumps(e["values"][key]) for e in part if key in e["values"]} for part in (before, now))
        if len(old) == 1 and len(new) == 1 and old != new:
            found.append(key)
    return found


def _ids(entries: list[Entry]) -> set[tuple[str, str]]:
    return {(entry["method"], entry["config_id"]) for entry in entries}


def _trained_part(space: dict[str, Any]) -> dict[str, Any]:
    """What of a space decides what is trained, without how it is computed, kept or shown, and where its data are.
    Overrides are in the sections that they change."""
    found = {k: v for k, v in json.loads(json.dumps(space, default=str)).items() if k not in NOT_TRAINED}
    for sections in (found, *(found.get("methods") or {}).values()):
        if "data" in sections:
            sections["data"] = without_location(sections["data"])
    return found
