"""`rows.parquet`: the rows of a study in one file, and `rows.proof.json`: that they are still what the ledger says.

The ledger is the truth, and a study may change behind this file: another study trains a run again, a worker of a
killed command commits one more. To open and decode fifty thousand small files takes seconds, to look at their sizes
and times of change does not. So the proof holds the hash of the file and a digest of all that its rows were made from;
the file is taken only while both are found again, otherwise the ledger is read.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from d2l_study import __version__
from d2l_study.study.ledger import records
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.storage import Storage
from d2l_study.study.ledger.study_documents import StudyDocuments

if TYPE_CHECKING:
    import pandas


ROWS, PROOF = "rows.parquet", "rows.proof.json"
FORMAT = 1
"""To be raised when rows are made in another way."""


def digest(folder: StudyDocuments, runs: Iterable[tuple[str, int]]) -> str | None:
    """A hash of what the rows of these runs (configuration, replicate) are made from: the plan and the search byte by
    byte, of each run the versions of its records. None where a look at a record costs as much as reading it."""
    storage = folder.storage
    if storage.version(f"{folder.key}/plan.json") is None:
        return None
    found = hashlib.sha256(f"{FORMAT} {__version__} {folder.name}\n".encode())
    for name in ("plan.json", "search.json"):  # their copies say the same
        try:
            found.update(hashlib.sha256(storage.read(f"{folder.key}/{name}")).digest())
        except FileNotFoundError:
            found.update(b"none")
    for config, replicate in runs:
        of_run = "".join(_versions_of_commit(storage, config, replicate))
        if folder.fresh_of is not None:
            of_run += str(storage.version(Ledger.fresh_key(config, replicate, folder.name)))
        if not of_run:
            others = (Ledger.pruned_key(config, replicate, folder.name), folder.failure_key(config, replicate))
            of_run = " ".join(str(storage.version(key)) for key in others)
        found.update(f"{of_run}\n".encode())
    return found.hexdigest()


def _versions_of_commit(storage: Storage, config: str, replicate: int) -> Iterator[str]:
    for key in Ledger.commit_keys(config, replicate):
        if not (version := storage.version(key)):
            return
        yield version


def write(folder: StudyDocuments, frame: pandas.DataFrame, made_from: str | None) -> None:
    """Keep the rows. made_from: the digest that was found before they were read; None if they are to be read from the
    ledger always, and so are rows that do not come out of the file exactly as they went in."""
    import pandas as pd

    plain = frame.copy(deep=False)
    plain.attrs = {}
    data = plain.to_parquet(index=False)
    folder.storage.put(f"{folder.key}/{ROWS}", data)
    if made_from is not None and _same(pd.read_parquet(io.BytesIO(data)), plain):
        proof = {"digest": made_from, "sha256": hashlib.sha256(data).hexdigest(), "attrs": frame.attrs}
        folder.storage.put(f"{folder.key}/{PROOF}", records.encode(proof))


def read(folder: StudyDocuments) -> pandas.DataFrame | None:
    """The rows as `write` was given them; None unless they are what the ledger would say now."""
    import pandas as pd

    try:
        proof: Any = records.decode(folder.storage.read(f"{folder.key}/{PROOF}"))
        data = folder.storage.read(f"{folder.key}/{ROWS}")
        if hashlib.sha256(data).hexdigest() != proof["sha256"]:
            return None
        frame = pd.read_parquet(io.BytesIO(data))
        runs = zip(frame["config_id"].tolist(), frame["replicate"].tolist(), strict=True)
        if proof["digest"] != digest(folder, runs):
            return None
        frame.attrs = dict(proof["attrs"])
    except (OSError, ValueError, KeyError, TypeError):  # none there, or damaged
        return None
    return frame


def _same(one: pandas.DataFrame, other: pandas.DataFrame) -> bool:
    return bool(one.equals(other)) and one.dtypes.equals(other.dtypes)
