"""A search or a schedule within one `run`: what joins `search` and `search_pruning` to orders, display and MLflow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from d2l_study.errors import DamagedError, counted
from d2l_study.study.ledger.gc_flag import waited_for_collection
from d2l_study.study.ledger.search_document import read_document, write_document
from d2l_study.study.plan.configurations import Checksum, configurations, frame_of, trial_configurations
from d2l_study.study.plan.cost import Estimate, earlier_rows, estimate, work
from d2l_study.study.plan.plan import Plan, committed, extended
from d2l_study.study.search.pruning import METRIC, RUNGS, WARM_UP, Pruner
from d2l_study.study.search.search import COMPLETE, OPEN, Search, Trial, outcome_of, problems_of
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.keys import plain, scientific
from d2l_study.study.space.space import Space
from d2l_study.study.trial.trial import now
from d2l_study.study.trial.trial_request import TrialRequest
from d2l_study.study.tune.queue import SearchQueue

if TYPE_CHECKING:
    from d2l_study.study.commands.request import Study
    from d2l_study.study.ledger.run_files import CURVE
from d2l_study.study.ledger.study_folder import StudyFolder

SAMPLERS = {
    "tpe": "tree-structured Parzen estimator, multivariate, trials at work counted as bad",
    "gp": "Gaussian process, expected improvement",
    "cmaes": "CMA-ES",
    "random": "draws, the same in every arm",
    "grid": "every point of the axes",
}


# ---- asking
def begin_search(study: Study) -> None:
    """Before the runs of a search: tell it what has ended since, and open again what is to be trained further."""
    if study.search is None:
        return
    study.search.settle(planned(study.folder, study.search.configurations, study.plan.replicates))
    study.search.reopen([trial.configuration.config_id for trial in study.plan.trials()])


def typical_work(study: Study) -> float:
    """Predicted work of one trial of a search, in the unit of the orders' (`cost.work`): the mean over draws."""
    drawn = [c for c in configurations(study.space, study.checksum) if c.stage == study.space.stage]
    return sum(map(work, drawn)) / len(drawn) * study.plan.replicates


def varied_keys(study: Study, known: Sequence[str]) -> list[str]:
    """The flat names of the keys that vary, of a search before anything was asked too."""
    return list(known) or (list(study.search.frame.varied) if study.search is not None else [])


def planned(folder: StudyFolder, found: Sequence[Configuration], replicates: int) -> dict[str, list[int]]:
    """config_id -> the replicates that the study has of it: those asked for now, and those of earlier commands."""
    entries = Plan(list(found), replicates).entries()
    return {entry["config_id"]: entry["replicates"] for entry in extended(folder, entries)}


def search_queue(
    study: Study, orders: Sequence[TrialRequest], concurrent: int,
    make_order: Callable[[Configuration, Sequence[int]], TrialRequest],
    added: Callable[[list[dict[str, Any]], list[TrialRequest]], None],
) -> SearchQueue:  # fmt: skip
    """The queue of a search. make_order: of a configuration and its replicates; added: hears of the plan's new entries
    and of the orders for them."""
    search, folder, plan = study.search, study.folder, study.plan
    assert search is not None
    replicates = planned(folder, search.configurations, plan.replicates)

    def make(trial: Trial) -> list[TrialRequest]:
        new = [c for c in trial.configurations if (c.method, c.config_id) not in known]
        known.update((c.method, c.config_id) for c in new)
        entries = Plan(new, plan.replicates).entries()
        if entries:
            folder.write_plan([*folder.plan(), *entries])
            waited_for_collection(folder.storage, "")
        orders = []
        for c in new:
            if c.config_id in replicates:  # in another arm, or a teacher of an earlier trial
                continue
            replicates[c.config_id] = list(range(plan.replicates))
            weights = (c.teaches or study.space.keep_weights == "all") and c.stage != "attention"
            done = committed(folder.ledger, c.config_id, weights)
            missing = [r for r in replicates[c.config_id] if r not in done]
            if missing:
                orders.append(make_order(c, missing))
            for replicate in replicates[c.config_id] if c.teaches else ():
                folder.ledger.need_weights(c.config_id, replicate, folder.name)
        added(entries, orders)
        return orders

    known = {(c.method, c.config_id) for c in search.configurations}
    limit = study.request.limit
    may_ask = None if limit is None else max(0, limit - len({order.config_id for order in orders}))
    return SearchQueue(search, orders, folder, make, replicates, concurrent, may_ask)


