"""A tracking server that is stopped in the middle of a study and comes back, or does not."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from studies import Place, end_session

pytestmark = pytest.mark.soak


class Server:
    """`mlflow server` on loopback, its store in a folder: stopped and started again on the same port."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
             "--workers", "1", "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
             "--artifacts-destination", str(self.folder / "artifacts")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2)
                return
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline and self.process.poll() is None, "the server does not start"
                time.sleep(0.5)

    def stop(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            end_session(self.process, 1)
            self.process = None


@pytest.fixture
def server(tmp_path):
    found = Server(tmp_path)
    found.start()
    yield found
    found.stop()


def complete(place, uri):
    mine, runs = place.children(uri)
    assert len(mine) == 5 and len({run.data.tags["d2l.config_id"] for run in mine}) == 5
    assert {run.info.status for run in runs} == {"FINISHED"}
    rows = {(row["config_id"]): row for row in place.rows()}
    assert {run.data.tags["d2l.config_id"] for run in mine} == set(rows)
    for run in mine:
        values = [row["bag_auc"] for row in place.rows() if row["config_id"] == run.data.tags["d2l.config_id"]]
        assert run.data.metrics["bag_auc"] == pytest.approx(sum(values) / len(values))


def test_a_server_that_is_stopped_and_returns_ends_up_complete(server, tmp_path):
    place = Place(tmp_path / "study", steps=400, replicates=3)
    driver = place.start("--tracking-uri", server.uri)
    place.until(lambda: len(place.committed()) >= 3, driver, "three runs")
    server.stop()
    before = len(place.committed())
    place.until(lambda: len(place.committed()) >= before + 3, driver, "three runs without the server")
    server.start()
    assert place.wait(driver) == 0, place.said()
    if "MLflow is not up to date" in place.said():  # the study was over before it was tried again
        place.call("sync", "few", "--tracking-uri", server.uri)
    complete(place, server.uri)


def test_a_server_that_dies_holds_nothing_up_and_sync_brings_the_rest(server, tmp_path):
    place = Place(tmp_path / "study", steps=400, replicates=3)
    driver = place.start("--tracking-uri", server.uri)
    place.until(lambda: len(place.committed()) >= 1, driver, "a run")
    server.stop()
    assert place.wait(driver) == 0, place.said()
    assert "MLflow is not up to date" in place.said() and "safe in the ledger" in place.said()
    assert {row["status"] for row in place.rows()} == {"done"}
    server.start()
    place.call("sync", "few", "--tracking-uri", server.uri)
    complete(place, server.uri)
    again = place.call("sync", "few", "--tracking-uri", server.uri)
    assert "0 configurations new in MLflow, 0 brought up to date, 5 right already" in again


def test_a_server_that_does_not_answer_holds_nothing_up(server, tmp_path):
    """It is stopped, not ended: connections are taken and never answered."""
    place = Place(tmp_path / "study", steps=100, replicates=2)
    driver = place.start("--tracking-uri", server.uri)
    place.until(lambda: len(place.committed()) >= 1, driver, "a run")
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        assert place.wait(driver, 200) == 0, place.said()
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
    assert {row["status"] for row in place.rows()} == {"done"}
    place.call("sync", "few", "--tracking-uri", server.uri)
    complete(place, server.uri)
