"""Records: JSON objects with a checksum of their content, which every reader compares.

    {"record_sha256": "5f0a…",
     "config_id": …
    }

The digest is the first key and covers all bytes behind it. So a record stays readable JSON, and one hash checks it.
Records of version 1 have no digest. They begin with a line break after the brace, and are taken as they are.
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
    """The bytes of a record. Values that JSON has no form for are written as text."""
    if DIGEST in value:
        raise ValueError(f"a record has no key {DIGEST!r} of its own")
    text = json.dumps(value, indent=1, sort_keys=True, default=str).encode()
    tail = (b'",' if value else b'"') + text[1:]
    return HEAD + hashlib.sha256(tail).hexdigest().encode() + tail


def decode(data: bytes) -> Any:
    """The object of a record; None if the bytes are not what was written. A record of version 1 may be a list, and
    nothing proves it."""
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


def texts(found: object) -> list[str]:
    """The texts of a list that a record may hold; none where it holds something else."""
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def encode_bytes(data: bytes) -> bytes:
    """Any bytes, such as a checkpoint, with their digest in front."""
    return BYTES_HEAD + hashlib.sha256(data).digest() + data


def decode_bytes(data: bytes) -> bytes | None:
    """The bytes without their digest; None if they are not what was written. Checkpoints of version 1 have no digest,
    and are taken as they are."""
    if data.startswith(ZIP):
        return data
    body = data[len(BYTES_HEAD) + hashlib.sha256().digest_size :]
    return body if data == encode_bytes(body) else None


BYTES_HEAD = b"d2l-sealed\n"
ZIP = b"PK"
"""How a checkpoint of version 1 begins."""
