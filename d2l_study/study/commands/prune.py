"""`prune`: take configurations out of a study's plan, and so out of its tables, its failures and its MLflow pages.

Results stay in the ledger, for other studies and for whoever asks for them again; `gc` deletes what nobody names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import UserError, counted, listed, nearest
from d2l_study.learning.science_version import version_of_keys
from d2l_study.study.commands.remove import command_line
from d2l_study.study.ledger.lease import lease
from d2l_study.study.ledger.search_document import read_document, write_document
from d2l_study.study.ledger.storage import short_path
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder

Entry = dict[str, Any]


def prune_study(study: str, root: str, arms: Sequence[str], failed: bool, tracking_uri: str | None) -> int:
    """Take the named arms, and with `failed` the configurations that failed, out of a study's plan.

    Without either, take out what its space no longer has. Students go with their teachers. Returns the exit code.

    `UserError` if an arm is not known, nothing would be left, or a driver trains the study now.
    """
    folder = find_study(study, root)
    with lease(folder):
        plan = folder.plan()
        gone = with_students(plan, _chosen(folder, plan, arms, failed))
        if not gone:
            print(f"{folder.name}: nothing to prune: {_nothing_text(failed)}")
            return 0
        kept = [entry for i, entry in enumerate(plan) if i not in gone]
        if not kept:
            raise UserError(f"study {folder.name!r}: nothing would be left of it; to remove it as a whole: "
                            f"{command_line('remove', folder.storage, folder.name)}")  # fmt: skip
        removed = [plan[i] for i in sorted(gone)]
        runs = sum(len(entry["replicates"]) for entry in removed)
        names = listed(dict.fromkeys(entry["method"] for entry in removed))
        if adaptive := _is_adaptive(folder):
            print(_search_text(folder, names), flush=True)
        _write(folder, kept, removed)
        print(f"{folder.name}: {counted(len(removed), 'configuration')} ({counted(runs, 'run')}) of {names} left its "
              f"plan, which keeps {counted(len(kept), 'configuration')}")  # fmt: skip
        folder.compact()
        update_mlflow(folder, tracking_uri)
    gc = command_line("gc", folder.storage)
    print(f"  results stay for other studies; `{gc}` shows what no study names any more")
    if (arms or failed) and not adaptive:
        print(f"  where {_space_text(folder)} still asks for them, the next `run` says so, and `run --extend` brings "
              "them back")  # fmt: skip
    return 0


def _space_text(folder: StudyFolder) -> str:
    file = folder.resolved().get("space", {}).get("file")
    return f"the space{f' ({short_path(str(file))})' if file else ''}"


def _search_text(folder: StudyFolder, names: str) -> str:
    """What becomes of arms that leave a search which learns from its own trials: `run` refuses one of other arms."""
    document = read_document(folder)
    assert document is not None
    method = document["definition"]["method"]
    return (
        f"{folder.name}: a search by {method} learns from its own trials alone: {names} cannot come back into this "
        f"study. `run` refuses it while {_space_text(folder)} still has {names}; without, the other arms go on. In a "
        "study of another name (`run --study NEWNAME`) all arms are searched anew, and runs of both are reused"
    )


def _nothing_text(failed: bool) -> str:
    return "no configuration failed" if failed else "its space asks for all that is in its plan"


def _chosen(folder: StudyFolder, plan: list[Entry], arms: Sequence[str], failed: bool) -> set[int]:
    """The indices of the entries that are to leave the plan."""
    if failed and _is_adaptive(folder):
        raise UserError("--failed: not of a search, which learns from what failed; name an arm with --arm")
    found: set[int] = set()
    for arm in arms:
        known = list(dict.fromkeys(name for entry in plan for name in arms_of(entry)))
        if arm not in known:
            raise UserError(f"--arm {arm!r}: not an arm of study {folder.name!r}{nearest(arm, known)} "
                            f"(arms: {listed(known)})")  # fmt: skip
        found |= {i for i, entry in enumerate(plan) if arm in arms_of(entry)}
    if failed:
        bad = {row["config_id"] for row in folder.iter_rows() if row["status"] == "failed"}
        found |= {i for i, entry in enumerate(plan) if entry["config_id"] in bad}
    if not arms and not failed and not _is_adaptive(folder):
        wanted = _configurations_of_space(folder, plan)
        found = {i for i, entry in enumerate(plan) if (entry["method"], entry["config_id"]) not in wanted}
    return found


def _is_adaptive(folder: StudyFolder) -> bool:
    """Whether the study is a search that chooses its points as it goes; its space does not name them then."""
    from d2l_study.study.space.search_options import ADAPTIVE

    if space := folder.resolved().get("space"):
        return bool(space.get("search")) and space["search"]["method"] in ADAPTIVE
    document = read_document(folder)  # where it is lost how the space was read
    return document is not None and document["definition"].get("method") in ADAPTIVE


def arms_of(entry: Entry) -> set[str]:
    """The arms that an entry of a plan belongs to: its own, and of a student those of its teacher and of itself."""
    return {str(name) for name in (entry["method"], entry.get("teacher_method"), entry.get("student_method")) if name}


def with_students(plan: list[Entry], gone: Iterable[int]) -> set[int]:
    """These indices, and those of the entries that lose a teacher with them: students, and attention scores."""
    found = set(gone)
    while True:
        there = {entry["config_id"] for i, entry in enumerate(plan) if i not in found}
        orphans = {
            i for i, entry in enumerate(plan)
            if i not in found and not set((entry.get("teacher_id") or "").split(",")) - {""} <= there
        }  # fmt: skip
        if not orphans:
            return found
        found |= orphans


def _configurations_of_space(folder: StudyFolder, plan: list[Entry]) -> set[tuple[str, str]]:
    """What the space of the last `run` asks for, as (arm, config_id)."""
    from d2l_study.study.search.restore_configurations import configurations_of_study

    try:
        return {(c.method, c.config_id) for c in configurations_of_study(folder, plan)}
    except FileNotFoundError as error:
        raise UserError(f"{error}: not there, so what the space no longer has is not known; name arms with --arm, or "
                        "give the study's `run` command again") from None  # fmt: skip


def _write(folder: StudyFolder, kept: list[Entry], removed: list[Entry]) -> None:
    """Write the plan first: from then on what it does not name does not count."""
    folder.write_plan([{**entry, "varied": _varied(entry, kept)} for entry in kept])
    _write_search(folder, {entry["method"] for entry in removed} - {entry["method"] for entry in kept},
                  {entry["config_id"] for entry in removed} - {entry["config_id"] for entry in kept}, kept)  # fmt: skip
    still = {(entry["config_id"], r) for entry in kept for r in entry["replicates"]}
    for entry in removed:
        for replicate in entry["replicates"]:
            if (entry["config_id"], replicate) not in still:
                folder.forget_run(entry["config_id"], replicate)


def _varied(entry: Entry, plan: list[Entry]) -> list[str]:
    """The keys of an entry that vary in the plan that is left."""
    return [
        key for key in entry["varied"]
        if len({json.dumps(other["values"][key]) for other in plan if key in other["values"]}) > 1
    ]  # fmt: skip


def _write_search(folder: StudyFolder, arms: set[str], configs: set[str], kept: list[Entry]) -> None:
    """`search.json` without the searches of arms that are gone, and without their trials. kept: the plan that is
    left."""
    document = read_document(folder)
    if document is None:
        return
    definition = document["definition"]
    numbers = [n for n, search in enumerate(definition["searches"]) if search["arm"] not in arms]
    trials = [t for t in document["trials"] if t["search"] in numbers and t["config_id"] not in configs]
    trials = [{**t, "number": n, "search": numbers.index(t["search"])} for n, t in enumerate(trials)]
    definition = {**definition, "searches": [definition["searches"][n] for n in numbers]}
    if "arms" in definition:
        definition["arms"] = [arm for arm in definition["arms"] if arm not in arms]
    write_document(folder, {**definition, **_values_over_searches(definition, trials, kept)}, trials)


def _values_over_searches(
    definition: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], kept: list[Entry]
) -> dict[str, Any]:
    """What `definition_of` takes over all searches, made of those that are left, since a `run` without the other arms
    compares it. Empty where it is not known, or the search is none that learns."""
    by_id = {entry["config_id"]: entry for entry in kept if {"data_checksum", "science_version"} <= entry.keys()}
    # One configuration of each search tells it, the first that was planned.
    found = {t["search"]: by_id[t["config_id"]] for t in reversed(trials) if t["config_id"] in by_id}
    entries = [found[n] for n in sorted(found)]
    if "science_version" not in definition or not entries or len(entries) < len(definition["searches"]):
        return {}
    versions = [version_of_keys(search["distributions"]) for search in definition["searches"]]
    return {
        "data_checksum": ", ".join(dict.fromkeys(entry["data_checksum"] for entry in entries)),
        "science_version": max(*versions, *(entry["science_version"] for entry in entries)),
    }


def update_mlflow(folder: StudyFolder, tracking_uri: str | None) -> None:
    """Bring the study's MLflow stores up to date, or say of each why not."""
    from d2l_study.study.mlflow.study_stores import kept_stores, other_stores, stores_of

    root, kept = folder.storage.root, kept_stores(folder)
    uris = stores_of(tracking_uri, root, kept)
    for uri in uris:
        _update_store(folder, uri)
    for uri in other_stores(uris, root, kept):
        sync = command_line("sync", folder.storage, folder.name, "--tracking-uri", masked(uri))
        print(f"  MLflow: {folder.name} was written to {masked(uri)} as well; `{sync}` brings it up to date")


def _update_store(folder: StudyFolder, uri: str) -> None:
    from d2l_study.study.commands.sync import sync_mlflow
    from d2l_study.study.mlflow.study_page import study_page
    from d2l_study.study.mlflow.study_stores import unusable_text

    if problem := unusable_text(uri):
        sync = command_line("sync", folder.storage, folder.name, "--tracking-uri", "URI")
        print(f"  MLflow: not updated: {problem}; `{sync}` brings a store up to date")
        return
    page = study_page(folder)
    try:
        found = sync_mlflow(folder, uri, tags=page.tags, params=page.params, description=page.description)
    except UserError as error:
        print(f"  warning: {error}; `{command_line('sync', folder.storage, folder.name)}` does it later")
        return
    print(f"  MLflow: {counted(found.deleted, 'run')} deleted ({masked(uri)})")
