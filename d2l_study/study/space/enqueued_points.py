"""The start points of a search, `search: {enqueue: [{epsilon: 2, lambda_adv: 1}]}`, checked key by key.

Start points are the first trials of every arm, at every point of its axes. Each is a map of keys, "section.key" or the
key alone, and values of their distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from d2l_study.errors import UserError, counted, listed, nearest, short
from d2l_study.options import as_yaml
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.key_checks import typed_value
from d2l_study.study.space.keys import SECTIONS, GivenValue, section_class
from d2l_study.study.space.space import Space


def with_typed_start_points(space: Space, where: str) -> Space:
    """The space with its start points as "section.key" -> value in the key's type. where: the place of `enqueue`, as
    messages name it.

    `UserError` for a grid, more points than trials, an unknown key, a key that no arm searches, a value outside its
    distribution, and a point that is there twice.
    """
    search = space.search
    if search is None or not search.enqueue:
        return space
    if search.method == "grid":
        raise UserError(f"{where}: start points are not allowed with method grid, which trains every point of the "
                        "axes; expected search.method random, tpe, gp or cmaes")  # fmt: skip
    many = len(search.enqueue)
    if many > search.trials:
        raise UserError(f"{where}: {counted(many, 'start point')} are not allowed; expected at most "
                        f"{search.trials}, the trials of each arm (search.trials)")  # fmt: skip
    searched = _searched_keys(space)
    found: list[dict[str, Any]] = []
    for number, point in enumerate(search.enqueue, start=1):
        place = f"{where} (entry {number} of {many})"
        if not point:
            raise UserError(f"{place}: names no key; expected some of {listed(searched)}")
        typed: dict[str, Any] = {}
        for name, value in point.items():
            key = _full_key(space, searched, name, place)
            if key in typed:
                raise UserError(f"{place}: {key}: is there twice")
            typed[key] = _typed_in(space, searched[key], key, GivenValue(value, f"{place}: {key}"))
        if typed in found:
            raise UserError(f"{place}: the same point as entry {found.index(typed) + 1}; a point is tried once")
        found.append(typed)
    return replace(space, search=replace(search, enqueue=tuple(found)))


def _searched_keys(space: Space) -> dict[str, dict[str, Distribution]]:
    """Key ("section.key") -> arm -> its distribution there, of every key that an arm searches."""
    found: dict[str, dict[str, Distribution]] = {}
    for arm in space.methods:
        for section, keys in space.arm_keys(arm).items():
            for key, value in keys.items():
                if isinstance(value, Distribution):
                    found.setdefault(f"{section}.{key}", {})[arm] = value
    return found


def _full_key(space: Space, searched: Mapping[str, Any], name: Any, place: str) -> str:
    """The searched key that a start point names, as "section.key" or by the key alone."""
    text = str(name)
    fitting = [key for key in searched if text in (key, _bare(key))]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UserError(f"{place}: {text}: several sections have this key: {listed(fitting)}")
    known = [
        f"{section}.{key}"
        for section in SECTIONS
        for cls in dict.fromkeys(section_class(section, _dataset(space, arm)) for arm in space.methods)
        for key in cls.keys()  # noqa: SIM118
    ]
    if text in known or text in map(_bare, known):
        raise UserError(f"{place}: {text}: no arm searches this key (searched: {listed(searched)})")
    hint = nearest(text, [*searched, *map(_bare, searched)]) or nearest(text, [*known, *map(_bare, known)])
    raise UserError(f"{place}: {short(text)}: unknown key{hint or f' (searched: {listed(searched)})'}")


def _typed_in(space: Space, arms: Mapping[str, Distribution], key: str, written: GivenValue) -> Any:
    """The value of a start point in the type of its key; it must lie in the distribution of every arm that has one."""
    section, _, name = key.partition(".")
    value = None
    for arm, distribution in arms.items():
        value = typed_value(section_class(section, _dataset(space, arm)), name, written, axis=False)
        if not distribution.holds(value):
            where = f" of arm {arm}" if len(set(arms.values())) > 1 else ""
            raise UserError(f"{written.where}: {short(as_yaml(value))} is not allowed; expected a value of its "
                            f"distribution {distribution.text}{where}")  # fmt: skip
    return value


def _dataset(space: Space, arm: str) -> Any:
    """The data set of an arm; of an axis of them the first."""
    found = space.arm_keys(arm)["data"].get("dataset")
    return found[0] if isinstance(found, tuple) else found


def _bare(key: str) -> str:
    return key.partition(".")[2]
