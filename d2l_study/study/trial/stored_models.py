"""Find a stored model, by the id of a trial or of its MLflow run.

selected = find_model("runs", "3fa92c")          # the replicate with the best validation AUC
selected = find_model("runs", "3fa92c", replicate=2)
"""

from __future__ import annotations

import contextlib
import math
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2l_study.command_line import command_text
from d2l_study.errors import DamagedError, UserError, listed, nearest
from d2l_study.study.ledger.ledger import ID_LENGTH, TRIAL_ID_LENGTH, Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.run_files import WEIGHTS
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.studies import list_studies
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.trial_labels import trial_labels
from d2l_study.study.space.keys import CLASS_MAPS

if TYPE_CHECKING:
    from d2l_study.inference.model_file import StoredModel

MLFLOW_ID = re.compile(r"[0-9a-f]{32}")
TIE = 1e-9
"""Validation metrics that differ by less are equal but for rounding."""
NAMED = 12
"""Trials that a message names at most."""
CONFIG_ID = re.compile(rf"[0-9a-f]{{{ID_LENGTH}}}")


@dataclass(frozen=True)
class SelectedModel:
    """A stored model and the run that it is from. choice: why this replicate, in words."""

    config_id: str
    replicate: int
    choice: str
    stored: StoredModel


def find_model(
    root: str | Path, run: str, replicate: int | None = None, tracking_uri: str | None = None
) -> SelectedModel:
    """The model of a committed run under `root`.

    run: a trial id, the first digits of a config_id, or the 32 digits of an MLflow run. replicate: None takes the one
    with the best validation bag AUC, of those whose weights are stored. tracking_uri: where the MLflow run is.
    `UserError` if no trial or more than one begins so, if the weights were not kept (with the command that makes them),
    or if their file is damaged.
    """
    from d2l_study.inference.model_file import from_bytes

    ledger = Ledger(open_storage(root))
    config = _config_of(ledger, run, tracking_uri)
    chosen, choice = choose_replicate(ledger, config, replicate)
    data = ledger.read_file(config, chosen, WEIGHTS)
    return SelectedModel(
        config, chosen, choice, from_bytes(data, f"{ledger.storage.shown(ledger.run_key(config, chosen))}/{WEIGHTS}")
    )


def stored_replicates(root: str | Path, run: str, tracking_uri: str | None = None) -> list[int]:
    """The replicates of a trial whose weights are stored, at least one. Arguments and errors: as of `find_model`."""
    ledger = Ledger(open_storage(root))
    config = _config_of(ledger, run, tracking_uri)
    choose_replicate(ledger, config, None)  # says what is missing, if all are
    return [r for r in _finished_rows(ledger, config) if ledger.holds(config, r, WEIGHTS)]


def _config_of(ledger: Ledger, run: str, tracking_uri: str | None) -> str:
    if not MLFLOW_ID.fullmatch(run.lower()):
        return config_of_prefix(ledger, run)
    config = config_of_mlflow_run(run.lower(), tracking_uri, ledger.storage.root)
    if not ledger.knows(config):  # a bucket has no folder that could exist
        raise UserError(f"--run {run}: that is trial {trial_id(config)}, which is not under --root "
                        f"{ledger.storage.root}")  # fmt: skip
    return config


