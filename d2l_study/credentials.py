"""What is secret in an address or a command line, masked: the one place, for messages, files and pages."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"

_SCHEME = r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.\-]*://)"
_USER = re.compile(rf"{_SCHEME}(?P<info>[^\s/?#'\"<>]+)@")
_UNQUOTED = re.compile(rf"{_SCHEME}[^\s/?#@:'\"<>]*:(?!\d{{0,5}}(?:[/?#\s'\"<>]|$))[^\s'\"<>]*@")
"""A password with a / or ? or # in it, which should have been encoded."""
_NAMED = re.compile(
    r"(?P<name>(?<![\w])[\w.%\-]*(?:token|passw(?:or)?d|pwd|secret|api[_-]?key|access[_-]?key(?:[_-]?id)?|"
    r"secret[_-]?key|account[_-]?key|shared[_-]?key|sas|sig|signature|credentials?))=(?P<value>[^\s&#;,'\"<>]+)",
    re.IGNORECASE,
)
_CONTAINER = ("abfs://", "abfss://", "wasb://", "wasbs://")
"""Of these what stands before the @ is a container; only after a colon there is a key."""
_USER_ALONE = re.compile(r"https?://", re.IGNORECASE)
"""A user without a password is a token here, and a name for databases, ssh and the like."""


def masked(text: str) -> str:
    """The text with `***` for what lets somebody in: `http://***@host`, `…?token=***`, `password=***`. Text without
    such stays as it is."""
    if "@" in text and "://" in text:
        text = _UNQUOTED.sub(rf"\g<scheme>{MASK}@", _USER.sub(_without_user, text))
    return _NAMED.sub(rf"\g<name>={MASK}", text) if "=" in text else text


def _without_user(found: re.Match[str]) -> str:
    scheme, info = found["scheme"], found["info"]
    if ":" in info or _USER_ALONE.match(scheme):
        name = info.partition(":")[0] if scheme.lower() in _CONTAINER else ""
        return f"{scheme}{name}{MASK}@"
    return found[0]


def masked_values(value: Any) -> Any:
    """The same of all texts in plain values (dictionaries, lists, tuples)."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, dict):
        return {key: masked_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(masked_values(inner) for inner in value)
    return value
