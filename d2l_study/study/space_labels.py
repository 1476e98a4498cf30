"""`labels` of a space: how its arms, reference rows and keys are named in print. They are in no id."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from d2l_study.errors import UserError
from d2l_study.study.space_keys import (
    REFERENCES,
    SECTIONS,
    Key,
    Written,
    datasets_of,
    did_you_mean,
    flat_names,
    section_class,
)
from d2l_study.study.space_yaml import short

LONGEST = 60


def labels_of(leaves: Mapping[Key, Written], groups: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Name -> text. `UserError` for a name that the space has not, a text that is not one line of at most `LONGEST`
    characters, and one text for two arms."""
    asked = {place[1]: written for place, written in leaves.items() if place[0] == "labels"}
    if not asked:
        return {}
    arms, keys = _arms(groups), _keys(leaves, "teachers" in groups)
    found: dict[str, str] = {}
    for name, written in asked.items():
        if name not in arms and name not in keys:
            hint = did_you_mean(name, (*arms, *keys))
            raise UserError(f"{written.where}: {short(name)!r} is neither an arm nor a key of the space{hint}")
        text = written.value.strip() if isinstance(written.value, str) else ""
        if not text or not text.isprintable() or len(text) > LONGEST:
            raise UserError(f"{written.where}: {short(ascii(written.value))} is not allowed; expected one line of text "
                            f"of at most {LONGEST} characters")  # fmt: skip
        other = next((n for n, t in found.items() if t == text and n in arms), None)
        if name in arms and other is not None:
            raise UserError(f"{written.where}: {short(text)!r} is the label of {other} already")
        found[name] = text
    return found


def _arms(groups: Mapping[str, Iterable[str]]) -> dict[str, None]:
    arms = dict.fromkeys(arm for names in groups.values() for arm in names)
    if "teachers" in groups:
        arms |= dict.fromkeys(REFERENCES)
        arms |= dict.fromkeys(f"{teacher} → {method}" for teacher in groups["teachers"] for method in groups["methods"])
    return arms


def _keys(leaves: Mapping[Key, Written], students: bool) -> dict[str, None]:
    """The keys of the space's sections: as columns are named (`flat_names`), and with their section."""
    dataset = datasets_of(leaves.get(("data", "dataset")))[0]
    classes = {s: section_class(s, dataset) for s in SECTIONS if students or s != "student"}
    flat = flat_names(classes)
    return dict.fromkeys(name for (section, key), column in flat.items() for name in (column, f"{section}.{key}"))
