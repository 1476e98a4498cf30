"""What errors of PyTorch, CUDA and Ray mean: whether memory has run out, or the GPU fails all that comes after."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from d2l_study.errors import MachineError, first_line, short

ON_PROCESSOR = "with CUDA_VISIBLE_DEVICES= before it the command computes on the processor"
"""What helps where a GPU fails in a command without `--device`."""

OUT_OF_MEMORY = (
    "out of memory", "outofmemory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed",
    "cublas_status_not_initialized", "cusolver_status_alloc_failed", "memoryerror",
)  # fmt: skip
"""What messages say where memory, of the machine or of the GPU, has run out, in lower case. The libraries of CUDA have
names of their own for it: cuBLAS that cannot be made is nearly always one that gets no memory."""

DEVICE_FAILED = ("cuda error", "acceleratorerror", "cublas_status_", "cudnn_status_", "cuda driver error", "nccl error")
"""What messages say where the GPU, or the hold that a process has of it, is broken, in lower case."""


def says_out_of_memory(text: str) -> bool:
    """Whether a message or a traceback says that memory has run out."""
    return _names_one_of(OUT_OF_MEMORY, text)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, has run out."""
    return isinstance(error, MemoryError) or says_out_of_memory(str(error))


def device_failed(error: BaseException) -> bool:
    """Whether an error is of the GPU itself, as an illegal access or a failed launch: every later call of this process
    fails as well, whatever it trains, so that the process is of no more use."""
    return _names_one_of(DEVICE_FAILED, f"{type(error).__name__}: {error}") and not out_of_memory(error)


def device_line(text: str) -> str | None:
    """The line of a traceback that says what failed on the GPU; None if none does. The last lines of such errors are
    advice on debugging."""
    for line in text.splitlines():
        if _names_one_of(DEVICE_FAILED, line) and not line.startswith((" ", "\t")):
            return line.strip()
    return None


@contextlib.contextmanager
def gpu_errors_in_a_line(advice: str = "--device cpu scores on the processor") -> Iterator[None]:
    """Where a GPU fails in the block, as one does whose memory others have filled: `MachineError`, with its cause and
    what helps (advice)."""
    try:
        yield
    except RuntimeError as error:
        if not is_gpu_error(error):
            raise
        cause = short(first_line(error).split(". GPU ")[0], 140)  # what follows counts the memory of all processes
        raise MachineError(f"the GPU failed: {cause}; {advice}") from error


def is_gpu_error(error: BaseException) -> bool:
    """Whether PyTorch says by an error that the GPU, its driver or its libraries failed, for whatever reason: also one
    that is not set up, which `device_failed` does not take for a broken one."""
    import torch

    kinds = (torch.OutOfMemoryError, torch.AcceleratorError)
    return isinstance(error, kinds) or re.search(r"\bCUDA\b|cuDNN|CUBLAS|nvrtc", str(error)) is not None


def _names_one_of(names: tuple[str, ...], text: str) -> bool:
    low = text.lower()
    return any(name in low for name in names)
