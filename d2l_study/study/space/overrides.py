"""`--set key=value`: overrides of a space, put in their places before it is checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from d2l_study.command_line import command_text
from d2l_study.errors import UserError, hint_text, listed, nearest, nearest_name, short
from d2l_study.options import Options, field_of
from d2l_study.study.space.keys import (
    ARM_GROUPS,
    SECTIONS,
    Arms,
    GivenValue,
    Key,
    StudyOptions,
    arm_sections,
    datasets_of,
    has_key,
    plain,
    section_class,
    unknown_key_hint,
)
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.search_options import SearchOptions
from d2l_study.study.space.training_length import LENGTH_KEYS
from d2l_study.study.space.yaml_reader import parse_yaml


def apply_overrides(
    leaves: dict[Key, GivenValue], groups: Mapping[str, Sequence[str]], overrides: Iterable[str], students: bool
) -> list[Key]:
    """Put the value of each "key=value" into `leaves`; returns the full keys that they set."""
    pairs = []
    for given in overrides:
        bare, equals, text = given.partition("=")
        if not equals or not bare.strip():
            raise UserError(f"--set {short(given)}: expected key=value, for example --set teacher.epsilon=2")
        pairs.append((bare.strip(), text))
    # The data set decides which keys `data` has, so it is set before bare keys are looked up.
    pairs.sort(key=lambda pair: pair[0] not in ("dataset", "data.dataset"))
    changed: list[Key] = []
    for name, text in pairs:
        key = key_of_override(name, groups, datasets_of(leaves.get(("data", "dataset"))), students)
        where = "--set " + ".".join(key)
        if key in changed:
            raise UserError(f"{where}: given twice")
        leaves[key] = GivenValue(parse_yaml(text, where), where)
        changed.append(key)
    for key in changed:  # a length replaces the one that the space has
        others = LENGTH_KEYS if key[-1] == "steps" else ("steps",) if key[-1] == "epochs" else ()
        for other in others:
            if (replaced := (*key[:-1], other)) not in changed:
                leaves.pop(replaced, None)
    for place in changed:
        for group, methods in groups.items():
            own = [(group, method, *place) for method in methods]
            if place[0] in SECTIONS and all(arm_place in leaves for arm_place in own):
                paths = listed((".".join(arm_place) for arm_place in own), 4)
                raise UserError(f"--set {'.'.join(place)}: every method sets this key itself, so the value would have "
                                f"no effect; set it there: {paths}")  # fmt: skip
    return changed


def key_of_override(name: str, groups: Mapping[str, Sequence[str]], datasets: Sequence[str], students: bool) -> Key:
    """The full key that a `--set` names, dotted or bare."""
    sections = [section for section in SECTIONS if students or section != "student"]
    classes = {section: section_class(section, datasets[0]) for section in sections}
    head, _, rest = name.partition(".")
    if has_key(StudyOptions, name) or name == "references":
        return (name,)
    if head == "labels" and rest:
        return head, rest
    if head in groups and rest:
        methods = groups[head]
        for method in sorted(methods, key=len, reverse=True):  # a method's name may hold dots
            if rest.startswith(method + "."):
                allowed = {section: classes[section] for section in arm_sections(head, students)}
                return head, method, *_in_section(name, rest[len(method) + 1 :], allowed)
        near = nearest(rest.partition(".")[0], methods)
        raise UserError(f"--set {short(name)}: unknown method or no key of one{near} "
                        f"({head}: {listed(methods)}; expected {head}.NAME.SECTION.KEY)")  # fmt: skip
    return _in_section(name, name, {**classes, "resources": Resources, "search": SearchOptions})


def _in_section(name: str, inner: str, classes: Mapping[str, type[Options]]) -> Key:
    section, dot, key = inner.partition(".")
    if dot and section in classes:
        if not has_key(classes[section], key):
            raise UserError(f"--set {short(name)}: unknown key{unknown_key_hint(key, classes[section])}")
        return section, key
    homes = [home for home, cls in classes.items() if has_key(cls, inner)]
    if len(homes) == 1:
        return homes[0], inner
    if homes:
        raise UserError(f"--set {short(name)}: several sections have this key: "
                        f"{listed(f'{home}.{inner}' for home in homes)}")  # fmt: skip
    if inner == "labels":
        raise UserError(f"--set {short(name)}: set a label by its name, as in --set labels.none=Plain")
    if inner in classes or inner in ARM_GROUPS:
        raise UserError(f"--set {short(name)}: this is a section; set one of its keys, as in --set teacher.epsilon=2")
    known = [f"{home}.{key}" for home, cls in classes.items() for key in cls.keys()]  # noqa: SIM118
    bare = nearest_name(inner, [name.partition(".")[2] for name in known], 0.75)
    found = next((name for name in known if name.endswith(f".{bare}")), None) or nearest_name(inner, known)
    home, _, key = (found or "").partition(".")
    hint = hint_text(inner, key, f"{home}.") if found else ""
    raise UserError(f"--set {short(name)}: unknown key{hint} (expected SECTION.KEY; sections: {listed(classes)}; all "
                    f"keys: {command_text('keys')})")  # fmt: skip


def description_with(description: str, settings: Mapping[str, Any]) -> str:
    """The description of a space, followed by its scientific overrides, which it does not tell of."""
    if not settings:
        return description
    words = [f"{name}={json.dumps(plain(value), ensure_ascii=False)}" for name, value in settings.items()]
    return f"{description} (here with {short(', '.join(words), 200)})"


def scientific_overrides(
    changed: Iterable[Key], options: StudyOptions, sections: Mapping[str, Any], arms: Mapping[str, Arms],
    search: SearchOptions | None, references: tuple[str, ...],
) -> dict[str, Any]:  # fmt: skip
    """Full dotted key -> typed value, of the overrides that can change a result. More trials of a search only extend
    it, so `search.trials` is none of them."""
    settings: dict[str, Any] = {}
    for key in changed:
        if key in (("base_seed",), ("recipe",)):
            settings[key[0]] = getattr(options, key[0])
        elif key == ("references",):
            settings["references"] = references
        elif key[0] == "search" and key[1] not in ("trials", "oracle"):
            settings[".".join(key)] = getattr(search, key[1])
        elif key[0] in SECTIONS or key[0] in ARM_GROUPS:
            holder = sections if key[0] in SECTIONS else arms[key[0]][key[1]]
            section, name = key[-2:]
            dataset = holder.get("data", {}).get("dataset") or sections.get("data", {}).get("dataset")
            cls = section_class(section, dataset[0] if isinstance(dataset, tuple) else dataset)
            if field_of(cls, name)[1]["scientific"]:
                settings[".".join(key)] = holder[section][name]
    return settings
