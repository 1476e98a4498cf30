"""`labels` of a space: the names in print of its arms, reference rows and keys. They are in no id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from d2l_study.errors import UserError, short
from d2l_study.study.space.keys import (
    REFERENCES,
    SECTIONS,
    GivenValue,
    Key,
    datasets_of,
    did_you_mean,
    flat_names,
    section_class,
)

LONGEST = 60


def display_labels(leaves: Mapping[Key, GivenValue], groups: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Name -> text in print.

    `UserError` for a name that the space does not have, a text that is not one line of at most `LONGEST` characters,
    and a text that would be shown for two names."""
    asked = {place[1]: written for place, written in leaves.items() if place[0] == "labels"}
    if not asked:
        return {}
    arms, keys = _arms(groups), _columns(leaves, "teachers" in groups)
    found: dict[str, str] = {}
    for name, written in asked.items():
        if name not in arms and name not in keys:
            hint = did_you_mean(name, (*arms, *keys))
            raise UserError(f"{written.where}: {short(name)!r} is neither an arm nor a key of the space{hint}")
        text = written.value.strip() if isinstance(written.value, str) else ""
        if not text or not text.isprintable() or len(text) > LONGEST:
            raise UserError(f"{written.where}: {short(ascii(written.value))} is not allowed; expected one line of text "
                            f"of at most {LONGEST} characters")  # fmt: skip
        found[name] = text
    shown = {name: _shown(name, groups, found) for name in (*arms, *(name for name in found if name not in arms))}

    def one(name: str) -> str:  # a key has two names
        return name if name in arms else keys.get(name, name)

    for name, written in reversed(asked.items()):
        for other, text in shown.items():
            if one(other) != one(name) and text == found[name]:
                how = "is the label of" if other in found else "is what is shown for"
                raise UserError(f"{written.where}: {short(text)!r} {how} {other} already, so that a table would show "
                                "both by one name")  # fmt: skip
    return found


def _shown(name: str, groups: Mapping[str, Iterable[str]], labels: Mapping[str, str]) -> str:
    """How an arm, a reference or a key is shown; a student of a teacher by the labels of both."""
    teacher, arrow, method = name.partition(" → ")
    if name in labels or not arrow:
        return labels.get(name, name)
    return f"{labels.get(teacher, teacher)} → {labels.get(method, method)}"


def _arms(groups: Mapping[str, Iterable[str]]) -> dict[str, None]:
    arms = dict.fromkeys(arm for names in groups.values() for arm in names)
    if "teachers" in groups:
        arms |= dict.fromkeys(REFERENCES)
        arms |= dict.fromkeys(f"{teacher} → {method}" for teacher in groups["teachers"] for method in groups["methods"])
    return arms


def _columns(leaves: Mapping[Key, GivenValue], students: bool) -> dict[str, str]:
    """The keys of the space's sections, as columns are named (`flat_names`) and with their section -> the column."""
    dataset = datasets_of(leaves.get(("data", "dataset")))[0]
    classes = {s: section_class(s, dataset) for s in SECTIONS if students or s != "student"}
    found: dict[str, str] = {}
    for (section, key), column in flat_names(classes).items():
        found |= {column: column, f"{section}.{key}": column}
    return found