# ---- ending early
def judge_of(study: Study) -> Callable[[TrialRequest, int, Mapping[int, Mapping[str, float]]], bool] | None:
    """Hears every report; True ends the trial, whose runs are then kept as pruned. None without a schedule.

    The curves of what is there already, done or ended early, are heard first, so a study that goes on judges as it did.
    """
    if study.space.schedule == "none":
        return None
    pruner, ledger, folder = Pruner(study.space.schedule), study.folder.ledger, study.folder
    expected: set[str] = set()
    complete = once_complete(folder)

    def expect(c: Configuration) -> None:
        expected.add(c.config_id)
        own = c.sections[study.space.stage].to_dict()
        group = json.dumps([c.method, scientific(c.sections["data"])], sort_keys=True)
        pruner.expect(c.config_id, group, own["steps"] * own.get("generations", 1))

    replicates = planned(folder, study.plan.configurations, study.plan.replicates)
    for c in study.plan.configurations:
        if c.stage != study.space.stage or c.config_id in expected:
            continue
        expect(c)
        for replicate in replicates[c.config_id]:
            if ledger.has(c.config_id, replicate):
                pruner.heard(c.config_id, replicate, _curve(folder, c.config_id, replicate), done=True)
            elif (ended := ledger.pruned(c.config_id, replicate, folder.name)) is not None:
                pruner.heard(c.config_id, replicate, ended["curve"])

    def judge(order: TrialRequest, step: int, values: Mapping[int, Mapping[str, float]]) -> bool:
        if order.stage != study.space.stage:
            return False  # a teacher whose students wait for it, or a reference
        if order.config_id in complete:
            return False  # trained again to where it was
        if order.config_id not in expected:  # asked since
            assert study.search is not None
            expect(next(c for c in study.search.configurations if c.config_id == order.config_id))
        cause = pruner.judge(order.config_id, order.replicates, step, values)
        if cause is None:
            return False
        found = pruner.curve(order.config_id)
        for replicate in order.replicates:
            points = found.points.get(replicate, {})
            ledger.write_pruned(order.config_id, replicate, folder.name, {
                "cause": cause, "step": step, "value": found.best(step / found.steps), "at": now(),
                "curve": [{"step": s, METRIC: v} for s, v in sorted(points.items())],
            })  # fmt: skip
        return True

    return judge


def once_complete(folder: StudyFolder) -> set[str]:
    """The configurations of a search that have come to their end before, by its document: their runs may be lost."""
    document = read_document(folder) or {"trials": []}
    return {t["config_id"] for t in document["trials"] if t.get("once_complete") or t["state"] == COMPLETE}


def forget_pruned(study: Study) -> None:
    """Without a schedule, what an earlier command ended early is trained to its end."""
    folder = study.folder
    if study.space.schedule == "none" and folder.exists():
        if folder.known_resolved().get("space", {}).get("schedule", "none") == "none":
            return
        for trial in study.plan.trials():
            for replicate in trial.replicates:
                folder.ledger.forget_pruned(trial.configuration.config_id, replicate, folder.name)


def _curve(folder: StudyFolder, config: str, replicate: int) -> list[dict[str, Any]]:
    try:
        return json.loads(folder.ledger.read_file(config, replicate, CURVE))
    except (KeyError, FileNotFoundError, DamagedError):
        return []


# ---- what a search would do
def estimate_search(study: Study, concurrent: int) -> Estimate:
    """The time for what is left of a search: what was asked, and draws in the place of what was not."""
    search, plan = study.search, study.plan
    assert search is not None
    asked = [trial.configuration for trial in plan.trials()]
    drawn = [c for c in configurations(study.space, study.checksum) if c.stage == study.space.stage]
    stand_in = drawn[max(0, len(drawn) - search.left) :] if search.left else []
    done = {c.config_id: plan.done.get(c.config_id, set()) for c in asked}
    rows = earlier_rows(study.folder.storage)
    left = Plan([*asked, *stand_in], plan.replicates, done)
    return estimate(left, rows, concurrent, study.space.resources, study.request.limit)


