"""Records: JSON objects that prove themselves. Whoever reads one knows that it is what was written.

    {"record_sha256": "5f0a…",
     "config_id": …
    }

The digest is the first key, of all bytes behind it, so a record stays readable JSON and costs one hash to check.
Records of version 1 have no digest; they begin with a line break after the brace, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

DIGEST = "record_sha256"
HEAD = b'{"record_sha256": "'
VERSION_1 = (b"{\n", b"[\n", b"{}", b"[]")
"""How a record without a digest begins. A digest's own key cannot be damaged into one of these by a few bits."""

_TAIL = len(HEAD) + hashlib.sha256().digest_size * 2


def encode(value: Mapping[str, Any]) -> bytes:
    """The record of a JSON object. What JSON has no form for is written as text."""
    if DIGEST in value:
        raise ValueError(f"a record has no key {DIGEST!r} of its own")
    text = json.dumps(value, indent=1, sort_keys=True, default=str).encode()
    tail = (b'",' if value else b'"') + text[1:]
    return HEAD + hashlib.sha256(tail).hexdigest().encode() + tail


def decode(data: bytes) -> Any:
    """What was written; None if these bytes are not a whole record. Of version 1 it may be a list, or unproven."""
    proven = data.startswith(HEAD)
    if proven:
        if hashlib.sha256(data[_TAIL:]).hexdigest().encode() != data[len(HEAD) : _TAIL]:
            return None
    elif not data.startswith(VERSION_1):
        return None
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if proven:
        del found[DIGEST]
    return found


def seal(data: bytes) -> bytes:
    """Bytes of any kind (a checkpoint) with their digest in front."""
    return SEAL + hashlib.sha256(data).digest() + data


def unseal(data: bytes) -> bytes | None:
    """What was sealed; None if it is not whole. Checkpoints of version 1 have no seal, and are taken as they are."""
    if data.startswith(ZIP):
        return data
    body = data[len(SEAL) + hashlib.sha256().digest_size :]
    return body if data == seal(body) else None


SEAL = b"d2l-sealed\n"
ZIP = b"PK"
"""How a checkpoint of version 1 begins."""
