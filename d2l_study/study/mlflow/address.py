"""The address of an MLflow store: which store is meant, whether it can be written, and a client for it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
import sys
import threading
import uuid
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from d2l_study import environment, temporary_files
from d2l_study.credentials import masked
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.nearest_path import path_hint

SQLITE, ENCODED = "sqlite:///", "sqlite+pysqlite:///"
PLAIN = re.compile(r"[\w/.+,=@~ -]*")
"""Paths that need no encoding in an address."""
DATABASES = ("postgresql", "mysql", "mssql")
ARTIFACTS = "mlartifacts"
CHECK_SECONDS = 8.0
NEW_SECONDS = 600.0
"""How long a new sqlite store may take: MLflow's fifty migrations, on a machine that others use too."""
SAID_AFTER_SECONDS = 20.0
"""When a line says what is waited for."""
QUIET = "WARNING"
"""The level of MLflow's messages, unless the user's variable says another."""


def resolve_uri(flag: str | None, root: Path | str) -> str:
    """The tracking address: the flag, else `MLFLOW_TRACKING_URI`, else `ROOT/mlflow.db`; sqlite paths absolute.

    A database file cannot live in a bucket: for such a root it is `runs/mlflow.db` of the current folder.
    """
    folder = Path("runs") if "://" in str(root) else user_path(root, "--root")
    uri = flag or environment.tracking_uri() or sqlite_uri(folder / "mlflow.db")
    path = sqlite_path(uri)
    return uri if path is None else sqlite_uri(path)


def sqlite_uri(path: Path) -> str:
    """The address of a sqlite file, for SQLAlchemy and MLflow.

    A name with special characters is encoded. The address names the driver then, since MLflow would make a folder of
    the encoded name behind a plain `sqlite:///`."""
    place = str(path.absolute())
    if not place.isprintable():
        raise UserError(f"{place!a}: letters that cannot be printed have no place in the address of a database")
    if PLAIN.fullmatch(place):
        return f"{SQLITE}{place}"
    return f"{ENCODED}{quote(place)}" if _decodes() else f"{ENCODED}file:{quote(place)}?uri=true"


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite address, absolute; None for every other address and for sqlite in memory."""
    start = next((start for start in (SQLITE, ENCODED) if uri.startswith(start)), None)
    if start is None or not uri[len(start) :].strip("/:"):
        return None
    name, _, options = uri[len(start) :].partition("?")
    if name.startswith("file:") and "uri=true" in options.split("&"):
        name = unquote(name.removeprefix("file:"))
    elif "%" in name and _decodes():
        name = unquote(name)
    return None if name.startswith(":memory:") else user_path(name, "tracking URI").absolute()


@cache
def _decodes() -> bool:
    """Whether SQLAlchemy decodes the path of an address, as it does since 2.1."""
    from sqlalchemy.engine import make_url

    return make_url(f"{SQLITE}/%20").database == "/ "


def page_server(uri: str) -> str:
    """The address of a server for links, without user, password and query, which are private."""
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")


def is_http(uri: str) -> bool:
    """Whether an address is that of a server."""
    return uri.startswith(("http://", "https://"))


class StoreUnreachable(UserError):
    """The address is valid, but nothing answers there in time: the server may not be running yet.

    reason: what happened; hint: what to do where it is needed at once.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason + hint)
        self.reason = reason


def check_uri(uri: str, seconds: float = CHECK_SECONDS) -> None:
    """Make the store if it is a new sqlite file, and send it one request. `UserError` if it cannot be used,
    `StoreUnreachable` if it does not answer in time.

    A server or a database has `seconds`: MLflow and the drivers would retry for minutes. A sqlite file is on this
    machine, which may only be busy: it has ten times as long, and `NEW_SECONDS` where it is to be made. It is called
    before anything else writes, since processes that open a new sqlite store at the same time fail.
    """
    where = f"tracking URI {uri!r} (--tracking-uri or MLFLOW_TRACKING_URI)"
    _check_scheme(uri, where)
    path = sqlite_path(uri)
    if path is not None:
        _check_sqlite(path, where)
        _remove_left(path)
    failure: list[BaseException] = []

    def ask() -> None:
        try:
            if path is not None and not path.exists():
                _create_sqlite(path)
            client(uri).search_experiments(max_results=1)
        except BaseException as error:  # whatever it is, it is the answer
            failure.append(error)

    thread = threading.Thread(target=ask, name="mlflow-check", daemon=True)
    thread.start()
    limit = seconds if path is None else 10 * seconds if path.exists() else NEW_SECONDS
    thread.join(min(limit, SAID_AFTER_SECONDS))
    if thread.is_alive() and limit > SAID_AFTER_SECONDS:
        print(f"waiting for MLflow's store, {path} …", file=sys.stderr, flush=True)
        thread.join(limit - SAID_AFTER_SECONDS)
    if thread.is_alive():
        busy = "; if this machine or its disk is only busy, give the same command again" if path is not None else ""
        raise StoreUnreachable(f"{where}: no answer within {limit:g} s", busy)
    if failure:
        reason = f"{where}: {one_line(failure[0])}"
        if path is not None:
            raise UserError(reason) from None
        raise StoreUnreachable(reason, "; is the server running?" if is_http(uri) else "") from None


