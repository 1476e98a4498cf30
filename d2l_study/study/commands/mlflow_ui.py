"""`ui`: serve the MLflow pages of a root, on this machine only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from d2l_study.command_line import command_text
from d2l_study.errors import UserError
from d2l_study.study.commands.table_and_report import NAME as REPORT
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.studies import list_studies
from d2l_study.study.mlflow.address import check_uri, client, is_http, page_server, sqlite_path
from d2l_study.study.mlflow.links import experiment_url, run_path
from d2l_study.study.mlflow.tags import KIND

HOST = "127.0.0.1"
START_SECONDS = 120.0
STOP_SECONDS = 10.0
MOST_STUDIES = 10


def serve(root: str | Path, uri: str, port: int = 5000) -> None:
    """Serve the pages of the store at `uri` on 127.0.0.1 until Ctrl-C or SIGTERM; prints the addresses.

    Another free port is taken if `port` is not free. A tracking server has pages of its own: its address is
    printed, nothing is started. `UserError` if there is no store yet or the pages do not start.
    """
    if is_http(uri):
        check_uri(uri)
        print(f"The tracking server shows its pages itself: {page_server(uri)}", flush=True)
        return
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise UserError(_no_store_text(root, path))
    check_uri(uri)  # also brings a damaged or foreign file to light before a server fails on it
    chosen = free_port(port)
    if chosen != port:
        print(f"Port {port} is taken; using {chosen}.", flush=True)
    with tempfile.TemporaryFile() as log, _server(uri, chosen, log) as process:
        address = f"http://{HOST}:{chosen}"
        _wait_until_up(process, address, log)
        print(f"MLflow: {address}  (Ctrl-C ends it)", flush=True)
        for name, page, report in _study_pages(uri, address):
            print(f"  {name}: {page}", flush=True)
            if report:
                print(f"    report: {report}", flush=True)
        code = process.wait()
        raise UserError(f"the MLflow server ended by itself (exit code {code}): {_last_line(log)}")


def free_port(port: int) -> int:
    """The port itself if nobody listens on it at 127.0.0.1, else one that is free."""
    for candidate in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, candidate))
            except (OSError, OverflowError):
                continue
            return probe.getsockname()[1]
    raise UserError(f"no free port on {HOST}")


def _no_store_text(root: str | Path, path: Path) -> str:
    studies = list_studies(open_storage(root))
    command = f"sync {studies[0]} --root {root}" if studies else f"run --space vat_quick --root {root}"
    return f"no MLflow store at {path} yet; `{command_text(command)}` makes one"


@contextlib.contextmanager
def _server(uri: str, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen]:
    """The server as a process group of its own, which ends with the block, by Ctrl-C and SIGTERM too."""
    defaults = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # 0.5 of 2.3 GB
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST,
               "--port", str(port), "--workers", "1"]  # fmt: skip
    path = sqlite_path(uri)
    if path is not None:
        command += ["--artifacts-destination", (path.parent / "mlartifacts").as_uri()]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    process = subprocess.Popen(
        command, stdout=log, stderr=subprocess.STDOUT, env={**defaults, **os.environ}, cwd=tempfile.gettempdir(),
        start_new_session=True,  # the terminal's Ctrl-C reaches us alone, and we end the whole group
    )  # fmt: skip
    try:
        yield process
    except KeyboardInterrupt:
        print("\nMLflow ended.", flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        _end_group(process)


def _end_group(process: subprocess.Popen) -> None:
    """Ask the group to end, then make it; the group outlives its leader as long as one of its workers does."""
    for wanted in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, wanted)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            process.poll()
            try:
                os.killpg(process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)


def _wait_until_up(process: subprocess.Popen, address: str, log: IO[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot see this machine's loopback
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise UserError(f"the MLflow server did not start: {_last_line(log)}")
        with contextlib.suppress(urllib.error.URLError, OSError):
            opener.open(f"{address}/health", timeout=2).close()
            return
        time.sleep(0.1)
    raise UserError(f"the MLflow server did not start within {START_SECONDS:g} s: {_last_line(log)}")


def _study_pages(uri: str, address: str) -> list[tuple[str, str, str]]:
    """The newest studies: name, page, and the page of the report, empty where there is none."""
    store = client(uri)
    found = store.search_experiments(order_by=["last_update_time DESC"], max_results=MOST_STUDIES + 1)
    found = [e for e in found if e.name != "Default"][:MOST_STUDIES]
    return [
        (e.name, experiment_url(address, e.experiment_id), _report_page(store, e.experiment_id, address)) for e in found
    ]


def _report_page(store: Any, experiment: str, address: str) -> str:
    """Where MLflow shows the report of a study's parent run."""
    with contextlib.suppress(Exception):  # a link is a courtesy
        for run in store.search_runs([experiment], f"tags.`{KIND}` = 'study'", max_results=1):
            if any(file.path == REPORT for file in store.list_artifacts(run.info.run_id)):
                return f"{address}/{run_path(experiment, run.info.run_id, REPORT)}"
    return ""


def _last_line(log: IO[bytes]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
