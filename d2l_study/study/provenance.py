"""Where results come from: code, packages, host, command line. Kept with every study."""

from __future__ import annotations

import platform
import shlex
import socket
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from d2l_study import SCIENCE_VERSION, __version__

PACKAGES = ("torch", "numpy", "ray", "optuna", "mlflow", "pandas", "pyarrow", "scipy")


@cache
def commit() -> tuple[str | None, bool]:
    """The commit of the checkout this code runs from and whether its tree differs; (None, False) when installed."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None, False

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=20)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "HEAD")
        return head or None, bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.TimeoutExpired):
        return None, False


def code_version() -> str:
    """`0.1.0+4c123f0` from a checkout, with `.dirty` when its tree differs; `0.1.0` when installed."""
    head, dirty = commit()
    return __version__ + (f"+{head[:7]}" + (".dirty" if dirty else "") if head else "")


def collect() -> dict[str, Any]:
    """Everything about this process that a reader of a study may ask for."""
    head, dirty = commit()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    return {
        "code_version": code_version(),
        "commit": head,
        "dirty": dirty,
        "science_version": SCIENCE_VERSION,
        "python": platform.python_version(),
        "packages": versions,
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": _processor(),
        "command": shlex.join(["python", "-m", "d2l_study", *sys.argv[1:]]),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
