"""The pages of a store as `ui` serves them: on this machine only, and nothing is left behind by Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def served(root: Path, uri: str, study: str) -> Iterator[str]:
    """The address of the pages within the block, whose store holds the study; then Ctrl-C is typed. Asserts what is
    said, where it listens, and that all of it ends."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asked = taken.getsockname()[1]
        code = "from pathlib import Path; from d2l_study.study.commands.mlflow_ui import serve"
        code += f"; serve(Path({str(root)!r}), {uri!r}, {asked})"
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
            assert said[2].startswith(f"  {study}: {address}/#/experiments/")
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(address, timeout=30) as page:
                assert b"<title>MLflow</title>" in page.read()
            port = int(address.rsplit(":", 1)[1])
            assert listening_addresses(port) == {"0100007F"}  # 127.0.0.1
            yield address
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
            assert ui.stdout is not None
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
