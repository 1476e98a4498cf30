"""The keys of a space, each checked by itself: it is known, its value has the right type and lies within bounds, and it
is an axis or a distribution only where that is allowed. `load` checks what keys must fulfil together."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from d2l_study.data import PATH_KEYS, WORDS_FOR_PATHS
from d2l_study.environment import in_data_folder
from d2l_study.errors import UserError, listed, short
from d2l_study.options import Options, as_yaml, check_value, field_of
from d2l_study.study.space.distributions import read_distribution
from d2l_study.study.space.files import mapping
from d2l_study.study.space.keys import (
    ARM_GROUPS,
    REFERENCES,
    SECTIONS,
    Arms,
    GivenValue,
    Key,
    StudyOptions,
    arm_sections,
    datasets_of,
    did_you_mean,
    has_key,
    meant,
    section_class,
    section_hint,
    unknown_key_hint,
)
from d2l_study.study_names import arm_name_problem


def flat_keys(
    document: Mapping[str, Any], shown: str, students: bool
) -> tuple[dict[Key, GivenValue], dict[str, list[str]]]:
    """Every value of the document by its full key, and group -> names of its arms. Values are not checked yet.

    shown: the file, as messages name it; students: whether it is a space of students."""
    leaves: dict[Key, GivenValue] = {}
    top = (*StudyOptions.keys(), *SECTIONS, *ARM_GROUPS, "references", "labels", "resources", "search")
    for key, value in document.items():
        if has_key(StudyOptions, key) or key == "references":
            leaves[key,] = GivenValue(value, f"{shown}: {key}")
        elif key in SECTIONS or key in ("resources", "search", "labels"):
            for name, inner in mapping(value, f"{shown}: {key}").items():
                leaves[key, name] = GivenValue(inner, f"{shown}: {key}.{name}")
        elif key not in ARM_GROUPS:
            hint = meant(key, top) or section_hint(key) or did_you_mean(key, top)
            raise UserError(f"{shown}: {short(key)}: unknown key{hint}")
    if "methods" not in document:
        raise UserError(f"{shown}: methods: missing; name at least one arm, for example  methods: {{none: {{}}}}")
    groups = {
        group: _arms(group, document[group], leaves, shown, students) for group in ARM_GROUPS if group in document
    }
    return leaves, groups


def resolve_data_paths(leaves: dict[Key, GivenValue], changed: Iterable[Key], folder: Path) -> None:
    """Make the relative paths of the data absolute, in place.

    A path in the space begins at the space's folder. If nothing is there, but something is in the current folder, it
    begins at the current folder, as it did in earlier versions; else, if something is there, at the folder of
    `D2L_DATA`. A path of `--set` (`changed`) begins at the current folder always. Words that stand for a path, such as
    the name of a data set that comes with the package, stay."""
    changed = set(changed)
    for key, written in leaves.items():
        if key[-2:-1] != ("data",) or key[-1] not in PATH_KEYS or key in changed:
            continue
        values = written.value if isinstance(written.value, list) else [written.value]
        words = WORDS_FOR_PATHS.get(key[-1], ())
        found = [value if value in words else _resolved_path(value, folder) for value in values]
        leaves[key] = GivenValue(found if isinstance(written.value, list) else found[0], written.where)


def _resolved_path(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value.strip() or os.path.isabs(value) or value.startswith("~"):  # noqa: PTH117
        return value
    here = os.path.join(folder, value)  # noqa: PTH118 -- these never raise, whatever the text
    if os.path.exists(here):  # noqa: PTH110
        return os.path.abspath(here)  # noqa: PTH100
    there = value if os.path.exists(value) else in_data_folder(value)  # noqa: PTH110
    return os.path.abspath(there or here)  # noqa: PTH100


def _arms(group: str, value: Any, leaves: dict[Key, GivenValue], shown: str, students: bool) -> list[str]:
    """Add the keys of a group's arms to `leaves`; returns the names of the arms."""
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
                if section in SECTIONS:
                    raise UserError(f"{where}.{section}: only arms of a space of students set its keys; such a "
                                    f"space has {section} at its top level")  # fmt: skip
                hint = meant(section, allowed) or section_hint(section, f"{group}.{method}.", allowed)
                hint = hint or did_you_mean(section, allowed)
                raise UserError(f"{where}.{short(section)}: unknown section{hint}")
            for name, inner in mapping(keys, f"{where}.{section}").items():
                leaves[group, method, section, name] = GivenValue(inner, f"{where}.{section}.{name}")
    return list(arms)


def typed_sections(
    leaves: Mapping[Key, GivenValue], groups: Mapping[str, Iterable[str]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Arms]]:
    """The typed values of all sections: the common ones, section -> key -> value, and those of each group's arms."""
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
                own.setdefault(key[2], {})[key[3]] = _typed_in(key[2], key[3], datasets, written)
        arms[group][method] = own
    sections: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        keys = {k[1]: w for k, w in leaves.items() if k[0] == section}
        if keys:
            sections[section] = {k: _typed_in(section, k, used or common, w) for k, w in keys.items()}
    return sections, arms


def _typed_in(section: str, key: str, datasets: Iterable[str], written: GivenValue) -> Any:
    """The typed value of a section's key; if the space has several data sets, it must be allowed for each."""
    typed = None
    for cls in dict.fromkeys(section_class(section, name) for name in datasets):
        typed = typed_value(cls, key, written, axis=True)
    return typed


def typed_value(cls: type[Options], key: str, written: GivenValue, axis: bool) -> Any:
    """A value in the key's type and bounds; for an axis the tuple of its values, or a `Distribution`.

    axis: whether an axis or a distribution is allowed here."""
    if not has_key(cls, key):
        raise UserError(f"{written.where}: unknown key{unknown_key_hint(key, cls)}")
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
        if key in PATH_KEYS and key not in ("path", "root"):
            why = "a study reads its data in one way"
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


def typed_references(written: GivenValue | None) -> tuple[str, ...]:
    """The reference rows that a space asks for, each once; `UserError` for an unknown one."""
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


def typed_description(description: Any, shown: str) -> str:
    """The description, stripped; `UserError` unless it is one line of at most 300 characters. shown: the file."""
    text = (description or "").strip()
    if not text:
        raise UserError(f"{shown}: description: missing; say in one line what the study asks")
    if "\n" in text or len(text) > 300:
        raise UserError(f"{shown}: description: {len(text)} characters, {text.count(chr(10)) + 1} lines; "
                        "expected one line of at most 300 characters")  # fmt: skip
    return text


_Kind = TypeVar("_Kind", bound=Options)


def typed_options(cls: type[_Kind], section: str, leaves: Mapping[Key, GivenValue], shown: str) -> _Kind:
    """The options of a section without axes, such as `resources`."""
    asked = {place[1]: typed_value(cls, place[1], w, axis=False) for place, w in leaves.items() if place[0] == section}
    try:
        return cls(**asked)
    except UserError as error:
        raise error_at(f"{section}.{error}", leaves, shown) from None


def error_at(message: str, leaves: Mapping[Key, GivenValue], shown: str) -> UserError:
    """An error about several keys ("section.key: …"), with the place where its key was given in front.

    If a `--set` gave that key, or another key of the section that the message names, the place is that `--set`."""
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
