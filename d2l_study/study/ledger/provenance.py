"""The provenance of results, kept with every study: code and its local changes, packages, host, devices, command
line."""

from __future__ import annotations

import hashlib
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from d2l_study import SCIENCE_VERSION, __version__
from d2l_study.command_line import command_text
from d2l_study.credentials import masked

PACKAGES = ("torch", "numpy", "ray", "optuna", "cmaes", "mlflow", "pandas", "pyarrow", "scipy", "safetensors",
            "matplotlib", "pillow", "pyyaml")  # fmt: skip
CHECKOUT = Path(__file__).resolve().parents[3]
CODE = (":(top,glob)**/*.py", ":(top,glob)search_spaces/*.yaml", ":(top)pyproject.toml", ":(top)constraints.txt")
"""The files of a checkout that results depend on. Local changes of other files are not kept with a study: notes, keys
and data beside the code are private."""
NEW = (":(top,glob)d2l_study/**/*.py", ":(top,glob)analysis/**/*.py", ":(top,glob)search_spaces/*.yaml")
"""The same, for files that git does not track yet."""

MOST_BYTES = 1_000_000
MOST_NEW_FILES = 100
MOST_EARLIER = 50


@dataclass(frozen=True)
class SourcePatch:
    """The local changes of a checkout as a patch. cut: it was longer than `MOST_BYTES`, and is not complete."""

    patch: bytes
    cut: bool

    @property
    def name(self) -> str:
        """The name of its file in the study's folder. It depends on the content, so that later changes are kept too."""
        return f"local-{hashlib.sha256(self.patch).hexdigest()[:8]}.diff"

    def to_dict(self) -> dict[str, Any]:
        return {"file": self.name, "bytes": len(self.patch), "cut": self.cut}


def _git(folder: Path, *arguments: str, codes: tuple[int, ...] = (0,)) -> bytes:
    """The output of git; empty if there is no git or it fails."""
    command = ["git", "--no-optional-locks", "-c", "core.quotePath=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode in codes else b""


@cache
def commit(folder: Path = CHECKOUT) -> tuple[str | None, bool]:
    """The commit of the checkout this code runs from and whether its code differs; (None, False) when installed."""
    if not (folder / ".git").exists():
        return None, False
    head = _git(folder, "rev-parse", "HEAD").decode().strip()
    return head or None, bool(head) and bool(
        _git(folder, "status", "--porcelain", "--untracked-files=no", "--", *CODE).strip() or _new_files(folder)
    )


def _new_files(folder: Path) -> list[str]:
    found = _git(folder, "ls-files", "-z", "--others", "--exclude-standard", "--", *NEW)
    return [name for name in found.decode("utf-8", "replace").split("\0") if name]


@cache
def local_difference(folder: Path = CHECKOUT) -> SourcePatch | None:
    """The local changes of the checkout that this code runs from, with new files of code; None if there are none, or if
    the package is installed. `git apply` takes the patch, unless it was cut."""
    if not commit(folder)[1]:
        return None
    plain = ("--no-color", "--no-ext-diff", "--no-textconv")
    patch = _git(folder, "diff", *plain, "HEAD", "--", *CODE)
    new = _new_files(folder)
    for name in new[:MOST_NEW_FILES]:
        if len(patch) > MOST_BYTES:
            break
        patch += _git(folder, "diff", *plain, "--no-index", "--", "/dev/null", name, codes=(0, 1))
    if not patch:
        return None
    cut = len(patch) > MOST_BYTES or len(new) > MOST_NEW_FILES
    return SourcePatch(patch[:MOST_BYTES], cut)


def code_version() -> str:
    """`0.1.0+4c123f0` from a checkout, with `.dirty` when its tree differs; `0.1.0` when installed."""
    head, dirty = commit()
    return __version__ + (f"+{head[:7]}" + (".dirty" if dirty else "") if head else "")


def collect() -> dict[str, Any]:
    """The provenance of this process, as `resolved.json` keeps it."""
    head, dirty = commit()
    difference = local_difference()
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
        "local_difference": difference.to_dict() if difference else None,
        "science_version": SCIENCE_VERSION,
        "python": platform.python_version(),
        "packages": versions,
        "host": socket.gethostname(),
        "system": platform.platform(),
        "processor": _processor(),
        "gpus": _gpus(),
        "command": command_text(shlex.join(masked(word) for word in sys.argv[1:])),
    }


def earlier_commands(resolved: Mapping[str, Any], origin: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The provenance of earlier commands of a study, from its `resolved.json`: each one that differs from the others
    and from this command's (`origin`), at most the last `MOST_EARLIER`."""
    found: list[Mapping[str, Any]] = []
    for one in (*resolved.get("earlier", ()), resolved.get("provenance", {})):
        if "command" in one:  # of a version that kept it as it was typed
            one = {**one, "command": masked(str(one["command"]))}
        if one and one != origin and one not in found:
            found.append(one)
    return found[-MOST_EARLIER:]


def _gpus() -> list[str]:
    """This machine's NVIDIA GPUs by name. What each run was trained on is in its row."""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        found += [line.split(":", 1)[1].strip() for line in lines if line.startswith("Model")]
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
