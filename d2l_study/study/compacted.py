"""`rows.parquet`: the rows of a study in one file, and the proof that they are still what the ledger says.

The ledger is the truth, and a study may change behind this file: another study trains a run again, a worker of a
killed command commits one more. To open and decode fifty thousand small files takes seconds, to look at their sizes
and times of change does not. So the file carries a digest of all that its rows were made from, and is taken only while
the same digest is found; otherwise the ledger is read.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from d2l_study import __version__
from d2l_study.study.ledger import Ledger

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.folder import StudyFolder

ROWS = "rows.parquet"
FORMAT = 1
"""To be raised when rows are made in another way."""

KEY = b"d2l_study"
"""Of the file's metadata: a JSON object with `digest` and `attrs`."""


def digest(folder: StudyFolder, runs: Iterable[tuple[str, int]]) -> str | None:
    """A hash of what the rows of these runs (configuration, replicate) are made from: the plan and the search byte by
    byte, of each run the versions of its records. None where a look at a record costs as much as reading it."""
    storage = folder.storage
    if storage.version(f"{folder.key}/plan.json") is None:
        return None
    found = hashlib.sha256(f"{FORMAT} {__version__} {folder.name}\n".encode())
    for name in ("plan.json", "search.json"):
        try:
            found.update(hashlib.sha256(storage.read(f"{folder.key}/{name}")).digest())
        except FileNotFoundError:
            found.update(b"none")
    for config, replicate in runs:
        of_run = storage.version(f"{Ledger.run_key(config, replicate)}/commit.json")
        if not of_run:
            others = (Ledger.pruned_key(config, replicate, folder.name), folder.failure_key(config, replicate))
            of_run = " ".join(str(storage.version(key)) for key in others)
        found.update(f"{of_run}\n".encode())
    return found.hexdigest()


def write(folder: StudyFolder, frame: pandas.DataFrame, made_from: str | None) -> None:
    """Keep the rows. made_from: the digest that was found before they were read; None if they are to be read from the
    ledger always, and so are rows that do not come out of the file exactly as they went in."""
    import pyarrow as pa
    from pyarrow import parquet

    plain = frame.copy(deep=False)
    plain.attrs = {}
    table = pa.Table.from_pandas(plain, preserve_index=False)
    if made_from is not None and _same(table.to_pandas(), plain):
        proof = json.dumps({"digest": made_from, "attrs": frame.attrs}).encode()
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), KEY: proof})
    file = io.BytesIO()
    parquet.write_table(table, file)
    folder.storage.put(f"{folder.key}/{ROWS}", file.getvalue())


def read(folder: StudyFolder) -> pandas.DataFrame | None:
    """The rows as `write` was given them; None unless they are what the ledger would say now."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(io.BytesIO(folder.storage.read(f"{folder.key}/{ROWS}")))
        proof: dict[str, Any] = json.loads((table.schema.metadata or {})[KEY])
        frame = table.to_pandas()
        runs = zip(frame["config_id"].tolist(), frame["replicate"].tolist(), strict=True)
        if proof["digest"] != digest(folder, runs):
            return None
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError):  # none, of an older version, damaged
        return None
    frame.attrs = proof["attrs"]
    return frame


def _same(one: pandas.DataFrame, other: pandas.DataFrame) -> bool:
    return bool(one.equals(other)) and one.dtypes.equals(other.dtypes)