def _check_scheme(uri: str, where: str) -> None:
    scheme = uri.split("://")[0] if "://" in uri else ""
    try:
        host = urlsplit(uri).hostname
    except ValueError:  # http://[x
        host = None
    if (is_http(uri) and host) or sqlite_path(uri) or scheme.split("+")[0] in DATABASES:
        return
    allowed = "expected http://HOST:PORT, https://HOST, sqlite:///FILE.db or the address of a database"
    if re.fullmatch(r"[\w.-]+:\d+/?", uri):
        allowed += f"; did you mean 'http://{uri}'?"
    elif scheme in ("", "file"):
        allowed += " (MLflow's store of plain files is no longer supported)"
    raise UserError(f"{where}: not an address we can write to; {allowed}")


def _create_sqlite(path: Path) -> None:
    """Make a new store under another name, and rename it when it is whole. Two processes that make it at once, or one
    that is killed during MLflow's fifty migrations, would leave a broken store."""
    made = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    with temporary_files.held(_lock_of(made)):
        try:
            client(sqlite_uri(made)).search_experiments(max_results=1)
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(made, path)
        finally:
            _remove_part(made)


def _lock_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.lock")


def _remove_part(part: Path) -> None:
    """Remove an unfinished store, with the files that sqlite keeps beside it."""
    for ending in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(OSError):
            part.with_name(part.name + ending).unlink(missing_ok=True)


def _remove_left(path: Path) -> None:
    """Remove unfinished stores of processes that were killed."""
    start = f".{path.name}."
    with contextlib.suppress(OSError):
        parts = {name[: len(start) + 13] for name in os.listdir(path.parent) if name.startswith(start)}  # noqa: PTH208
        for part in (path.parent / name for name in parts if name.endswith(".part")):
            if temporary_files.is_orphaned(_lock_of(part), part):
                _remove_part(part)
                _lock_of(part).unlink(missing_ok=True)


def _check_sqlite(path: Path, where: str) -> None:
    if not path.parent.is_dir():
        raise UserError(f"{where}: there is no folder {path.parent}{path_hint(path.parent)}")
    if not path.exists():
        return
    try:
        database = sqlite3.connect(path, timeout=5)
        try:
            database.execute("BEGIN IMMEDIATE")
            database.execute("CREATE TABLE d2l_probe (x)")  # rolled back: a lock alone does not show a read-only file
            database.rollback()
        finally:
            database.close()
    except (OSError, sqlite3.Error) as error:
        remedy = "; move it away, and `sync STUDY` makes a study's pages again from its results"
        damaged = any(words in str(error) for words in ("malformed", "not a database"))
        raise UserError(f"{where}: cannot write {path}: {one_line(error)}{remedy if damaged else ''}") from None


def client(uri: str) -> Any:
    """An `MlflowClient` with one attempt for each request, no telemetry and few messages, unless the user's environment
    variables say otherwise."""
    asked = os.environ.get("MLFLOW_LOGGING_LEVEL", QUIET) != QUIET
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_LOGGING_LEVEL", QUIET),
        ("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0"),  # the tracker retries, and without holding anybody up
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "30"),
        ("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"),
    ):
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    level = os.environ["MLFLOW_LOGGING_LEVEL"].upper()
    for name in ("mlflow", "alembic"):  # where something else had imported MLflow before
        logging.getLogger(name).setLevel(level)
    if not asked:  # what a database refuses is raised, and said by us in a line; these print its traceback as well
        for name in ("mlflow.store.db.utils", "sqlalchemy.pool"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a new experiment keeps its artifacts: beside a sqlite file; None leaves it to the server. MLflow's own
    default would be a folder under the working directory. The folder has the experiment's own name: MLflow cannot load
    models from a folder with percent signs in its name."""
    path = sqlite_path(uri)
    return (path.parent / ARTIFACTS / experiment).as_uri() if path else None


def existing_store(flag: str | None, root: Path | str, what: str) -> tuple[str, Any]:
    """The address of a store, and a client for it. what: is looked for in it, for messages: to look into a store is not
    to make one. `UserError` if it is not there, or cannot be used."""
    uri = resolve_uri(flag, root)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise UserError(f"{what}, but there is no MLflow store {path} (--tracking-uri)")
    check_uri(uri)
    return uri, client(uri)


DISK = {
    "database or disk is full": "the disk is full",
    "disk I/O error": "the disk is full, or fails",
    "attempt to write a readonly database": "the database is read-only",
    "database is locked": "the database is locked by another program",
}  # fmt: skip
"""Part of a message of sqlite -> what it means."""


def one_line(error: BaseException, most: int = 160) -> str:
    """An error in one line of at most `most` characters: its first line, or only the cause if a connection failed."""
    if isinstance(error, ModuleNotFoundError):
        return f"needs the package {error.name}, which is not installed"
    text = str(error).strip() or type(error).__name__
    if "Connection refused" in text:
        return "connection refused"
    if "Name or service not known" in text or "Failed to resolve" in text or "getaddrinfo" in text:
        return "no such host"
    if "timed out" in text:
        return "timed out"
    if "out-of-date database schema" in text:
        return "made by another MLflow version; `mlflow db upgrade` brings it up to date (make a copy first)"
    for words, gist in DISK.items():
        if words in text:
            return gist
    first = masked(text.splitlines()[0])
    return first if len(first) <= most else first[: most - 1] + "…"
