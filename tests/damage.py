"""Ways in which a file may come to be something else than what was written, each drawn from a seed."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WRONG = [
    None,
    True,
    -1,
    3.5,
    1e308,
    float("nan"),
    "",
    "x",
    "../x",
    "/etc/passwd",
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    "é" * 300,
]

OTHER = [b"[]", b"{}", b"null", b"3", b'"x"', b"[null]", b"{", b"NaN", b"\xff\xfe{}", b"9" * 5000, b"[" * 100_000,
         b'{"a":' * 50_000]  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator, headers: int) -> bytes:
    """The bytes of a file cut short, with a bit flipped, or with four bytes overwritten among the first or the last
    `headers`, where headers are."""
    changed = bytearray(data)
    how = rng.integers(4)
    if how == 0:
        return bytes(changed[: rng.integers(len(changed))])
    if how == 1:
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    else:
        place = int(rng.integers(min(headers, len(changed) - 8)))
        place = place if how == 2 else len(changed) - 8 - place
        changed[place : place + 4] = [b"\0\0\0\0", b"\xff\xff\xff\xff", rng.bytes(4)][rng.integers(3)]
    return bytes(changed)


def flip(path: Path, draw: random.Random) -> None:
    """One bit."""
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def truncate(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def empty(path: Path, draw: random.Random) -> None:
    path.write_bytes(b"")


def noise(path: Path, draw: random.Random) -> None:
    """A block of other bytes in the middle, as a bad disk leaves it."""
    data = path.read_bytes()
    begin = draw.randrange(len(data))
    length = draw.randint(1, 512)
    path.write_bytes(data[:begin] + draw.randbytes(length) + data[begin + length :])


def other_json(path: Path, draw: random.Random) -> None:
    """JSON of another kind, or hardly any: numbers that are none, nested beyond all measure, no UTF-8."""
    path.write_bytes(draw.choice(OTHER))


def wrong_value(path: Path, draw: random.Random) -> None:
    """One value of a JSON file replaced by one of another type, removed, or renamed."""
    tree = json.loads(path.read_bytes())
    places = _places(tree)
    if not places:
        return other_json(path, draw)
    holder, key = draw.choice(places)
    kind = draw.random()
    if kind < 0.7:
        holder[key] = draw.choice(WRONG)
    elif kind < 0.9 or isinstance(holder, list):
        del holder[key]
    else:
        holder[f"{key}x"] = holder.pop(key)
    path.write_text(json.dumps(tree))
    return None


def remove(path: Path, draw: random.Random) -> None:
    path.unlink()


def folder_instead(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()


def remove_folder(path: Path, draw: random.Random) -> None:
    """What it is in, with it."""
    shutil.rmtree(path.parent)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    found = []
    for key, value in items:
        found += [(tree, key), *_places(value)]
    return found


Damage = Callable[[Path, random.Random], None]
OF_ALL: tuple[Damage, ...] = (flip, truncate, empty, noise, remove, folder_instead, remove_folder)
OF_JSON: tuple[Damage, ...] = (other_json, wrong_value)


def damages_of(path: Path) -> tuple[Damage, ...]:
    return (*OF_ALL, *OF_JSON) if path.suffix == ".json" else OF_ALL


def kind_of(path: Path) -> str:
    """What a file of a root is, whatever its ids: `results/commit.json`, `studies/plan.json`."""
    parts = path.parts
    name = re.sub(r"^[0-9a-f]{8}\.", "", path.name)
    if parts[0] == "studies" and len(parts) > 3:
        return f"studies/{parts[2]}" + (f"/{name}" if parts[2] == "copies" else "")
    if parts[0] == "mlartifacts":
        return "mlartifacts"
    return f"{parts[0]}/{name}" if len(parts) > 1 else name
