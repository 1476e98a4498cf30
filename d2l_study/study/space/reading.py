"""The keys of a space document, each checked by itself: known, in its own type, within its bounds, an axis or a
distribution where that is allowed. What keys must fulfil together is for `space`."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from d2l_study.errors import UserError, listed
from d2l_study.options import Options, as_yaml, check_value, field_of
from d2l_study.study.space.distributions import read_distribution
from d2l_study.study.space.files import mapping
from d2l_study.study.space.keys import (
    GROUPS,
    REFERENCES,
    SECTIONS,
    Arms,
    Key,
    StudyOptions,
    Written,
    arm_sections,
    datasets_of,
    did_you_mean,
    has_key,
    home_of,
    section_class,
    unknown_key,
)
from d2l_study.study.space.yaml_reader import short
from d2l_study.study_names import arm_name_problem


def leaves_of(
    document: Mapping[str, Any], shown: str, students: bool
) -> tuple[dict[Key, Written], dict[str, list[str]]]:
    """The document as leaves by full key, and the names of each group's arms; checks everything but the values."""
    leaves: dict[Key, Written] = {}
    top = (*StudyOptions.keys(), *SECTIONS, *GROUPS, "references", "labels", "resources", "search")
    for key, value in document.items():
        if has_key(StudyOptions, key) or key == "references":
            leaves[key,] = Written(value, f"{shown}: {key}")
        elif key in SECTIONS or key in ("resources", "search", "labels"):
            for name, inner in mapping(value, f"{shown}: {key}").items():
                leaves[key, name] = Written(inner, f"{shown}: {key}.{name}")
        elif key not in GROUPS:
            raise UserError(f"{shown}: {short(key)}: unknown key{home_of(key) or did_you_mean(key, top)}")
    if "methods" not in document:
        raise UserError(f"{shown}: methods: missing; name at least one arm, for example  methods: {{none: {{}}}}")
    groups = {group: _arms(group, document[group], leaves, shown, students) for group in GROUPS if group in document}
    return leaves, groups


def beside_the_space(leaves: dict[Key, Written], changed: Iterable[Key], folder: Path) -> None:
    """Relative paths of the data that stand in the space begin at its folder, where they are there; else, as in spaces
    of before, at the current folder where they are there. Those of `--set` begin at the current folder."""
    changed = set(changed)
    for key, written in leaves.items():
        if key[-2:] not in (("data", "path"), ("data", "root")) or key in changed:
            continue
        values = written.value if isinstance(written.value, list) else [written.value]
        found = [_placed(value, folder) for value in values]
        leaves[key] = Written(found if isinstance(written.value, list) else found[0], written.where)


