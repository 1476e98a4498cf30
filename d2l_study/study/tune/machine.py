"""What there is to compute on: processor cores and NVIDIA GPUs of this machine, or of the nodes of a Ray cluster."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.util
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from d2l_study.errors import counted
from d2l_study.study.tune.gpu_kernels import Capability, why_without_kernels

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
    does. problems: of each GPU of this machine, in CUDA's order, why PyTorch cannot use it; empty of other nodes."""

    nodes: tuple[Node, ...]
    unusable: str = ""
    problems: tuple[str, ...] = ()

    @property
    def gpus(self) -> int:
        """GPUs of all nodes together."""
        return int(sum(node.gpus for node in self.nodes))

    def why_not(self, number: int) -> str:
        """Why GPU `number` cannot be used, in words; empty if it can."""
        return self.problems[number] if number < len(self.problems) else self.unusable


def this_machine() -> Machines:
    """This machine."""
    cpus = find_cores()
    gpus, driver = find_gpus()
    found = f"{counted(gpus, 'GPU')} found, but "
    whys = [why_unusable(driver, capability) for capability in visible_capabilities()[:gpus]]
    whys = whys or [why_unusable(driver)] * gpus
    unusable = next((found + why for why in whys if why), "")
    if unusable and not all(whys):  # trials could be given any of them
        unusable += ", as one of them has; CUDA_VISIBLE_DEVICES can name the others"
    return Machines((Node(cpus, gpus),), unusable, tuple(why and found + why for why in whys))


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
    named = _visible_names()
    return count if named is None else min(count, len(named)), driver


def visible_capabilities() -> tuple[Capability, ...]:
    """The compute capability of each GPU that a process here may use, in the order of CUDA; empty if it is not known.

    CUDA numbers the fastest first, for which the newest are taken here, unless it is told to number them by their
    places (`CUDA_DEVICE_ORDER`).
    """
    there = list(_physical_gpus())
    if os.environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
        there.sort(key=lambda gpu: gpu[1], reverse=True)
    named = _visible_names()
    if named is None or not there:
        return tuple(capability for _, capability in there)
    newest = max(capability for _, capability in there)
    found = []
    for name in named:
        if name.isdecimal():
            own = [there[int(name)][1]] if int(name) < len(there) else []
        else:  # the beginning of an identity; a part of a GPU has one of its own
            own = [capability for identity, capability in there if identity.startswith(name)]
        found.append(own[0] if own else newest)
    return tuple(found)


def why_node_unusable(gpus: int) -> str:
    """Why PyTorch cannot use the GPUs of a node of Ray, empty if it can. gpus: as many as Ray has there, of which it
    shows none to a process that asks for none."""
    _, driver = find_gpus()
    newest = sorted((capability for _, capability in _physical_gpus()), reverse=True)[:gpus]
    whys = [why_unusable(driver, capability) for capability in newest] or [why_unusable(driver)]
    return next(filter(None, whys), "")


def _visible_names() -> list[str] | None:
    """The GPUs that `CUDA_VISIBLE_DEVICES` names, by number or identity; None where it is not set."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return None
    named = [name.strip() for name in visible.split(",")]
    # CUDA takes the devices up to the first name that is none.
    return named[: next((i for i, name in enumerate(named) if name in ("", "-1", "NoDevFiles")), len(named))]


@contextlib.contextmanager
def _nvidia_library() -> Iterator[ctypes.CDLL | None]:
    """NVIDIA's management library during the block; None where it is missing or does not start."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        library = None
    if library is None or library.nvmlInit_v2() != 0:
        yield None
        return
    try:
        yield library
    finally:
        library.nvmlShutdown()


@functools.cache
def _nvml() -> tuple[int, int]:
    """(GPUs, CUDA version) by NVIDIA's management library; (0, 0) without it."""
    count, version = ctypes.c_uint(0), ctypes.c_int(0)
    with _nvidia_library() as library:
        if library is None:
            return 0, 0
        counted = library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
        known = library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version)) == 0
    return int(count.value) if counted else 0, int(version.value) if known else 0


@functools.cache
def _physical_gpus() -> tuple[tuple[str, Capability], ...]:
    """(identity such as `GPU-6e0c…`, compute capability) of each GPU of this machine, by their places; empty where the
    library does not say it of all."""
    count, _ = _nvml()
    found: list[tuple[str, Capability]] = []
    with _nvidia_library() as library:
        for number in range(count):
            if library is None:
                return ()
            device, identity = ctypes.c_void_p(), ctypes.create_string_buffer(96)
            major, minor = ctypes.c_int(0), ctypes.c_int(0)
            if (
                library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(device)) != 0
                or library.nvmlDeviceGetCudaComputeCapability(device, ctypes.byref(major), ctypes.byref(minor)) != 0
            ):
                return ()
            library.nvmlDeviceGetUUID(device, identity, len(identity))  # empty where it fails
            found.append((identity.value.decode(errors="replace"), (int(major.value), int(minor.value))))
    return tuple(found)


# ---- whether the installed PyTorch can use them
def why_no_gpu(machines: Machines, number: int) -> str:
    """Why GPU `number` of this machine cannot compute here, in words; empty if it can."""
    if not machines.gpus:
        return "no GPU is found here"
    if number >= machines.gpus:
        return f"{counted(machines.gpus, 'GPU')} found here, numbered from 0"
    if why := machines.why_not(number):  # another one may do for trials, or this one where another does not
        return why
    import torch

    return "" if torch.cuda.is_available() else f"{counted(machines.gpus, 'GPU')} found, but PyTorch cannot start CUDA"


def why_unusable(driver: int, capability: Capability | None = None) -> str:
    """Why the installed PyTorch cannot use a GPU, empty if it can. driver: CUDA version of the driver, 0 if it is not
    known; capability: of the GPU, None if it is not known. A driver serves every CUDA of its major version and older
    ones."""
    cuda = torch_cuda()
    if cuda is None:
        return "this PyTorch is built without CUDA"
    if driver and int(cuda.split(".")[0]) > driver // 1000:
        return f"this PyTorch needs CUDA {cuda}, and the driver has {driver // 1000}.{driver % 1000 // 10}"
    return why_without_kernels(cuda, capability) if capability is not None else ""


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
