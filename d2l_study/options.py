"""Configuration keys with bounds and documentation: frozen dataclasses whose fields say what they allow.

    @dataclass(frozen=True)
    class TeacherConfig(Options):
        learning_rate: float = option(5e-4, "step size of Adam", above=0.0)

A value out of bounds raises `UserError` on construction, so a notebook and a space file meet the same check.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import os
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from d2l_study.errors import UserError, listed, nearest


def option(
    default: Any,
    doc: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[Any, ...] | None = None,
    synonyms: Mapping[str, str] | None = None,
    neutral: Any = dataclasses.MISSING,
    scientific: bool = True,
    usual: Any = None,
) -> Any:
    """A field with a default, one line of documentation, and closed (least, most) or open (above, below) bounds.

    `synonyms`: other words for choices, which a message about them translates.
    `neutral` is for keys added after results exist: the value under which the key changes nothing. A
    configuration's identity leaves such a key out while it has that value, so older results keep their ids.
    `scientific=False` marks a key that no result depends on (a path, say): it is in no identity.
    `usual` is for a key that other keys may stand in for: its default is None, which says that it is not given, and
    `usual` is the value that the class then gives it, unless those other keys are given.
    """
    meta = {"doc": doc, "least": least, "most": most, "above": above, "below": below, "choices": choices,
            "synonyms": synonyms or {}, "neutral": neutral, "scientific": scientific, "usual": usual}  # fmt: skip
    return dataclasses.field(default=default, metadata=meta)


@dataclasses.dataclass(frozen=True)
class Options:
    """Base of all configuration sections: checks every field on construction."""

    def __post_init__(self) -> None:
        hints = _hints(type(self))
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if value is None and f.metadata["usual"] is not None:  # not given, nor filled in by the class
                continue
            object.__setattr__(self, f.name, check_value(f.name, value, hints[f.name], f.metadata))

    @classmethod
    def keys(cls) -> tuple[str, ...]:
        return tuple(f.name for f in dataclasses.fields(cls))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "") -> typing.Self:
        """Build from plain values; every message begins with `where` (for example `space.yaml: teacher`)."""
        prefix = f"{where}." if where else ""
        known = cls.keys()
        for key in values:
            if key not in known:
                raise UserError(f"{prefix}{key}: unknown key{nearest(key, known)} (known: {listed(known, 40)})")
        try:
            return cls(**values)
        except UserError as error:
            raise UserError(f"{prefix}{error}") from None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def idle_keys(self) -> dict[str, str]:
        """The keys that change nothing, given the others, each with what makes it so, as `key value`: no id depends on
        them."""
        return {}

    def inert_keys(self) -> dict[str, str]:
        """Further keys that change nothing, given the others, as `idle_keys` says them. Ids depend on them, since
        results are stored under such ids; `acting_values` has the value that stands for all of theirs."""
        return {}

    def acting_values(self) -> dict[str, Any]:
        """Key -> the value that it acts as, where that is another than it says."""
        return {}

    def effect(self) -> dict[str, Any]:
        """The values as they act: two sections of the same effect give the same results, whatever their ids are."""
        acting = self.acting_values()
        return {key: acting.get(key, value) for key, value in self.identity().items()}

    def identity(self) -> dict[str, Any]:
        """The values that belong to a configuration's id: without idle keys, and without neutral ones (`option`)."""
        idle = self.idle_keys()
        return {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.metadata["scientific"]
            and f.name not in idle
            and (f.metadata["neutral"] is dataclasses.MISSING or getattr(self, f.name) != f.metadata["neutral"])
        }


