"""Parquet files by their paths, whatever these are: pyarrow itself takes no path whose bytes are no UTF-8."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def native_file(path: Path, mode: str = "rb") -> Any:
    """A file as pyarrow opens it by itself, which takes the bytes of a path as they are. Files of Python would be read
    in threads that may outlive the interpreter."""
    import pyarrow as pa

    return pa.OSFile(os.fsencode(path), mode)


@contextmanager
def parquet_writer(path: Path, schema: Any) -> Iterator[Any]:
    """A `pyarrow.parquet.ParquetWriter` of a file, which is closed when the block ends."""
    import pyarrow.parquet as pq

    with native_file(path, "wb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield writer


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """A file as `pyarrow.parquet.ParquetFile`, for reading in the block."""
    import pyarrow.parquet as pq

    with native_file(path) as file, pq.ParquetFile(file) as parquet:
        yield parquet


def read_parquet(path: Path, columns: Sequence[str]) -> Any:
    """Some columns of a file, as an Arrow table."""
    import pyarrow.parquet as pq

    with native_file(path) as file:
        return pq.read_table(file, columns=list(columns))


def parquet_schema(path: Path) -> Any:
    """The Arrow schema of a file."""
    with open_parquet(path) as parquet:
        return parquet.schema_arrow


def has_metadata(path: Path, key: str) -> bool:
    """Whether the metadata of a file have such a key."""
    return key.encode() in (parquet_schema(path).metadata or {})
