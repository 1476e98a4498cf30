"""The `ui` command's function: the right store, on this machine only, and nothing left behind by Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from empty_store import copied_store
from make_study import make_study

from d2l_study.errors import UserError
from d2l_study.study.commands.mlflow_ui import free_port, serve
from d2l_study.study.commands.sync import sync_mlflow


def test_without_a_store_it_names_the_command_that_makes_one(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(UserError, match="run --space"):
        serve(tmp_path, uri)
    make_study(tmp_path, "kept", num_bags=(50,), bag_sizes=(10,), replicates=1)
    with pytest.raises(UserError, match="sync kept"):
        serve(tmp_path, uri)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "mlflow.db").write_text("notes, no database " * 50)
    with pytest.raises(UserError, match="not a database"):
        serve(tmp_path, f"sqlite:///{tmp_path}/mlflow.db")


def test_a_taken_port_is_not_fought_for():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = free_port(port)
        assert other != port
    assert free_port(other) == other


def test_it_serves_the_study_on_loopback_until_ctrl_c(tmp_path, tmp_path_factory):
    uri = copied_store(tmp_path, tmp_path_factory)
    sync_mlflow(make_study(tmp_path, "kept", num_bags=(50,), bag_sizes=(10,), replicates=2), uri)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = taken.getsockname()[1]
        code = "from pathlib import Path; from d2l_study.study.commands.mlflow_ui import serve"
        code += f"; serve(Path({str(tmp_path)!r}), {uri!r}, {asked})"
        # A background job of a script starts with SIGINT ignored, and its children too: not a terminal's Ctrl-C.
        ui = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        try:
            assert ui.stdout is not None
            said = [ui.stdout.readline() for _ in range(3)]
            assert said[0].startswith(f"Port {asked} is taken")
            address = said[1].split()[1]
            assert said[2].startswith(f"  kept: {address}/#/experiments/")
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(address, timeout=30) as page:
                assert b"<title>MLflow</title>" in page.read()
            port = int(address.rsplit(":", 1)[1])
            assert listening_addresses(port) == {"0100007F"}  # 127.0.0.1
            server = int(Path(f"/proc/{ui.pid}/task/{ui.pid}/children").read_text().split()[0])
            ui.send_signal(signal.SIGINT)
            assert ui.wait(timeout=60) == 0
            assert "MLflow ended." in ui.stdout.read()
            with pytest.raises(ProcessLookupError):  # the server and its workers, which are one process group
                os.killpg(server, 0)
            assert listening_addresses(port) == set()
        finally:
            ui.terminate()
            ui.wait(timeout=60)
            ui.stdout.close()


def listening_addresses(port: int) -> set[str]:
    """Local addresses, as the kernel writes them, that listen on a port."""
    found = set()
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(name).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local.split(":")[1], 16) == port:
                found.add(local.split(":")[0])
    return found
