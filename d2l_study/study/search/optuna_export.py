"""A search as Optuna's studies, for optuna-dashboard and for Optuna's own figures.

Each search (an arm, at a point of its axes) becomes an Optuna study `STUDY: ARM key=value`, with the same numbers of
trials, parameters, values and states. Values are means over replicates. A trial that was ended early has as its
intermediate value the validation AUC at that step. A trial of `method: random` or `grid` of which nothing has been
trained yet is waiting.
"""

from __future__ import annotations

import datetime
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.search.arm_search import search_name
from d2l_study.study.search.optuna_terms import STATES, directions_of, optuna_distributions
from d2l_study.study.search.trial import COMPLETE, OPEN, PRUNED, trial_outcome
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.search_options import ADAPTIVE

MARK, WRITTEN_BY = "written_by", "d2l search export"
"""The attribute of an Optuna study, and its value, by which a file of ours is known."""

WAITING = "WAITING"


@dataclass(frozen=True)
class RunTimes:
    """When the runs of a trial began and ended, in local time as Optuna has it; None where it is not known.

    The beginning is the end of a run less its seconds of training and evaluation. begun: whether anything of the trial
    is there."""

    start: datetime.datetime | None
    end: datetime.datetime | None
    begun: bool


def export_search(folder: StudyFolder, document: Mapping[str, Any], storage: Any) -> dict[str, Counter[str]]:
    """Write the searches of a study into an empty storage of Optuna. document: the content of `search.json`; trials
    that have ended since it was written are taken from the ledger.

    Returns the name of each Optuna study, and how many of its trials are in which state (`TrialState`'s names).
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    definition = document["definition"]
    asked = folder.replicates_asked  # others are no part of a trial
    replicates = {e["config_id"]: [r for r in e["replicates"] if r < asked] for e in folder.plan_or_empty()}
    found: dict[str, Counter[str]] = {}
    for number, search in enumerate(definition["searches"]):
        name = f"{folder.name}: {search_name(search['arm'], search['at'])}"
        study = optuna.create_study(storage=storage, study_name=name, directions=directions_of(definition["goals"]))
        study.set_user_attr(MARK, WRITTEN_BY)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(definition["metrics"])
        about = {"study": folder.name, "arm": search["arm"], "at": search["at"], "method": definition["method"],
                 "values": "means over replicates"}  # fmt: skip
        for key, value in about.items():
            study.set_user_attr(key, value)
        ways = {key: Distribution.from_dict(written) for key, written in search["distributions"].items()}
        mine = sorted((t for t in document["trials"] if t["search"] == number), key=lambda trial: trial["trial"])
        frozen = folder.storage.map(partial(_frozen_trial, folder, definition, ways, replicates), mine)
        study.add_trials(frozen)
        found[name] = Counter(trial.state.name for trial in frozen)
    return found


def _frozen_trial(
    folder: StudyFolder, definition: Mapping[str, Any], ways: Mapping[str, Distribution],
    planned: Mapping[str, Sequence[int]], trial: Mapping[str, Any],
) -> Any:  # fmt: skip
    """A trial of `search.json` as Optuna's `FrozenTrial`. ways: the distributions of its search; planned: config_id ->
    replicates."""
    from optuna.trial import TrialState, create_trial

    replicates = planned.get(trial["config_id"], ())
    state, values, cause, partial = trial["state"], trial["values"], trial["cause"], trial["partial"]
    if state == OPEN and replicates:
        outcome = trial_outcome(folder, trial["config_id"], replicates, definition["metrics"])
        state, values, cause, partial = outcome or (OPEN, None, None, None)
    times = _times(folder, trial["config_id"], replicates)
    waiting = state == OPEN and not times.begun and definition["method"] not in ADAPTIVE
    params, enqueued = dict(trial["params"]), definition.get("enqueue", [])
    about: dict[str, Any] = {"trial_id": trial["trial_id"], "config_id": trial["config_id"], "label": trial["label"],
                             "study": folder.name, "replicates": len(replicates)}  # fmt: skip
    fixed = {}
    if trial["trial"] < len(enqueued):
        about["start_point"] = True
        fixed = {key: value for key, value in enqueued[trial["trial"]].items() if key in params}
    if cause is not None:
        about["cause"] = cause
    made = create_trial(
        state=TrialState[WAITING if waiting else STATES[state]], params=params,
        distributions=optuna_distributions(ways), values=values if state == COMPLETE else None, user_attrs=about,
        # As `Study.enqueue_trial` says it, so that Optuna would train these values.
        system_attrs={"fixed_params": params if waiting else fixed} if waiting or fixed else None,
        intermediate_values={int(partial[0]): partial[1]} if state == PRUNED and partial else None,
    )  # fmt: skip
    made.datetime_start = None if waiting else times.start or times.end or datetime.datetime.now()
    if made.state.is_finished():
        made.datetime_complete = times.end or made.datetime_start
        if times.end is None:
            made.set_user_attr("times", "not known")
    return made


def _times(folder: StudyFolder, config: str, replicates: Sequence[int]) -> RunTimes:
    """When the runs of a configuration began and ended, from their records."""
    starts, ends, begun = [], [], False
    for replicate in replicates:
        record, seconds = folder.ledger.read(config, replicate, folder.fresh_of), 0.0
        ended = record["row"] if record else folder.ledger.pruned(config, replicate, folder.name)
        ended = ended or folder.failure(config, replicate)
        begun = begun or ended is not None or folder.ledger.has_checkpoint(config, replicate)
        at = ended and (ended.get("committed_at") or ended.get("at"))
        if not at:
            continue
        if record is not None:
            seconds = sum(record["row"].get(key) or 0.0 for key in ("train_seconds", "eval_seconds"))
        end = datetime.datetime.fromisoformat(at).astimezone().replace(tzinfo=None)
        ends.append(end)
        starts.append(end - datetime.timedelta(seconds=seconds))
    return RunTimes(min(starts, default=None), max(ends, default=None), begun)