_HINTS: dict[type, dict[str, Any]] = {}
_FIELDS: dict[type, dict[str, tuple[Any, Mapping[str, Any]]]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def field_of(cls: type[Options], key: str) -> tuple[Any, Mapping[str, Any]]:
    """The type and the metadata of one key."""
    if cls not in _FIELDS:  # spaces of thousands of configurations ask for each of their keys several times
        hints = _hints(cls)
        _FIELDS[cls] = {f.name: (hints[f.name], f.metadata) for f in dataclasses.fields(cls)}
    return _FIELDS[cls][key]


def check_value(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    """The value in its own type, or a `UserError` that names the key, the value and what is allowed."""
    if typing.get_origin(hint) is tuple:
        return _check_list(name, value, typing.get_args(hint)[0], meta)
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    optional = types.NoneType in kinds
    (kind,) = [typing.get_origin(k) or k for k in kinds if k is not types.NoneType]
    if value is None and optional:
        return None
    if kind is bool:
        ok = isinstance(value, bool)
    elif kind is int:
        if isinstance(value, numbers.Integral | float) and not isinstance(value, bool) and _whole(value):
            value = int(value)  # numpy's integers and 5.0 are welcome
        ok = isinstance(value, int) and not isinstance(value, bool)
    elif kind is float:
        value = _as_float(value)
        ok = isinstance(value, float) and math.isfinite(value)
    else:
        value = os.fspath(value) if kind is str and isinstance(value, os.PathLike) else value
        ok = isinstance(value, kind)
    if not ok:
        raise UserError(f"{name}: {as_yaml(value)} is not allowed; expected {allowed_values(hint, meta)}")
    choices = meta.get("choices")
    if choices is not None and value not in choices:
        expected = allowed_values(hint, meta)
        meant = meta.get("synonyms", {}).get(str(value).lower(), value)
        raise UserError(f"{name}: {as_yaml(value)} is not allowed; expected {expected}{nearest(meant, choices)}")
    if kind in (int, float) and not _within(value, meta):
        raise UserError(f"{name}: {as_yaml(value)} is not allowed; expected {allowed_values(hint, meta)}")
    return value


def as_yaml(value: Any) -> str:
    """A value as a message shows it: `null`, `true` and `false` as they are written in a space, others as Python's."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def value_text(value: Any, digits: int = 6) -> str:
    """A value as a label shows it: `0.05`, `50`, `attention`. digits: significant ones of a float."""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def _check_list(name: str, value: Any, hint: Any, meta: Mapping[str, Any]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{name}: {as_yaml(value)} is not allowed; expected a list, each {allowed_values(hint, meta)}")
    many = len(value)
    return tuple(check_value(f"{name} (entry {i} of {many})", one, hint, meta) for i, one in enumerate(value, start=1))


def _as_float(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            return value
    if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string: it wants 1.0e-3
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _whole(value: Any) -> bool:
    return not isinstance(value, float) or value.is_integer()


def _within(value: float, meta: Mapping[str, Any]) -> bool:
    least, most, above, below = (meta.get(k) for k in ("least", "most", "above", "below"))
    return (
        (least is None or value >= least)
        and (most is None or value <= most)
        and (above is None or value > above)
        and (below is None or value < below)
    )


def allowed_values(hint: Any, meta: Mapping[str, Any]) -> str:
    """What a key of this type and metadata (`field_of`) may be, in words."""
    if typing.get_origin(hint) is tuple:
        return f"a list, each {allowed_values(typing.get_args(hint)[0], meta)}"
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    (kind,) = [typing.get_origin(k) or k for k in kinds if k is not types.NoneType]
    return _allowed(kind, types.NoneType in kinds, meta)


def _allowed(kind: type, optional: bool, meta: Mapping[str, Any]) -> str:
    if meta.get("choices") is not None:
        text = "one of " + ", ".join(str(c) for c in meta["choices"])
    else:
        names: dict[type, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text",
                                  Mapping: "a map of keys and values"}  # fmt: skip
        text = names[kind]
        bounds: Sequence[tuple[str, str]] = (("least", "≥"), ("above", ">"), ("most", "≤"), ("below", "<"))
        shown = {key: f"{v}" if isinstance(v, int) and kind is int else f"{v:g}"  # of whole numbers all digits
                 for key, _ in bounds if (v := meta.get(key)) is not None}  # fmt: skip
        limits = [f"{sign} {shown[key]}" for key, sign in bounds if key in shown]
        text += " " + " and ".join(limits) if limits else ""
    return text + (" or null" if optional else "")
