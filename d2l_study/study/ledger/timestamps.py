"""The times in records."""

from __future__ import annotations

import datetime


def timestamp(seconds: float | None = None) -> str:
    """A time in UTC as records hold it, `2026-11-26T14:30:12+00:00`. seconds: since 1970; None is now."""
    when = (
        datetime.datetime.now(datetime.UTC)
        if seconds is None
        else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    )
    return when.isoformat(timespec="seconds")
