"""A bucket that can be taken away and given back: moto's S3 server as a process, behind a proxy that can be closed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pandas as pd
from pyarrow import fs
from studies import SCIENCE, Place

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


class Server:
    """moto's S3 server in a process of its own; its objects are in that process's memory."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        program = f"import sys; from moto.server import main; sys.exit(main(['-H', '127.0.0.1', '-p', '{self.port}']))"
        with (folder / "moto.log").open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            assert self.process.poll() is None and time.monotonic() < deadline, (folder / "moto.log").read_text()
            time.sleep(0.1)

    def suspend(self) -> None:
        """Connections are made, and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Proxy:
    """A way to a server that can be closed: what is open is cut, and new connections are refused."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._begin(self._listener)

    def close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._begin(self._listener)

    def _begin(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for source, sink in ((near, far), (far, near)):
                self._open.add(source)
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._open.discard(source)
        source.close()


class BucketPlace(Place):
    """A `Place` whose root is in a bucket at this port."""

    def __init__(self, folder: Path, port: int, steps: int, replicates: int, **environment: str) -> None:
        super().__init__(folder, steps=steps, replicates=replicates, **{**KEYS, **environment})
        self.root = self.address(port)  # type: ignore[assignment]
        (folder / "runs").mkdir()

    def address(self, port: int) -> str:
        return f"s3://studies/{self.folder.name}?scheme=http&endpoint_override=127.0.0.1:{port}&region=us-east-1"

    def files(self, port: int) -> Bucket:
        return Bucket(self.address(port))

    def store(self) -> str:
        return f"sqlite:///{self.folder}/runs/mlflow.db"


class Bucket:
    """What a root in a bucket holds, read by pyarrow alone, past the proxy."""

    def __init__(self, address: str) -> None:
        os.environ.update(KEYS)
        self._files, self._base = fs.FileSystem.from_uri(address)

    def paths(self, ending: str = "") -> list[str]:
        everything = fs.FileSelector(self._base, recursive=True, allow_not_found=True)
        found = [info.path for info in self._files.get_file_info(everything) if info.type == fs.FileType.File]
        return sorted(path for path in found if path.endswith(ending))

    def read(self, path: str) -> bytes:
        with self._files.open_input_stream(path) as stream:
            return stream.read()

    def rows(self) -> list[dict]:
        (path,) = self.paths("rows.parquet")
        frame = pd.read_parquet(io.BytesIO(self.read(path)))[SCIENCE]
        return json.loads(frame.to_json(orient="records", double_precision=15))

    def attempts(self) -> Counter[int]:
        """How many attempts left data in the folder of a run -> how many runs."""
        found: dict[str, set[str]] = {}
        for path in self.paths():
            folder, _, name = path.rpartition("/")
            record = name in ("commit.json", "checkpoint.pt") or name.startswith("added-")  # as weights are in a bucket
            if folder.rpartition("/")[2].startswith("r") and not record and "/results/" in path:
                found.setdefault(folder, set()).add(name.split(".")[0])
        return Counter(len(names) for names in found.values())
