"""`rows.parquet` holds all rows of a study in one file, and `rows.proof.json` proves that they are up to date.

Opening and decoding fifty thousand small files of the ledger takes seconds; looking at their sizes and times of change
does not. But the ledger may change after the file was written: another study adds to a run, a worker of a killed
command commits one more. So the proof holds the hash of the file, and a digest of all objects that the rows were made
from. The file is used only while both are the same. Otherwise the ledger is read.
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
"""To be raised when rows are made in a different way."""


def digest(folder: StudyDocuments, runs: Iterable[tuple[str, int]]) -> str | None:
    """A hash of all that the rows of these runs are made from: the bytes of the plan and the search, and the versions
    of each run's records. None if asking for a version costs as much as reading. runs: (config_id, replicate)."""
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
        if not of_run or folder.fresh_of is not None:
            others = (Ledger.pruned_key(config, replicate, folder.name), folder.failure_key(config, replicate))
            of_run += " ".join(str(storage.version(key)) for key in others)
        found.update(f"{of_run}\n".encode())
    return found.hexdigest()


def _versions_of_commit(storage: Storage, config: str, replicate: int) -> Iterator[str]:
    for key in Ledger.commit_keys(config, replicate):
        if not (version := storage.version(key)):
            return
        yield version


def write(folder: StudyDocuments, frame: pandas.DataFrame, made_from: str | None) -> None:
    """Write the rows, and the proof.

    made_from: the digest before the rows were read. No proof is written if it is None, or if the file does not give the
    rows back exactly; then the rows are always read from the ledger."""
    import pandas as pd

    plain = frame.copy(deep=False)
    plain.attrs = {}
    data = plain.to_parquet(index=False)
    folder.storage.put(f"{folder.key}/{ROWS}", data)
    if made_from is not None and _same(pd.read_parquet(io.BytesIO(data)), plain):
        proof = {"digest": made_from, "sha256": hashlib.sha256(data).hexdigest(), "attrs": frame.attrs}
        folder.storage.put(f"{folder.key}/{PROOF}", records.encode(proof))


def read(folder: StudyDocuments) -> pandas.DataFrame | None:
    """The rows of the file; None unless the proof shows that they are up to date."""
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