def _placed(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value.strip() or os.path.isabs(value) or value.startswith("~"):  # noqa: PTH117
        return value
    here = os.path.join(folder, value)  # noqa: PTH118 -- these never raise, whatever the text
    there = not os.path.exists(here) and os.path.exists(value)  # noqa: PTH110
    return os.path.abspath(value if there else here)  # noqa: PTH100


def _arms(group: str, value: Any, leaves: dict[Key, Written], shown: str, students: bool) -> list[str]:
    """Put the keys of a group's arms among the leaves; returns the names of the arms."""
    arms = mapping(value, f"{shown}: {group}")
    if not arms:
        raise UserError(f"{shown}: {group}: empty; name at least one arm, for example  {group}: {{none: {{}}}}")
    allowed = arm_sections(group, students)
    for method, own in arms.items():
        where = f"{shown}: {group}.{short(method)}"
        if problem := arm_name_problem(method):
            raise UserError(f"{where}: not a method's name ({problem}); allowed are letters, digits and _ . + -, the "
                            "first a letter, digit or _ (at most 60)")  # fmt: skip
        for section, keys in mapping(own, where).items():
            if section not in allowed:
                if students and section in SECTIONS:
                    raise UserError(f"{where}.{section}: in a space of students, {group} set keys of {allowed[0]} only")
                hint = home_of(section, f"{group}.{method}.", allowed) or did_you_mean(section, allowed)
                raise UserError(f"{where}.{short(section)}: unknown section{hint}")
            for name, inner in mapping(keys, f"{where}.{section}").items():
                leaves[group, method, section, name] = Written(inner, f"{where}.{section}.{name}")
    return list(arms)


def typed(
    leaves: Mapping[Key, Written], groups: Mapping[str, Iterable[str]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Arms]]:
    """Check every key of every section in its own type: the common sections, and those of each group's arms."""
    common = datasets_of(leaves.get(("data", "dataset")))
    arms: dict[str, Arms] = {group: {} for group in groups}
    used: dict[str, None] = {}
    for group, method in ((g, m) for g, methods in groups.items() for m in methods):
        written = leaves.get((group, method, "data", "dataset"))
        datasets = datasets_of(written) if written else common
        used |= dict.fromkeys(datasets)
        own: dict[str, dict[str, Any]] = {}
        for key, written in leaves.items():
            if key[:2] == (group, method):
                own.setdefault(key[2], {})[key[3]] = _checked_in(key[2], key[3], datasets, written)
        arms[group][method] = own
    sections: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        keys = {k[1]: w for k, w in leaves.items() if k[0] == section}
        if keys:
            sections[section] = {k: _checked_in(section, k, used or common, w) for k, w in keys.items()}
    return sections, arms


def _checked_in(section: str, key: str, datasets: Iterable[str], written: Written) -> Any:
    """The typed value of a section's key; with several data sets it must suit each."""
    typed = None
    for cls in dict.fromkeys(section_class(section, name) for name in datasets):
        typed = checked(cls, key, written, axis=True)
    return typed


def checked(cls: type[Options], key: str, written: Written, axis: bool) -> Any:
    """A value, or the values of an axis as a tuple, in the key's type and bounds."""
    if not has_key(cls, key):
        raise UserError(f"{written.where}: unknown key{unknown_key(key, cls.keys())}")
    hint, meta = field_of(cls, key)

    def check(where: str, value: Any) -> Any:
        try:
            return check_value(where, value, hint, meta)
        except UserError as error:
            raise UserError(str(error).replace(as_yaml(value), short(as_yaml(value)))) from None

    if axis and isinstance(written.value, dict):
        (kind,) = [k for k in (typing.get_args(hint) or (hint,)) if k is not type(None)]
        if not meta["scientific"]:
            raise UserError(f"{written.where}: this key changes no result, so it has no distribution; give one value")
        return read_distribution(written.value, written.where, kind, check)
    if not axis or not isinstance(written.value, list):
        return check(written.where, written.value)
    if not written.value:
        raise UserError(f"{written.where}: the axis is empty; give at least one value")
    if not meta["scientific"] and len(written.value) > 1:
        why = "a study reads one manifest" if key == "path" else "this key changes no result, so it cannot be an axis"
        raise UserError(f"{written.where}: {why}; give one value")
    values: list[Any] = []
    seen: set[Any] = set()
    for number, value in enumerate(written.value, start=1):
        typed = check(f"{written.where} (entry {number} of {len(written.value)})", value)
        if typed in seen:
            raise UserError(f"{written.where} (entry {number} of {len(written.value)}): {short(as_yaml(typed))} "
                            "is in the axis twice")  # fmt: skip
        seen.add(typed)
        values.append(typed)
    return tuple(values)


def references_of(written: Written | None) -> tuple[str, ...]:
    if written is None or written.value is None:
        return ()
    if not isinstance(written.value, list):
        raise UserError(f"{written.where}: expected a list of {listed(REFERENCES)}")
    for name in written.value:
        if name not in REFERENCES:
            raise UserError(
                f"{written.where}: unknown reference {short(as_yaml(name))}{did_you_mean(name, REFERENCES)}"
            )
    return tuple(dict.fromkeys(written.value))


def one_line(description: Any, shown: str) -> str:
    text = (description or "").strip()
    if not text:
        raise UserError(f"{shown}: description: missing; say in one line what the study asks")
    if "\n" in text or len(text) > 300:
        raise UserError(f"{shown}: description: {len(text)} characters, {text.count(chr(10)) + 1} lines; "
                        "expected one line of at most 300 characters")  # fmt: skip
    return text


_Kind = TypeVar("_Kind", bound=Options)


def one_of_a_kind(cls: type[_Kind], section: str, leaves: Mapping[Key, Written], shown: str) -> _Kind:
    """A section that has no axes, such as `resources`."""
    asked = {place[1]: checked(cls, place[1], w, axis=False) for place, w in leaves.items() if place[0] == section}
    try:
        return cls(**asked)
    except UserError as error:
        raise placed(f"{section}.{error}", leaves, shown) from None


def placed(message: str, leaves: Mapping[Key, Written], shown: str) -> UserError:
    """An error about keys taken together, under the place where the one it names was written; where a `--set` gave
    another of its section that it names, under that."""
    name, _, rest = message.partition(": ")
    place = tuple(name.split("."))
    written = leaves.get(place)
    if written is not None and written.where.startswith("--set"):
        return UserError(f"{written.where}: {rest}")
    words = set(re.findall(r"\w+", rest))
    for key, other in leaves.items():
        if other.where.startswith("--set") and key[:-1] == place[:-1] and key[-1] in words:
            return UserError(f"{other.where}: {message}")
    return UserError(f"{written.where if written else f'{shown}: {name}'}: {rest}")
