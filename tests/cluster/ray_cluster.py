"""`ray up` with the shipped clusters/onprem.yaml on the hosts of `hosts`, and studies on the cluster that results."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from hosts import Hosts

REPOSITORY = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
ENVIRONMENT = Path(sys.prefix).resolve()
"""The Python environment as the hosts find it: a link to it may lie in a folder that each host has for itself."""
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
"""For the bucket of the tests, whose server checks none."""


class RayCluster:
    """The cluster of clusters/onprem.yaml: host 0 is its head, the others its workers.

    What differs from the file: addresses and login; the Python that is here instead of one to be installed, with the
    synced checkout before it; two CPUs for each worker, whatever the machine has.
    """

    def __init__(self, hosts: Hosts, home: Path) -> None:
        self.hosts, self.home, self.name = hosts, home, f"d2l-test-{secrets.token_hex(3)}"
        (home / ".ray").mkdir(parents=True)
        token = home / ".ray" / "auth_token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        self.file = home / "cluster.yaml"
        self.file.write_text(yaml.safe_dump(self._config()))
        self.log = home / "log.txt"

    def _config(self) -> dict[str, Any]:
        config = yaml.safe_load((REPOSITORY / "clusters" / "onprem.yaml").read_text())
        workers = [self.hosts.address(host) for host in range(1, self.hosts.count)]
        config["cluster_name"] = self.name
        config["provider"] |= {"head_ip": self.hosts.address(0), "worker_ips": workers}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(self.hosts.key)}
        config |= {"min_workers": len(workers), "max_workers": len(workers)}
        environment = " ".join(f"{name}={value}" for name, value in CREDENTIALS.items())
        config["setup_commands"] = [f"ln -sfn {ENVIRONMENT} ~/d2l_venv", *config["setup_commands"][2:]]
        for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[commands] = [
                command.replace("export PATH", f"export {environment} PYTHONPATH=~/d2l_study PATH")
                for command in config[commands]
            ]
        config["worker_start_ray_commands"][-1] += " --num-cpus=2"
        return config

    def up(self) -> None:
        """`ray up`, then wait until every worker is there."""
        self.ray("up", str(self.file), "-y", "--no-config-cache")
        self.wait(self.hosts.count - 1)

    def down(self) -> None:
        """`ray down`, also where no host answers any more: the next `up` takes every host for a new one."""
        self.ray("down", str(self.file), "-y")

    def forget(self) -> None:
        """Remove what Ray keeps of the cluster on this machine."""
        for path in Path("/tmp/ray").glob(f"cluster-{self.name}.*"):
            path.unlink()

    def wait(self, workers: int, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while True:
            said = self.hosts.run(0, "RAY_AUTH_MODE=token ~/d2l_venv/bin/ray status", check=False).stdout
            if f"{2.0 * workers} CPU" in said:
                return
            assert time.monotonic() < deadline, f"not {workers} workers after {seconds:g} s:\n{said}"
            time.sleep(2)

    def study(self, arguments: str, wait: bool = True) -> subprocess.Popen:
        """`ray exec FILE 'python -m d2l_study …'`; its output goes to `log`."""
        names = " ".join(f"{name}={value}" for name, value in CREDENTIALS.items())
        command = f"cd ~/d2l_study && {names} RAY_AUTH_MODE=token ~/d2l_venv/bin/python -m d2l_study {arguments}"
        self.note(f"$ ray exec FILE {shlex.quote(command)}")
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [RAY, "exec", str(self.file), command, "--no-config-cache"],
                cwd=REPOSITORY, env=self._environment(), stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if wait:
            process.wait(timeout=900)
        return process

    def ray(self, *words: str) -> None:
        self.note(f"$ ray {' '.join(words)}")
        with self.log.open("ab") as log:
            ended = subprocess.run([RAY, *words], cwd=REPOSITORY, env=self._environment(), stdout=log,
                                   stderr=subprocess.STDOUT, timeout=600)  # fmt: skip
        assert ended.returncode == 0, f"ray {words[0]} ended with {ended.returncode}:\n{self.log.read_text()[-3000:]}"

    def note(self, line: str) -> None:
        with self.log.open("a") as log:
            log.write(f"\n[{time.strftime('%H:%M:%S')}] {line}\n")

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.home), "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
