"""The checksum of the data that a configuration is trained on: part of its id."""

from __future__ import annotations

from typing import Any

from d2l_study.options import Options


class DataChecksums:
    """The checksum of a data section's pool; a damaged or missing file shows here, before any trial."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], str] = {}

    def __call__(self, data: Options) -> str:
        names = getattr(data, "POOL_KEYS", ("dataset", "root", "verify"))
        key = tuple(getattr(data, name, None) for name in names)
        if key not in self._known:
            self._known[key] = data.load_pool().checksum  # type: ignore[attr-defined]
        return self._known[key]