def config_of_prefix(ledger: Ledger, run: str) -> str:
    """The one config id of the ledger that begins with `run`; `UserError` with the candidates or the nearest id."""
    if CONFIG_ID.fullmatch(run) and ledger.storage.exists(f"{Ledger.config_key(run)}/config.json"):
        return run
    ids = [
        name
        for head in ledger.storage.list("results")
        for name in ledger.storage.list(f"results/{head}")
        if CONFIG_ID.fullmatch(name)
    ]
    where = f"--run {run!r}"
    if not ids:
        raise UserError(f"{where}: there are no results under --root {ledger.storage.root}")
    matches = [name for name in ids if name.startswith(run.lower())] if run else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UserError(f"{where}: {len(matches)} trials begin so: {named_trials(ledger, matches)}")
    if run in list_studies(ledger.storage):
        labels = trial_labels(StudyFolder(ledger.storage, run).plan_or_empty())
        own = [f"{trial_id(config)} ({label})" for config, label in labels.items()]
        raise UserError(f"{where}: that is a study; expected one of its trials{f': {listed(own, NAMED)}' * bool(own)}")
    close = nearest(run, [trial_id(name) for name in ids])
    there = "" if close else f": {named_trials(ledger, sorted(ids))}"
    raise UserError(
        f"{where}: no such trial among the {len(ids)} under {ledger.storage.root}{close or there}; expected the id of "
        f"a trial (its first digits do; `{command_text('status STUDY')}` lists them) or the 32 digits of an MLflow run"
    )


def named_trials(ledger: Ledger, ids: Sequence[str]) -> str:
    """The first of some trials, with what they are; no more of them are read."""
    names = [f"{_short(name, ids)} ({_describe(ledger, name)})" for name in ids[:NAMED]]
    return listed([*names, *ids[NAMED:]], NAMED)


def config_of_mlflow_run(run_id: str, tracking_uri: str | None, root: Path | str) -> str:
    """The config id that an MLflow run shows; `UserError` if the store, the run or its tag is not there."""
    from d2l_study.study.mlflow import address
    from d2l_study.study.mlflow import tags as mlflow_tags

    uri, store = address.existing_store(tracking_uri, root, f"--run {run_id}: an MLflow run")
    try:
        run = store.get_run(run_id)
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"--run {run_id}: not in the MLflow store {uri}: {address.one_line(error)}") from None
    tags = run.data.tags
    if mlflow_tags.CONFIG in tags:
        return str(tags[mlflow_tags.CONFIG])
    if tags.get(mlflow_tags.KIND) == "study":
        children = store.search_runs([run.info.experiment_id], max_results=50)
        trials = [c.data.tags[mlflow_tags.TRIAL] for c in children if mlflow_tags.TRIAL in c.data.tags]
        raise UserError(f"--run {run_id}: the page of a whole study; expected one of its trials: {listed(trials)}")
    raise UserError(f"--run {run_id}: an MLflow run of something else: it has no tag {mlflow_tags.CONFIG}")


def choose_replicate(ledger: Ledger, config: str, replicate: int | None) -> tuple[int, str]:
    """The replicate to take, and why. `UserError` if there is none with weights."""
    name, rows = trial_id(config), _finished_rows(ledger, config)
    if not rows:
        raise UserError(f"trial {name}: none of its runs is finished")
    if replicate is not None and replicate not in rows:
        raise UserError(f"--replicate {replicate}: trial {name} has the replicates {listed(rows, 40)}")
    stored = [r for r in rows if ledger.holds(config, r, WEIGHTS)]
    if replicate is not None:
        if replicate not in stored:
            raise _no_weights_error(ledger, config, rows, stored, replicate)
        return replicate, "as asked for"
    if not stored:
        raise _no_weights_error(ledger, config, rows, stored, None)

    top = max(_val_auc(rows[r]) for r in stored)
    best = next(r for r in stored if _val_auc(rows[r]) >= top - TIE)
    if len(stored) == 1:
        return best, "the only one with stored weights"
    return best, _choice_text([_val_auc(rows[r]) for r in stored])


def _finished_rows(ledger: Ledger, config: str) -> dict[int, dict[str, Any]]:
    """The rows of a configuration's committed runs, by replicate."""
    from d2l_study.study.plan.plan import committed_replicates

    done = sorted(committed_replicates(ledger, config))
    return {r: record["row"] for r in done if (record := ledger.read(config, r))}


def _choice_text(scores: list[float]) -> str:
    """Why the first of the replicates with the highest validation AUC is taken; a tie is said to be one."""
    top = max(scores)
    if top == -math.inf:
        return f"the first of {len(scores)}, none of which has a validation bag AUC"
    tied = sum(score >= top - TIE for score in scores)
    figure = f"(bag AUC {top:.4f})"
    if tied == len(scores):
        return f"of {tied} that tie on validation {figure}, the first"
    if tied > 1:
        return f"of {len(scores)} the first of {tied} that tie as the best on validation {figure}"
    return f"of {len(scores)} the best on validation {figure}"


