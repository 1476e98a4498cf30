"""A new MLflow store, made once a session (50 migrations) and to be copied."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from d2l_study.study.mlflow import address
from d2l_study.study.mlflow.address import check_uri


def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its file; beside it, ending in .txt, what making it printed."""
    path = tmp_path_factory.getbasetemp() / "empty-mlflow.db"
    if not path.exists():
        with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()) as out:
            check_uri(f"sqlite:///{path}")
        path.with_suffix(".txt").write_text(err.getvalue() + out.getvalue())
    return path


def copied_store(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a new store in a folder."""
    shutil.copy(empty_store(tmp_path_factory), folder / "mlflow.db")
    return f"sqlite:///{folder / 'mlflow.db'}"


@contextlib.contextmanager
def new_stores_copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Within the block every new store of this process but the first is a copy of it, and the newest migration is
    looked for once: MLflow reads all fifty whenever it opens a store."""
    make = address._create_sqlite

    def copied(path: Path) -> None:
        if path.name == "empty-mlflow.db":
            make(path)
            from mlflow.store.db import utils

            patch.setattr(utils, "_get_latest_schema_revision", cache(utils._get_latest_schema_revision))
            return
        with contextlib.suppress(FileExistsError), path.open("xb") as file:
            file.write(empty_store(tmp_path_factory).read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(address, "_create_sqlite", copied)
        yield
