"""Checks that the arms and axes of a new study differ in what is trained.

Two arms, or two values of an axis, may resolve to one configuration. A table would compare it with itself and show a
difference of 0. A `--set` may give all arms the key by which one of them differs, which changes the other arms under
their old names. Both are refused before a study begins. A study that exists is not checked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from d2l_study.errors import UserError, listed, short
from d2l_study.options import Options, as_yaml, field_of
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.files import document_of, shown_path
from d2l_study.study.space.idle_values import idle_keys
from d2l_study.study.space.keys import SECTIONS, Key, arm_sections
from d2l_study.study.space.space import Space
from d2l_study.study.space.training_length import LENGTH_KEYS, sections_in_steps
from d2l_study.study.space.unlabelled_keys import with_acting_unlabelled_keys

OFF = (0, None, "none")
"""Values by which a section switches something off."""


@dataclass(frozen=True)
class _Point:
    """A point of an arm.

    written: (section, key) -> value as the space has it; sections: section -> its options; in_steps: the same with
    every length in steps, and without unlabelled bags that nothing reads; effect: the values that act on
    what is trained (`Options.effect`), the same for two points that are one configuration."""

    arm: str
    written: Mapping[Key, Any]
    sections: Mapping[str, Options]
    in_steps: Mapping[str, Options]
    effect: tuple[Any, ...]


def check_arms(space: Space) -> None:
    """`UserError` if two arms or two values of an axis are one configuration, if a distribution has no effect, or if a
    `--set` changes the key by which arms differ."""
    check_overrides(space)
    shown = shown_path(space.path)
    seen: dict[frozenset[Any], _Point] = {}
    idle: dict[tuple[str, Key], str] = {}
    # (the arm, or "" for all, key of a distribution) -> why it has no effect; "" if it has one
    for drawn in _drawn_points(space):
        _note_idle(space, drawn, idle)
        effects = frozenset(point.effect for point in drawn)
        first = seen.setdefault(effects, drawn[0])
        if first is not drawn[0]:
            raise UserError(f"{shown}: {_same(space, first, drawn[0])}")
        if len(effects) == 1 and len(drawn) > 1:
            reasons = listed([f"{key} does nothing under {why}" for (_, (_, key)), why in idle.items() if why], 4)
            reasons = reasons or "search.enqueue gives its keys the same values in each"
            (arm, _) = _named(space, drawn[0].arm, drawn[0].arm)
            raise UserError(f"{shown}: {arm}: its {len(drawn)} draws are one configuration: {reasons}")
    for (arm, place), why in idle.items():
        if why:
            where = f"methods.{arm}." if arm else ""
            named = where + ".".join(place)
            raise UserError(f"{shown}: {named}: a distribution that does nothing under {why}; give one "
                            "value, or leave it out")  # fmt: skip


def _note_idle(space: Space, drawn: list[_Point], idle: dict[tuple[str, Key], str]) -> None:
    """Add to `idle`, of each distribution of an arm, why it has no effect; "" if it has one at some point."""
    arm = drawn[0].arm
    for section, keys in space.arm_keys(arm).items():
        for key, value in keys.items():
            if isinstance(value, Distribution):
                own = key in space.methods[arm].get(section, {})
                place = (arm if own else "", (section, key))
                reasons = [_idle_keys(point, section).get(key, "") for point in drawn]
                idle[place] = idle.get(place, "-") and ("" if "" in reasons else reasons[0])


def check_overrides(space: Space) -> None:
    """`UserError` for a `--set` of a key by which arms differ: some arms set it, and neither the others nor the common
    section do (or they set it to a value of `OFF`). It would change the others; it is to be set in one arm."""
    document = document_of(space.text, shown_path(space.path))
    for name in space.scientific_overrides:
        section, _, key = name.partition(".")
        if section not in SECTIONS or (document.get(section) or {}).get(key, 0) not in OFF:
            continue
        group = next(g for g in (("teachers", "methods") if space.pairs else ("methods",))
                     if not space.pairs or section in arm_sections(g, True) or section == "data")  # fmt: skip
        arms = _arms_of(space, group)
        having = [arm for arm, own in arms.items() if key in own.get(section, {})]
        others = [arm for arm in arms if arm not in having]
        if having and others:
            places = listed([f"{group}.{arm}.{name}" for arm in (*having, *others)], 4)
            own, rest = (listed([f"{arm!r}" for arm in arms], 4) for arms in (having, others))
            raise UserError(
                f"--set {name}: {own} {'sets' if len(having) == 1 else 'set'} this key and {rest} "
                f"{'does' if len(others) == 1 else 'do'} not, so it would change {rest} alone, under the same name; "
                f"set it in the arm that is meant: {places}"
            )


def _arms_of(space: Space, group: str) -> dict[str, dict[str, dict[str, Any]]]:
    """The arms of a group by name; in a space of students those of the teachers or of the students."""
    if not space.pairs:
        return space.methods
    place = 0 if group == "teachers" else 1
    (section,) = arm_sections(group, True)
    return {pair[place]: {section: space.methods[arm].get(section, {})} for arm, pair in space.pairs.items()}


def _drawn_points(space: Space) -> Iterator[list[_Point]]:
    """For each arm and each point of its axes: the points that its distributions give, or the one point."""
    built: dict[tuple[Any, ...], Options] = {}
    effects: dict[int, tuple[Any, ...]] = {}
    for arm in space.methods:
        for values in space.grid(arm):
            found = []
            for number in range(space.draws(arm)):
                drawn = space.drawn(values, number)
                asked = space.resolve(drawn, built)
                made = with_acting_unlabelled_keys(sections_in_steps(asked))
                sections = {n: s if s is asked[n] else built.setdefault((n, s), s) for n, s in made.items()}
                for section in sections.values():  # `built` keeps them, so that an id names one of them
                    if id(section) not in effects:
                        effects[id(section)] = tuple(sorted(section.effect().items()))
                effect = tuple(effects[id(section)] for section in sections.values())
                found.append(_Point(arm, drawn, asked, sections, effect))
            yield found


def _same(space: Space, first: _Point, second: _Point) -> str:
    """The message: which two points are one configuration, and why."""
    keys = [place for place in dict.fromkeys((*first.written, *second.written)) if _differ(first, second, place)]
    reasons = listed(dict.fromkeys(reason for place in keys for reason in _reasons(first, second, place)), 4)
    if first.arm != second.arm:
        one, other = _named(space, first.arm, second.arm)
        why = reasons or "neither sets anything that tells them apart"
        return f"{one} and {other} are one configuration{_at(space, second)}: {why}; leave one of them out"
    values = listed([f"{'.'.join(place)} {_shown(first, place)} and {_shown(second, place)}" for place in keys], 4)
    (arm, _) = _named(space, first.arm, first.arm)
    in_arms = all(not space.pairs or section in ("teacher", "student") for section, _ in keys)
    where = "" if len(space.methods) == 1 or not in_arms else "; a key that acts in other arms is set there"
    if ("data", "unlabelled_bags") in keys and space.pairs:
        where = "; or let every arm read unlabelled bags (student.unlabelled: true, or teachers with lambda_adv)"
    return f"{arm}: {values} are one configuration: {reasons}; leave one of them out{where}"


def _reasons(first: _Point, second: _Point, place: Key) -> list[str]:
    reasons = [_why(point, place) for point in (first, second)]
    found = [reason for reason in reasons if reason]
    acting = first.in_steps[place[0]].acting_values().get(place[1], _resolved(first, place))
    return found or [f"{place[1]} is {_text(acting)} in both"]


def _why(point: _Point, place: Key) -> str:
    """Why a key has no effect at a point; empty if it has one."""
    section, key = place
    idle = _idle_keys(point, section)
    if key in idle:
        return f"{key} does nothing under {idle[key]}"
    if key in LENGTH_KEYS and _resolved(point, (section, "epochs")) is not None:
        steps = getattr(point.in_steps[section], "steps", None)
        return f"epochs {_shown(point, (section, 'epochs'))} make {steps} steps"
    _, meta = field_of(type(point.sections[section]), key)
    return "" if meta["scientific"] else f"no result depends on {key}"


def _idle_keys(point: _Point, section: str) -> dict[str, str]:
    return {key: why for (name, key), why in idle_keys(point.sections).items() if name == section}


def _differ(first: _Point, second: _Point, place: Key) -> bool:
    return _shown(first, place) != _shown(second, place)


def _shown(point: _Point, place: Key) -> str:
    """A key's value at a point: as written, or else its default."""
    return _text(point.written[place] if place in point.written else _resolved(point, place))


def _resolved(point: _Point, place: Key) -> Any:
    return getattr(point.sections[place[0]], place[1])


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else short(value if isinstance(value, str) else as_yaml(value))


def _at(space: Space, point: _Point) -> str:
    """The values of its arm's axes at a point, in words."""
    axes = [
        f"{key} {_shown(point, (section, key))}"
        for section, keys in space.arm_keys(point.arm).items()
        for key, value in keys.items()
        if isinstance(value, tuple)
    ]
    return f" (at {listed(axes, 4)})" if axes else ""


def _named(space: Space, first: str, second: str) -> tuple[str, str]:
    """Two arms as a message names them: `methods.none`; two students by the part in which they differ."""
    if not space.pairs:
        return f"methods.{first}", f"methods.{second}"
    pairs = space.pairs[first], space.pairs[second]
    if pairs[0][1] == pairs[1][1] and first != second:
        return f"teachers.{pairs[0][0]}", f"teachers.{pairs[1][0]}"
    if pairs[0][0] == pairs[1][0] and first != second:
        return f"methods.{pairs[0][1]}", f"methods.{pairs[1][1]}"
    return first, second
