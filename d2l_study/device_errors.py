"""What errors of PyTorch, CUDA and Ray mean: whether memory has run out, or the GPU fails all that comes after."""

from __future__ import annotations

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
    low = text.lower()
    return any(name in low for name in OUT_OF_MEMORY)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of the GPU, has run out."""
    return isinstance(error, MemoryError) or says_out_of_memory(str(error))


def device_failed(error: BaseException) -> bool:
    """Whether an error is of the GPU itself, as an illegal access or a failed launch: every later call of this process
    fails as well, whatever it trains, so that the process is of no more use."""
    low = f"{type(error).__name__}: {error}".lower()
    return any(name in low for name in DEVICE_FAILED) and not out_of_memory(error)


def device_line(text: str) -> str | None:
    """The line of a traceback that says what failed on the GPU; None if none does. The last lines of such errors are
    advice on debugging."""
    for line in text.splitlines():
        if any(f"{name}" in line.lower() for name in DEVICE_FAILED) and not line.startswith((" ", "\t")):
            return line.strip()
    return None
