"""The configurations of a plan: each in a line, or many of them summed up in a table that fits a screen."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from d2l_study.errors import counted
from d2l_study.options import value_text
from d2l_study.study.plan.cost import Estimate, human_seconds
from d2l_study.study.plan.plan import Plan
from d2l_study.study.search.search import Search
from d2l_study.study.search.trial import COMPLETE, FAILED, OPEN, PRUNED
from d2l_study.study.space.configuration import Configuration
from d2l_study.terminal import print_wrapped

if TYPE_CHECKING:
    from d2l_study.study.commands.prepare_study import PreparedStudy

FEW = 12
"""Configurations that are listed one by one unasked. More are summed up."""

_MOST_ARMS = 14
"""Lines for arms. What is over is summed up in the last."""

_MOST_VALUES = 10
"""Values of an axis that has a line for each."""

_MOST_LINES = 28
"""Lines of the whole table. Axes for which there is no more room are named."""


class Listing(enum.Enum):
    """What a plan says of each configuration: nothing; what fits a screen, in a line each or summed up; or all."""

    NONE = "none"
    FITTING = "fitting"
    ALL = "all"

    def lists(self, count: int) -> bool:
        """Whether so many are listed one by one."""
        return self is Listing.ALL or (self is Listing.FITTING and count <= FEW)


def list_configurations(plan: Plan) -> None:
    """Print every configuration and its state."""
    for configuration in plan.configurations:
        missing = len(plan.missing(configuration))
        state = "done" if not missing else f"{missing} of {plan.replicates} replicates to run"
        print(f"    {configuration.config_id[:10]}  {configuration.label}: {state}")


def list_trials(search: Search, plan: Plan) -> None:
    """Print every trial that a search has asked for, its state and its values, or what is to be run of it."""
    missing = {trial.configuration.config_id: len(trial.replicates) for trial in plan.trials()}
    for trial in search.trials:
        said = ", ".join(f"{v:.4g}" for v in trial.values) if trial.values else trial.cause or ""
        if trial.config_id in missing:
            said = f"and {missing[trial.config_id]} of {counted(plan.replicates, 'replicate')} to run"
        print(f"    {trial.config_id[:10]}  {trial.label}: {trial.state} {said}".rstrip())


@dataclass
class _Total:
    """The sums of some configurations. seconds: their part of the predicted time."""

    runs: int = 0
    done: int = 0
    now: int = 0
    failed: int = 0
    seconds: float = 0.0

    def add(self, other: _Total) -> None:
        """Add the sums of others."""
        self.runs += other.runs
        self.done += other.done
        self.now += other.now
        self.failed += other.failed
        self.seconds += other.seconds


Lines = list[tuple[str, _Total | None]]
"""Lines of a table: a name with its sums, or a heading."""


def show_totals(study: PreparedStudy, predicted: Estimate) -> None:
    """Print runs, and what is done and to run, by arm and by the values of each axis."""
    plan = study.plan
    totals = _totals(study, predicted)
    arms: dict[tuple[str, str], list[Configuration]] = {}
    unique: dict[str, Configuration] = {}
    for c in plan.configurations:
        if unique.setdefault(c.config_id, c) is c:  # one that two arms share is trained, and counted, once
            arms.setdefault((c.stage, c.method), []).append(c)
    lines: Lines = [("arm", None), *_arm_lines(arms, totals)]
    left_out = []
    for key in plan.configurations[0].varied:
        block = _axis_lines(key, arms, totals)
        if block and len(lines) + len(block) <= _MOST_LINES:
            lines += block
        elif block or _varying(key, arms.values()):
            left_out.append(key)
    _print_table(lines)
    if left_out:
        print_wrapped(f"varied too: {', '.join(left_out)}", "    ")
    print(f"    --list lists all {len(totals)} configurations")


def _totals(study: PreparedStudy, predicted: Estimate) -> dict[str, _Total]:
    """config_id -> its sums."""
    plan, failures = study.plan, study.folder.failure_keys()
    now = {trial.configuration.config_id: len(trial.replicates) for trial in plan.trials(study.options.limit)}
    found = {}
    for c in plan.configurations:
        missing = plan.missing(c)
        failed = sum(study.folder.failure_key(c.config_id, r) in failures for r in missing)
        found[c.config_id] = _Total(
            plan.replicates, plan.replicates - len(missing), now.get(c.config_id, 0), failed,
            predicted.shares.get(c.config_id, 0.0),
        )  # fmt: skip
    return found


def _sum(configurations: Iterable[Configuration], totals: dict[str, _Total]) -> _Total:
    found = _Total()
    for c in configurations:
        found.add(totals[c.config_id])
    return found


def _arm_lines(arms: dict[tuple[str, str], list[Configuration]], totals: dict[str, _Total]) -> Lines:
    found: Lines = [(method, _sum(some, totals)) for (_, method), some in arms.items()]
    if len(found) <= _MOST_ARMS:
        return found
    rest = [c for some in list(arms.values())[_MOST_ARMS - 1 :] for c in some]
    return [*found[: _MOST_ARMS - 1], (f"… {len(found) - _MOST_ARMS + 1} more arms", _sum(rest, totals))]


def _varying(key: str, arms: Iterable[list[Configuration]]) -> list[list[Configuration]]:
    """The arms within which a key varies. Where it only tells arms apart, their lines say it already."""
    return [some for some in arms if len({c.values[key] for c in some if key in c.values}) > 1]


def _axis_lines(key: str, arms: dict[tuple[str, str], list[Configuration]], totals: dict[str, _Total]) -> Lines:
    """The heading and the values of an axis; none if there are more values than a screen has room for."""
    varying = _varying(key, arms.values())
    by_value: dict[Any, list[Configuration]] = {}
    for c in (c for some in varying for c in some):
        by_value.setdefault(c.values[key], []).append(c)
    if not by_value or len(by_value) > _MOST_VALUES:
        return []
    heading = key if len(varying) == len(arms) else f"{key}, in {len(varying)} of {counted(len(arms), 'arm')}"
    return [(heading, None), *((value_text(v), _sum(by_value[v], totals)) for v in in_order(by_value))]


def in_order(values: Iterable[Any]) -> list[Any]:
    """The values of an axis: numbers by size, others as they were written."""
    found = list(values)
    return sorted(found) if all(isinstance(v, int | float) for v in found) else found


def _print_table(lines: Lines) -> None:
    """Print the sums under one another; without the column of failed runs where none has failed."""
    sums = [total for _, total in lines if total is not None]
    columns: list[tuple[str, Callable[[_Total], str]]] = [
        ("runs", lambda t: f"{t.runs:,}"),
        ("there already", lambda t: f"{t.done:,}"),
        ("to run now", lambda t: f"{t.now:,}"),
        ("failed before", lambda t: f"{t.failed:,}"),
        ("time", lambda t: human_seconds(t.seconds) if t.now else "none"),
    ]
    if not any(total.failed for total in sums):
        del columns[3]
    names = [name if total is None else f"  {name}" for name, total in lines]
    side = max(len(name) for name in names)
    widths = [max(len(title), *(len(text(total)) for total in sums)) for title, text in columns]
    titles = [title for title, _ in columns]
    for name, (_, total) in zip(names, lines, strict=True):
        cells = [text(total) for _, text in columns] if total is not None else titles
        first = name is names[0]
        shown = "" if total is None and not first else "  " + "  ".join(
            cell.rjust(width) for cell, width in zip(cells, widths, strict=True))  # fmt: skip
        print(f"    {name.ljust(side) if shown else name}{shown}")


def show_trial_totals(search: Search) -> None:
    """Print how far a search is in each arm, and its best value so far."""
    goal, name = search.options.goals[0], search.options.names[0]
    for number, arm in enumerate(search.arm_searches):
        asked = [trial for trial in search.trials if trial.search == number]
        counts = [(state, sum(trial.state == state for trial in asked)) for state in (COMPLETE, PRUNED, FAILED, OPEN)]
        values = [trial.values[0] for trial in asked if trial.values]
        best = f"; best {name} {(max if goal == 'max' else min)(values):.4g}" if values else ""
        states = ", ".join(
            f"{count} {'at work or left' if state == OPEN else state}" for state, count in counts if count
        )
        print_wrapped(f"{arm.label}: {states or 'nothing asked for yet'}{best}", "    ")
    print(f"    --list lists all {len(search.trials)} trials so far")
