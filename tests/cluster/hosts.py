"""Several hosts on one machine: network namespaces on a bridge, each with its own processes, home and SSH server.

    with Hosts(3) as hosts:          # needs root, ip, unshare, sshd and rsync
        hosts.run(0, "hostname")     # by SSH, as `ray up` does
        hosts.cut(2)                 # takes the link down and ends the host's processes
        hosts.join(2)                # a fresh host at the same address

What a host has of its own: network, process numbers (so that its `ray stop` ends nobody else's Ray), host name,
/dev/shm, /tmp and the home folder of root. What all share: the rest of the file system (the Python installation), and
/mnt/d2l-shared, which plays the part of NFS. Everything is removed at the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

NETWORK = "10.77.0"
BRIDGE = "d2l-br0"
GATEWAY = f"{NETWORK}.254"
NEEDED = ("ip", "unshare", "sshd", "rsync", "ssh", "ssh-keygen", "mount")


def why_not() -> str | None:
    """Why hosts cannot be made here, or None if they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    missing = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    for own in ("/tmp", "/root"):
        if Path(sys.prefix).resolve().is_relative_to(own):
            return f"every host has a {own} of its own, and the Python environment is in it ({sys.prefix})"
    probe = subprocess.run(["ip", "netns", "add", "d2l-probe"], capture_output=True, text=True)
    if probe.returncode:
        return f"no network namespaces here: {probe.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", "d2l-probe"], check=False)
    return None


class Hosts:
    """`count` hosts at 10.77.0.1, 10.77.0.2, …; this machine is 10.77.0.254 to them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.folder = Path(tempfile.mkdtemp(prefix="d2l-hosts-"))
        self.shared = Path("/mnt/d2l-shared")
        self.key = self.folder / "id_ed25519"
        self._init: dict[int, subprocess.Popen] = {}

    def address(self, host: int) -> str:
        return f"{NETWORK}.{host + 1}"

    def __enter__(self) -> Hosts:
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        _call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        self.shared.mkdir(parents=True, exist_ok=True)
        try:
            _call("ip", "link", "add", BRIDGE, "type", "bridge")
            _call("ip", "addr", "add", f"{GATEWAY}/24", "dev", BRIDGE)
            _call("ip", "link", "set", BRIDGE, "up")
            for host in range(self.count):
                self.join(host)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for host in list(self._init):
            self._end(host)
        for host in range(self.count):
            _try("ip", "netns", "del", _name(host))
        _try("ip", "link", "del", BRIDGE)
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.shared, ignore_errors=True)

    def join(self, host: int) -> None:
        """Bring a host up, with an empty home, and wait for its SSH server."""
        name, link = _name(host), f"d2l-v{host}"
        _try("ip", "link", "del", link)  # what is left of an earlier life
        _try("ip", "netns", "del", name)
        _call("ip", "netns", "add", name)
        _call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _call("ip", "link", "set", link, "master", BRIDGE, "up")
        for words in (
            # The same at every join: neighbours remember for half a minute where an address was.
            f"link set eth0 address 02:00:00:00:00:{host + 1:02x}",
            f"addr add {self.address(host)}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {GATEWAY}",
        ):
            _call("ip", "netns", "exec", name, "ip", *words.split())
        self._init[host] = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--pid", "--mount", "--uts", "--fork", "--kill-child",
             "--mount-proc", "bash", "-euc", self._boot(host)],
            stdout=(self.folder / f"host{host}.log").open("ab"), stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 30
        while self.run(host, "true", check=False).returncode:
            if time.monotonic() > deadline or self._init[host].poll() is not None:
                log = (self.folder / f"host{host}.log").read_text()
                raise RuntimeError(f"host {host} did not come up: {log[-2000:]}")
            time.sleep(0.2)

    def _boot(self, host: int) -> str:
        """What runs as the first process of the host: mounts of its own, then its SSH server in the foreground."""
        config = self.folder / f"sshd{host}.conf"
        config.write_text("\n".join((
            f"ListenAddress {self.address(host)}", f"HostKey {self.folder}/host_key", "PidFile none", "UsePAM no",
            f"AuthorizedKeysFile {self.folder}/id_ed25519.pub", "StrictModes no", "PermitRootLogin yes",
            "MaxStartups 100", "MaxSessions 100",
        )))  # fmt: skip
        python = sys.base_prefix  # perhaps under the home that the host's own is about to hide
        # The folder with the keys lies in /tmp, which every host has for itself.
        return f"""
hostname {_name(host)}
mkdir -p /run/sshd
mount -t tmpfs -o size=4g tmpfs /dev/shm
mkdir -p {self.folder}/python && mount --bind {python} {self.folder}/python
mount -t tmpfs -o size=4g tmpfs /root
mkdir -p {python} && mount --bind {self.folder}/python {python}
touch /root/.bashrc
mount --bind {self.folder} /mnt
mount -t tmpfs -o size=4g tmpfs /tmp
mkdir -p {self.folder} && mount --bind /mnt {self.folder} && umount /mnt
exec $(command -v sshd || echo /usr/sbin/sshd) -D -e -f {config}
"""

    def run(self, host: int, command: str, check: bool = True, timeout: float = 600) -> subprocess.CompletedProcess:
        """A shell command on a host by SSH; its output as text."""
        words = ["ssh", "-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                 "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=3", f"root@{self.address(host)}", command]  # fmt: skip
        return subprocess.run(words, check=check, capture_output=True, text=True, timeout=timeout)

    def cut(self, host: int) -> None:
        """Take the host off the network, then end all its processes, as a spot instance goes."""
        _call("ip", "link", "set", f"d2l-v{host}", "down")
        self._end(host)

    def _end(self, host: int) -> None:
        process = self._init.pop(host)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the first process of its namespace takes all the others along
        process.wait()
        time.sleep(0.2)


def _name(host: int) -> str:
    return f"d2l-host{host}"


def _call(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def _try(*words: str) -> None:
    subprocess.run(words, check=False, capture_output=True)
