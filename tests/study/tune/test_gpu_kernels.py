"""A GPU that PyTorch has no kernels for is named, and not taken. The machines here are pretended."""

from __future__ import annotations

import ctypes

import pytest
import torch

from d2l_study.study.tune import gpu_kernels, machine
from d2l_study.study.tune.gpu_kernels import Capability, torch_kernels, why_without_kernels
from d2l_study.study.tune.machine import this_machine, visible_capabilities, why_node_unusable
from d2l_study.study.tune.node_checks import _probe_function

PASCAL, VOLTA, TURING, HOPPER, BLACKWELL = (6, 1), (7, 0), (7, 5), (9, 0), (12, 0)


class Library:
    """NVIDIA's management library on a machine with some GPUs, by their places."""

    def __init__(self, capabilities: tuple[Capability, ...], driver: int = 13000) -> None:
        self.capabilities, self.driver = capabilities, driver

    def nvmlInit_v2(self) -> int:
        return 0

    nvmlShutdown = nvmlInit_v2

    def nvmlDeviceGetCount_v2(self, count: object) -> int:
        count._obj.value = len(self.capabilities)
        return 0

    def nvmlSystemGetCudaDriverVersion_v2(self, version: object) -> int:
        version._obj.value = self.driver
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, device: object) -> int:
        device._obj.value = number + 1
        return 0

    def nvmlDeviceGetCudaComputeCapability(self, device: ctypes.c_void_p, major: object, minor: object) -> int:
        major._obj.value, minor._obj.value = self.capabilities[device.value - 1]
        return 0

    def nvmlDeviceGetUUID(self, device: ctypes.c_void_p, identity: ctypes.Array, size: int) -> int:
        identity.value = f"GPU-{device.value - 1}abc".encode()
        return 0


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    """Lets this machine have GPUs of some capabilities, under a PyTorch for some CUDA with kernels for some more."""

    def of(*capabilities: Capability, cuda: str = "13.0", flags: str | None = None) -> None:
        library = Library(capabilities)
        monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: library)
        monkeypatch.setattr(machine, "torch_cuda", lambda: cuda)
        monkeypatch.setattr(machine, "find_cores", lambda: 8)
        monkeypatch.delattr(torch._C, "_cuda_getArchFlags", raising=False)
        if flags is not None:
            monkeypatch.setattr(torch._C, "_cuda_getArchFlags", lambda: flags, raising=False)
        for cached in (machine._nvml, machine._physical_gpus, torch_kernels):
            cached.cache_clear()

    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)
    yield of
    for cached in (machine._nvml, machine._physical_gpus, torch_kernels):
        cached.cache_clear()


def test_a_gpu_that_pytorch_has_no_kernels_for_is_named_and_not_taken(gpus):
    gpus(VOLTA, flags="sm_75 sm_80 sm_90 sm_120 compute_120")
    told = this_machine()
    assert told.gpus == 1 and told.unusable == (
        "1 GPU found, but this PyTorch has no kernels for compute capability 7.0 (it has for 7.5, 8.0, 9.0, 12.0)"
    )
    gpus(HOPPER)
    assert this_machine().gpus == 1 and this_machine().unusable == ""


@pytest.mark.parametrize(
    ("cuda", "capability", "flags", "usable"),
    [
        ("13.0", VOLTA, None, False),
        ("13.0", TURING, None, True),
        ("12.6", VOLTA, None, True),
        ("12.6", (5, 0), None, True),
        ("12.6", (3, 7), None, False),
        ("12.8", PASCAL, "sm_70 sm_75", False),
        ("12.8", PASCAL, "sm_50 sm_60", True),  # kernels run on all newer ones of their major number
        ("12.6", BLACKWELL, "sm_50 sm_90", False),
        ("12.6", BLACKWELL, "sm_50 sm_90 compute_90", True),  # which the driver translates
        ("12.6", BLACKWELL, "sm_90a", False),
        ("12.6", BLACKWELL, None, True),  # nothing is known, so nothing is claimed
        ("13.0", (12, 1), "sm_75", True),  # not asked: every build has them
        ("13.0", (13, 0), "sm_75 sm_120", False),
    ],
)
def test_what_a_build_has_kernels_for(gpus, cuda, capability, flags, usable):
    gpus(capability, cuda=cuda, flags=flags)
    assert (why_without_kernels(cuda, capability) == "") == usable
    assert bool(this_machine().unusable) != usable


def test_pytorch_is_asked_only_where_builds_differ(gpus, monkeypatch):
    monkeypatch.setattr(gpu_kernels, "torch_kernels", lambda: pytest.fail("to import it takes a second"))
    gpus(TURING, HOPPER, BLACKWELL)
    assert this_machine().unusable == ""


def test_an_old_gpu_beside_a_new_one_is_named_and_can_be_hidden(gpus, monkeypatch):
    gpus(PASCAL, HOPPER)
    told = this_machine()
    assert told.unusable.startswith("2 GPUs found, but this PyTorch has no kernels for compute capability 6.1 (")
    assert told.unusable.endswith(", as one of them has; CUDA_VISIBLE_DEVICES can name the others")
    assert told.why_not(0) == "" and "6.1" in told.why_not(1)  # CUDA numbers the faster one 0
    for visible, order, seen in (
        ("0", "", [HOPPER]), ("1", "", [PASCAL]), ("0", "PCI_BUS_ID", [PASCAL]),
        ("1,0", "PCI_BUS_ID", [HOPPER, PASCAL]),
        ("GPU-1a", "", [HOPPER]), ("GPU-0abc", "", [PASCAL]), ("MIG-7", "", [HOPPER]), ("", "", []), ("-1", "", []),
    ):  # fmt: skip
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
        assert visible_capabilities() == tuple(seen)
        assert bool(this_machine().unusable) == (PASCAL in seen)


def test_a_node_of_ray_is_judged_by_the_gpus_that_ray_has_there(gpus, monkeypatch, tmp_path):
    gpus(PASCAL, HOPPER)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as Ray sets it for a process that asks for no GPU
    assert "6.1" in why_node_unusable(2) and why_node_unusable(1) == ""
    answer = _probe_function()(str(tmp_path), "missing", [], 2)
    assert "no kernels for compute capability 6.1" in answer["unusable"]


def test_without_the_library_nothing_is_known(gpus, monkeypatch):
    gpus(PASCAL)
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert machine.find_gpus() == (0, 0) and visible_capabilities() == () and this_machine().unusable == ""
