"""What there is to compute on: processor cores and NVIDIA GPUs of this machine, or of the nodes of a Ray cluster."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from d2l_study.errors import counted

RAY_UP_FILE = Path("~/ray_bootstrap_config.yaml")
"""Where `ray up` leaves the cluster's description on its head; `cluster.yaml` starts Ray's autoscaler with it."""


@dataclass(frozen=True)
class Node:
    """A machine that trials may run on: its processor cores and GPUs, as Ray counts them."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Machines:
    """The nodes that a study has. unusable: what keeps it from taking their GPUs by itself, in words; empty if nothing
    does."""

    nodes: tuple[Node, ...]
    unusable: str = ""

    @property
    def gpus(self) -> int:
        """GPUs of all nodes together."""
        return int(sum(node.gpus for node in self.nodes))


def this_machine() -> Machines:
    """This machine."""
    cpus = find_cores()
    gpus, driver = find_gpus()
    unusable = why_unusable(driver) if gpus else ""
    if unusable:
        unusable = f"{counted(gpus, 'GPU')} found, but {unusable}"
    return Machines((Node(cpus, gpus),), unusable)


def find_cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# ---- this machine's GPUs
def find_gpus() -> tuple[int, int]:
    """(GPUs that a process here may use, CUDA version of their driver as 1000 × major + 10 × minor).

    It counts as Ray does: what NVIDIA's management library names, and no more than `CUDA_VISIBLE_DEVICES` allows. To
    ask torch would take a second, Ray half a second, the library milliseconds.
    """
    count, driver = _nvml()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if count and visible is not None:
        named = [name.strip() for name in visible.split(",")]
        # CUDA takes the devices up to the first name that is none.
        ended = next((i for i, name in enumerate(named) if name in ("", "-1", "NoDevFiles")), len(named))
        count = min(count, ended)
    return count, driver


@functools.cache
def _nvml() -> tuple[int, int]:
    """(GPUs, CUDA version) by NVIDIA's management library; (0, 0) where it is missing or does not start."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0, 0
    if library.nvmlInit_v2() != 0:
        return 0, 0
    count, version = ctypes.c_uint(0), ctypes.c_int(0)
    try:
        counted = library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
        known = library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version)) == 0
    finally:
        library.nvmlShutdown()
    return int(count.value) if counted else 0, int(version.value) if known else 0


def why_unusable(driver: int) -> str:
    """Why the installed PyTorch cannot use the GPUs, empty if it can. driver: CUDA version of the driver, 0 if it is
    not known. A driver serves every CUDA of its major version and older ones."""
    cuda = torch_cuda()
    if cuda is None:
        return "this PyTorch is built without CUDA"
    if driver and int(cuda.split(".")[0]) > driver // 1000:
        return f"this PyTorch needs CUDA {cuda}, and the driver has {driver // 1000}.{driver % 1000 // 10}"
    return ""


@functools.cache
def torch_cuda() -> str | None:
    """The CUDA version that the installed torch is built for, None without; read from its file, without importing."""
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec is not None else []:
        try:
            text = (Path(folder) / "version.py").read_text(encoding="utf-8")
        except OSError:
            continue
        found = re.search(r"^cuda\b[^=\n]*=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
        return found[1] if found else None
    return None


# ---- a cluster's nodes
def cluster_machines(ray: Any, unusable: Mapping[str, str]) -> Machines:
    """The nodes of a Ray that was joined which can run trials; where there is none yet, those that it would start.

    unusable: id of a node -> why its PyTorch cannot use GPUs, if so (`node_checks`). A study goes on GPUs only if every
    node that has some can use them: Ray gives trials to any of these.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    nodes = nodes_there(ray) or startable_nodes()
    for node in alive:
        count = int(node["Resources"].get("GPU", 0))
        if count and (why := unusable.get(node["NodeID"])):
            found = f"{counted(count, 'GPU')} found on {node['NodeManagerHostname']}, but {why}"
            return Machines(nodes, found)
    return Machines(nodes)


def nodes_there(ray: Any) -> tuple[Node, ...]:
    """The nodes of a Ray that was joined which can run trials and are there now."""
    return _nodes(node["Resources"] for node in ray.nodes() if node["Alive"])


def _nodes(resources: Iterable[Mapping[str, float]]) -> tuple[Node, ...]:
    """Nodes by their Ray resources, without those that have no cores for trials, such as a cluster's head."""
    nodes = (Node(float(given.get("CPU", 0)), float(given.get("GPU", 0))) for given in resources)
    return tuple(node for node in nodes if node.cpus > 0)


def startable_nodes() -> tuple[Node, ...]:
    """A node of each kind that a cluster made by `ray up` starts on demand, as its head's file describes them."""
    try:
        content = yaml.safe_load(RAY_UP_FILE.expanduser().read_text(encoding="utf-8"))
        kinds = content["available_node_types"].values()
        return _nodes(kind.get("resources") or {} for kind in kinds if kind.get("max_workers", 0) > 0)
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
        return ()
