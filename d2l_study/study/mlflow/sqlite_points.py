"""Points of curves, written into the tables of a sqlite store at once.

MLflow makes an object of its database layer for every value, which takes a processor 0.1 to 0.2 ms; this takes a tenth
of it. A study on a GPU makes thousands a second. A store on a server, or one whose tables look otherwise than MLflow 3
makes them, is left to MLflow.
"""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from d2l_study.study.mlflow.curve_points import Point

COLUMNS = {"key", "value", "timestamp", "step", "is_nan", "run_uuid"}
"""Of the tables `metrics` (all points) and `latest_metrics` (the one of the last step of each metric)."""

LOCKED_SECONDS = 30.0
"""How long another writer of the store is waited for."""


def write_points(store: Path, run_id: str, points: Sequence[Point]) -> bool:
    """Write finite values and NaN, in one transaction. Points that are there already stay as they are.

    False if nothing was written, since the tables are not as known here or the run is not there, or deleted: then
    MLflow has to be asked. Raises `sqlite3.Error` if the store cannot be written.
    """
    rows = [(key, 0.0 if math.isnan(value) else value, at, step, math.isnan(value), run_id)
            for key, value, at, step in points]  # fmt: skip
    latest: dict[str, tuple[str, float, int, int, bool, str]] = {}
    for row in rows:
        key, value, at, step, *_ = row
        known = latest.get(key)
        if known is None or (step, at, value) > (known[3], known[2], known[1]):
            latest[key] = row
    with contextlib.closing(sqlite3.connect(store, timeout=LOCKED_SECONDS)) as database, database:
        for table in ("metrics", "latest_metrics"):
            if {column[1] for column in database.execute(f"PRAGMA table_info({table})")} != COLUMNS:
                return False
        active = "SELECT 1 FROM runs WHERE run_uuid = ? AND lifecycle_stage = 'active'"
        if database.execute(active, (run_id,)).fetchone() is None:
            return False
        names = "(key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, ?, ?, ?, ?)"
        database.executemany(f"INSERT OR IGNORE INTO metrics {names}", rows)
        database.executemany(
            f"INSERT INTO latest_metrics {names} ON CONFLICT (key, run_uuid) DO UPDATE SET value = excluded.value, "
            "timestamp = excluded.timestamp, step = excluded.step, is_nan = excluded.is_nan WHERE "
            "(excluded.step, excluded.timestamp, excluded.value) > "
            "(latest_metrics.step, latest_metrics.timestamp, latest_metrics.value)",
            list(latest.values()),
        )
    return True
