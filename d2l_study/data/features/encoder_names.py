"""Names of encoders, which tools write in several ways: `UNI-v1`, `uni_v1`."""

from __future__ import annotations


def encoder_key(name: str) -> str:
    """The same for all ways of writing one encoder: its letters and digits in lower case. A name without any is its own
    key."""
    return "".join(sign for sign in name.casefold() if sign.isalnum()) or name


def are_other_encoders(one: str, other: str) -> bool:
    """Whether two names are known to be of two encoders; an empty one is not known."""
    return bool(one and other) and encoder_key(one) != encoder_key(other)
