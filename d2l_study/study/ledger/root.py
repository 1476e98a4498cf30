"""A root of results, a folder or a bucket, as the storage it is."""

from __future__ import annotations

from pathlib import Path

from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.object_storage import ObjectStorage, is_address
from d2l_study.study.ledger.storage import Storage


def open_storage(root: str | Path, known: bool = False) -> Storage:
    """The storage at a root: a folder, or an address such as s3://bucket/folder. `UserError` if it is unusable.

    known: this study has used the root before, so that a bucket which does not answer is waited for."""
    return ObjectStorage(str(root), known) if is_address(str(root)) else LocalStorage(root)