def show_search(study: Study, duration: str, list_all: bool) -> None:
    """Print what a search will do, how, and how far it is."""
    search, options, plan = study.search, study.space.search, study.plan
    assert search is not None and options is not None
    arms = list(dict.fromkeys(problem.label for problem in search.problems))
    fixed = [problem.label for problem in search.problems if not problem.distributions]
    print(f"{study.name}: {study.space.description}")
    told = [t for t in search.trials if t.state != OPEN]
    runs = search.budget * plan.replicates
    print(
        f"  search by {options.method} ({SAMPLERS[options.method]}): {counted(options.trials, 'trial')} "
        f"for {'each of ' if len(arms) > 1 else ''}{counted(len(arms), 'arm')} ({', '.join(arms)}), the first "
        f"{min(options.startup, options.trials)} drawn at random"
    )
    for name in fixed:
        print(f"  {name} has no distribution: it is one trial")
    words = ", ".join(f"{name} ({goal})" for name, goal in zip(options.names, options.goals, strict=True))
    print(f"  looking at {words}, the mean of {plan.replicates} replicates" + (
        "; ORACLE: this search sees true instance labels" if options.sees_labels else ""))  # fmt: skip
    for line in _distribution_lines(search):
        print(f"    {line}")
    print(f"  schedule: {schedule_text(study.space)}")
    print(
        f"  {counted(search.budget, 'trial')} × {counted(plan.replicates, 'replicate')} = {counted(runs, 'run')}: "
        f"{counted(len(told), 'trial')} told, "
        f"{len(search.open)} to go on with, {search.left} to ask"
        + (f" (--limit: {counted(study.request.limit, 'trial')})" if study.request.limit is not None else "")
    )
    print(f"  {duration}")
    if list_all:
        for trial in search.trials:
            values = ", ".join(f"{v:.4g}" for v in trial.values) if trial.values else trial.cause or ""
            print(f"    {trial.config_id[:10]}  {trial.label}: {trial.state} {values}".rstrip())


def _distribution_lines(search: Search) -> list[str]:
    arms: dict[tuple[str, str], list[str]] = {}
    for problem in search.problems:
        for key, distribution in problem.distributions.items():
            names = arms.setdefault((key, distribution.text), [])
            if problem.arm not in names:
                names.append(problem.arm)
    every = {problem.arm for problem in search.problems}
    return [
        f"{key} ∈ {text}" + ("" if set(names) == every else f"  ({', '.join(names)})")
        for (key, text), names in arms.items()
    ]


def schedule_text(space: Space) -> str:
    if space.schedule == "asha":
        shares = " and ".join(f"1/{round(1 / share)}" for share in RUNGS)
        return f"asha: at {shares} of its steps a trial goes on if it is in the best third, by validation AUC"
    if space.schedule == "median":
        return f"median: from 1/{round(1 / WARM_UP)} of its steps on a trial ends if it is below the others' median"
    return "none: every trial is trained to its end"


# ---- the document of a search whose points are known beforehand
def write_fixed(space: Space, folder: StudyFolder, checksum: Checksum) -> None:
    """`search.json` of `method: random` or `grid`, from the ledger, in the form of `search`."""
    assert space.search is not None and not space.adaptive
    options, frame, built = space.search, frame_of(space, checksum), {}  # type: ignore[var-annotated]
    searches: list[dict[str, Any]] = []
    trials: list[dict[str, Any]] = []
    before = once_complete(folder)
    replicates = {entry["config_id"]: entry["replicates"] for entry in folder.plan()}
    grid = options.method == "grid"
    problems = [replace(p, at={}) if grid else p for p in problems_of(space)]
    arms = list(dict.fromkeys(p.arm for p in problems))
    for problem in problems:
        axes = {
            f"{s}.{k}": v for s, keys in space.arm_keys(problem.arm).items() for k, v in keys.items()
            if isinstance(v, tuple)
        }  # fmt: skip
        ways = {k: d.to_dict() for k, d in problem.distributions.items()}
        if grid:
            ways = {key: {"choices": list(values)} for key, values in axes.items()}
        entry = {"arm": problem.arm, "at": plain(problem.at), "distributions": ways}
        if entry not in searches:
            searches.append(entry)
        number = searches.index(entry)
        for draw in range(problem.trials):
            values = {
                place: v.draw(".".join(place), space.base_seed, draw) if isinstance(v, Distribution) else v
                for place, v in problem.values.items()
            }
            sections = space.resolve(values, built)
            (*_, target) = [
                c for c in trial_configurations(space, frame, problem.arm, sections, checksum) if c.stage == space.stage
            ]
            named = {".".join(place): value for place, value in values.items()}
            outcome = outcome_of(folder, target.config_id, replicates.get(target.config_id, ()), options.names)
            state, found, cause, partial = outcome or (OPEN, None, None, None)
            count = sum(t["search"] == number for t in trials)
            trials.append({
                "number": len(trials), "search": number, "trial": count, "arm": problem.arm, "at": entry["at"],
                "params": {key: named[key] for key in ways}, "config_id": target.config_id, "label": target.label,
                "asked": 2 * count, "state": state, "values": found, "cause": cause, "partial": partial,
                "told": 2 * count + 1 if outcome else None, "trial_id": target.config_id[:10],
                "once_complete": target.config_id in before,
            })  # fmt: skip
    definition = {
        "method": options.method, "metrics": list(options.names), "goals": list(options.goals),
        "startup": 0, "oracle": options.sees_labels, "base_seed": space.base_seed, "searches": searches, "arms": arms,
    }  # fmt: skip
    write_document(folder, definition, trials)