def _no_weights_error(
    ledger: Ledger, config: str, rows: dict[int, dict[str, Any]], stored: Iterable[int], replicate: int | None
) -> UserError:
    which = f"trial {trial_id(config)}" + ("" if replicate is None else f", replicate {replicate}")
    asked = rows[replicate] if replicate is not None else next(iter(rows.values()))
    if asked.get("status") == "failed":
        return UserError(f"{which}: failed, and left no model: {asked.get('cause')}")
    content = ledger.known_config(config)
    readings = {"attention": "the attention of a teacher", "pooled": "a teacher whose bags are pooled in another way",
                "smoothed": "a teacher whose instance scores are smoothed"}  # fmt: skip
    if reading := readings.get(content.get("stage", "")):
        teachers = listed(trial_id(t) for t in content.get("teachers", ()))
        return UserError(f"{which}: {reading}, no model of its own; label with its teacher {teachers}")
    if content.get("stage") in CLASS_MAPS:
        return UserError(f"{which}: a class map of whole images ({content['stage']}), which labels no patches; label "
                         "with a teacher or a student")  # fmt: skip
    others = f" (replicates with weights: {listed(stored)})" if stored else ""
    number = replicate if replicate is not None else max(rows, key=lambda r: (_val_auc(rows[r]), -r))
    one = ["trial", "--id", trial_id(config), "--replicate", str(number), "--weights",
           "--root", str(ledger.storage.root)]  # fmt: skip
    return UserError(
        f"{which}: its weights are not stored{others}. A space keeps those of each arm's best configuration "
        "(`keep_weights: best`) unless it says `all` or `none`. To train this run again for its weights:\n  "
        f"{command_text(shlex.join(one))}\nor every run of its study:\n  "
        f"{training_command(ledger.storage, asked.get('made_by'))}"
    )


def _val_auc(row: dict[str, Any]) -> float:
    """The validation bag AUC that replicates are chosen by; −∞ for a run that has none."""
    value = row.get("val_bag_auc")
    return -math.inf if value is None or math.isnan(value) else value


def training_command(storage: Storage, study: str | None) -> str:
    """The command that trains a study's runs again whose weights are missing."""
    from d2l_study.study.space.files import find_space

    space, overrides, replicates = "SPACE", [], []
    with contextlib.suppress(OSError, KeyError, DamagedError):
        resolved = StudyFolder(storage, study or "").resolved()["space"]
        space = resolved["name"]
        overrides = [o for o in resolved["overrides"] if not o.startswith("keep_weights=")]
        replicates = ["--replicates", str(resolved["replicates"])]
        try:
            find_space(space)
        except UserError:  # a file of the user's own
            space = resolved["file"]
    words = ["run", "--space", space, *(["--study", study] if study else []), *replicates]
    words += ["--set", *overrides, "keep_weights=all", "--root", str(storage.root)]
    return command_text(shlex.join(words))


def _short(name: str, among: Iterable[str]) -> str:
    """The trial id, or as many more digits as tell it from the others."""
    length = TRIAL_ID_LENGTH
    while length < ID_LENGTH and sum(other.startswith(name[:length]) for other in among) > 1:
        length += 2
    return name[:length]


def _describe(ledger: Ledger, config: str) -> str:
    """The stage of a configuration, or why it is not known, and how many of its runs are finished."""
    from d2l_study.study.plan.plan import committed_replicates

    try:
        stage = ledger.read_config(config)["stage"]
    except FileNotFoundError:
        stage = "config.json lost"
    except (DamagedError, KeyError, OSError):
        stage = "config.json cannot be read"
    count = len(committed_replicates(ledger, config))
    return f"{stage}, {count} replicate{'s' if count != 1 else ''}"
