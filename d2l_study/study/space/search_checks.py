"""Checks that the `search` and the `schedule` of a space fit its other keys, and that there are bags to choose by."""

from __future__ import annotations

from collections.abc import Mapping

from d2l_study.errors import UserError, listed
from d2l_study.options import Options
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.schedules import earliest_stop
from d2l_study.study.space.space import Space


def check_search(space: Space, trials_given: bool, shown: str) -> None:
    """`UserError` unless the method of the search fits the space's distributions and axes. trials_given: the space says
    how many trials; shown: the file, as messages name it."""
    search = space.search
    found = {
        method: {
            f"{section}.{key}": value
            for section, keys in space.arm_keys(method).items()
            for key, value in keys.items()
            if isinstance(value, Distribution)
        }
        for method in space.methods
    }
    drawn = list(dict.fromkeys(name for keys in found.values() for name in keys))
    if search is None:
        if drawn:
            raise UserError(f"{shown}: {drawn[0]}: a distribution needs a search, for example  search: {{trials: 20}}")
        return
    if search.method == "grid":
        if drawn:
            raise UserError(f"{shown}: {drawn[0]}: a grid has no distributions; expected a list, or search.method "
                            "random, tpe, gp or cmaes")  # fmt: skip
        if trials_given:
            raise UserError(f"{shown}: search.trials: {search.trials} is not allowed with method grid, which trains "
                            "every point of the axes")  # fmt: skip
        return
    if not drawn:
        raise UserError(f"{shown}: search: no key has a distribution, for example  epsilon: {{low: 1, high: 8}}")
    if "val_distill_loss" in search.names and not space.pairs:
        raise UserError(f"{shown}: search: 'val_distill_loss' is a metric of students; this space has no section "
                        "student")  # fmt: skip
    if "val_distill_loss" in search.names and _may_not_distil(space):
        raise UserError(f"{shown}: search: 'val_distill_loss' is none of a student with lambda_distill 0, which reads "
                        "no soft labels")  # fmt: skip
    for method, keys in found.items():
        parts = keys.get("student.cross_fit")
        if parts is not None and parts.holds(1):
            raise UserError(f"{shown}: student.cross_fit: {parts.text} (method {method}) holds 1, which is no number "
                            "of parts; expected low 2, or choices, for example  {choices: [0, 2, 5]}")  # fmt: skip
    if search.adaptive:
        _check_adaptive(space, found, shown)


def _may_not_distil(space: Space) -> bool:
    """Whether an arm has students that read no soft labels."""
    written = [space.arm_keys(method).get("student", {}).get("lambda_distill", 1.0) for method in space.methods]
    return any(
        value.holds(0) if isinstance(value, Distribution) else 0 in (value if isinstance(value, tuple) else (value,))
        for value in written
    )


def _check_adaptive(space: Space, found: Mapping[str, Mapping[str, Distribution]], shown: str) -> None:
    search = space.search
    assert search is not None
    if space.references:
        raise UserError(f"{shown}: references: a search by {search.method} trains none; name them in the space that "
                        "uses what it finds")  # fmt: skip
    if space.schedule != "none" and search.objectives:
        raise UserError(f"{shown}: schedule: {space.schedule!r} is not allowed with several objectives; expected none")
    points = {method: sum(1 for _ in space.grid(method)) for method in space.methods}
    if len(set(points.values())) > 1:
        most = max(points, key=lambda method: points[method])
        least = min(points, key=lambda method: points[method])
        raise UserError(f"{shown}: methods.{most}: has {points[most]} points of its axes, {least} has {points[least]}: "
                        "the arms would not be tuned equally; write a list of its own as {choices: […]}")  # fmt: skip
    if search.method == "cmaes":
        for method, keys in found.items():
            chosen = [name for name, distribution in keys.items() if distribution.choices]
            if chosen:
                raise UserError(f"{shown}: {chosen[0]}: cmaes searches numbers only, and this key has choices; "
                                "expected search.method tpe or gp")  # fmt: skip
            if len(keys) == 1:
                raise UserError(f"{shown}: search.method: 'cmaes' needs at least two distributions in an arm; {method} "
                                f"has {listed(keys)}; expected tpe or gp")  # fmt: skip


def check_schedule(schedule: str, sections: Mapping[str, Options]) -> None:
    """`UserError` if the schedule could end no trial of this point early. sections: section -> its options; a length
    in epochs is checked when it is known in steps."""
    section = "student" if "student" in sections else "teacher"
    own = sections[section].to_dict()
    if schedule == "none" or own["epochs"] is not None:
        return
    steps, every = own["steps"] * own.get("generations", 1), own["eval_every"]
    if earliest_stop(schedule, steps, every) is None:
        raise UserError(f"schedule: {schedule!r} is not allowed: of {steps} steps, validated every {every}, it could "
                        f"end none early; expected {section}.eval_every ≤ {max(1, steps // 3)}")  # fmt: skip


def check_validation_bags(space: Space, sections: Mapping[str, Options]) -> None:
    """`UserError` if a point has no validation bags and something chooses by them. sections: section -> its options."""
    if getattr(sections["data"], "val_bags", None) != 0:
        return
    none = "and data.val_bags: 0 leaves none"
    for section in ("teacher", "student"):
        select = getattr(sections.get(section), "select", "last")
        if select != "last":
            raise UserError(f"{section}.select: {select} chooses a snapshot by validation bags, {none}; expected last")
    if space.metric is not None and space.metric.startswith("val_"):
        raise UserError(f"metric: {space.metric} is of validation bags, {none}")
    if space.schedule != "none":
        raise UserError(f"schedule: {space.schedule!r} ends trials by validation bags, {none}; expected none")
    search = space.search if space.search is not None and space.search.method != "grid" else None
    seen = [name for name in search.names if name.startswith("val_")] if search is not None else []
    if seen:
        raise UserError(f"search: looks at {seen[0]}, {none}")
