"""What `run` and `plan` print of a search before any work: its arms, distributions and budget, and how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2l_study.errors import counted
from d2l_study.study.commands.device_line import show_device
from d2l_study.study.commands.plan_table import Listing, list_trials, show_trial_totals
from d2l_study.study.plan.configurations import configurations, text_of
from d2l_study.study.plan.cost import Estimate, estimate
from d2l_study.study.plan.plan import Plan
from d2l_study.study.search.search import Search
from d2l_study.study.search.trial import OPEN
from d2l_study.study.space.schedules import RUNGS, WARM_UP
from d2l_study.study.space.search_options import SearchOptions
from d2l_study.study.space.space import Space
from d2l_study.terminal import print_wrapped

if TYPE_CHECKING:
    from pandas import DataFrame

    from d2l_study.study.commands.prepare_study import PreparedStudy

SAMPLERS = {
    "tpe": "tree-structured Parzen estimator, {keys}, trials at work counted as bad",
    "gp": "Gaussian process, expected improvement",
    "cmaes": "CMA-ES",
    "random": "draws, the same in every arm",
    "grid": "every point of the axes",
}


def method_text(options: SearchOptions) -> str:
    """The method of a search in words. Of several metrics Optuna's estimator draws each key for itself."""
    keys = "multivariate" if len(options.names) == 1 else "each key for itself"
    return SAMPLERS[options.method].format(keys=keys)


def estimate_search(study: PreparedStudy, rows: DataFrame | None, concurrent: int) -> Estimate:
    """The predicted time for what is left of a search. Random draws stand for the trials not asked for yet. rows: as of
    `estimate`."""
    search, plan = study.search, study.plan
    assert search is not None
    asked = [trial.configuration for trial in plan.trials()]
    drawn = [c for c in configurations(study.space, study.checksum) if c.stage == study.space.stage]
    stand_in = drawn[max(0, len(drawn) - search.left) :] if search.left else []
    done = {c.config_id: plan.done.get(c.config_id, set()) for c in asked}
    left = Plan([*asked, *stand_in], plan.replicates, done)
    return estimate(left, rows, concurrent, study.space.resources, study.options.limit, grouped=False)


def show_search(study: PreparedStudy, duration: str, listing: Listing) -> None:
    """Print what a search will do, how, and how far it is."""
    search, options, plan = study.search, study.space.search, study.plan
    assert search is not None and options is not None
    arms = list(dict.fromkeys(problem.label for problem in search.arm_searches))
    fixed = [problem.label for problem in search.arm_searches if not problem.distributions]
    print_wrapped(f"{study.name}: {study.space.description}")
    ended = [t for t in search.trials if t.state != OPEN]
    total = len(search.trials) + search.left  # more than the budget, if that was lowered
    going_on = counted(sum(len(trial.replicates) for trial in plan.trials()), "run")
    print_wrapped(
        f"search by {options.method} ({method_text(options)}): {counted(options.trials, 'trial')} "
        f"for {'each of ' if len(arms) > 1 else ''}{counted(len(arms), 'arm')} ({', '.join(arms)}), "
        f"{_first_trials(options)}",
        "  ",
    )
    for line in start_point_lines(study.space):
        print(f"  {line}")
    for name in fixed:
        print(f"  {name} has no distribution: it is one trial")
    words = ", ".join(f"{name} ({goal})" for name, goal in zip(options.names, options.goals, strict=True))
    print_wrapped(f"looking at {words}, the mean of {counted(plan.replicates, 'replicate')}" + (
        "; ORACLE: this search sees true instance labels" if options.sees_labels else ""), "  ")  # fmt: skip
    for line in _distribution_lines(search):
        print_wrapped(line, "    ")
    print_wrapped(f"schedule: {schedule_text(study.space)}", "  ")
    print_wrapped(
        f"{counted(total, 'trial')} × {counted(plan.replicates, 'replicate')} = "
        f"{counted(total * plan.replicates, 'run')}: {counted(len(ended), 'trial')} told, {len(search.open)} to go on "
        f"with{f' ({going_on})' if search.open else ''}, {search.left} to ask"
        + (f" (--limit: {counted(study.options.limit, 'trial')})" if study.options.limit is not None else ""),
        "  ",
    )
    show_device(study)
    print_wrapped(duration, "  ")
    if listing.lists(len(search.trials)):
        list_trials(search, plan)
    elif listing is not Listing.NONE:
        show_trial_totals(search)


def _first_trials(options: SearchOptions) -> str:
    """How the first trials of a search by a sampler are chosen."""
    drawn = min(options.startup, options.trials)
    if not options.enqueue:
        return f"the first {drawn} drawn at random"
    first = counted(len(options.enqueue), "start point")
    more = drawn - len(options.enqueue)
    return f"beginning with {first}" + (f" and {counted(more, 'random draw')}" if more > 0 else "")


def start_point_lines(space: Space) -> list[str]:
    """The start points of a space's search, as `plan` shows them; none without."""
    points = space.search.enqueue if space.search is not None else ()
    shown = [", ".join(f"{key}={text_of(value)}" for key, value in point.items()) for point in points]
    return [f"start point, trial {number} of each arm: {text}" for number, text in enumerate(shown)]


def _distribution_lines(search: Search) -> list[str]:
    arms: dict[tuple[str, str], list[str]] = {}
    for problem in search.arm_searches:
        for key, distribution in problem.distributions.items():
            names = arms.setdefault((key, distribution.text), [])
            if problem.arm not in names:
                names.append(problem.arm)
    every = {problem.arm for problem in search.arm_searches}
    return [
        f"{key} ∈ {text}" + ("" if set(names) == every else f"  ({', '.join(names)})")
        for (key, text), names in arms.items()
    ]


def schedule_text(space: Space) -> str:
    """The space's `schedule` in words."""
    if space.schedule == "asha":
        shares = " and ".join(f"1/{round(1 / share)}" for share in RUNGS)
        return f"asha: at {shares} of its steps a trial goes on if it is in the best third, by validation AUC"
    if space.schedule == "median":
        return f"median: from 1/{round(1 / WARM_UP)} of its steps on a trial ends if it is below the others' median"
    return "none: every trial is trained to its end"
