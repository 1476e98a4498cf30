"""Ray, started here for one study or joined. What was started here is ended here, whatever state it is in."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from d2l_study import thread_calls
from d2l_study.errors import MachineError, UserError, first_line
from d2l_study.study.tune import auth_token, processes
from d2l_study.study.tune.address import find_head
from d2l_study.study.tune.ray_environment import set_ray_environment
from d2l_study.temporary_files import scratch_folder

LONGEST_RAY_FOLDER = 41
"""Bytes that the name of Ray's folder may have. A socket's name has 107 at most (the kernel's limit), of which 65 are
`/session_DATE_TIME_PID/sockets/plasma_store`."""

END_SECONDS, LOST_SECONDS = 20.0, 3.0
"""For Ray to end by itself. It never does if one of its processes hangs; the second is for a Ray found lost."""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Ray within the block: started here on loopback (`local`), or joined (`auto`, `HOST:PORT`). What was started here
    is ended here, within `END_SECONDS` or by force. `MachineError` if Ray does not start, `UserError` if it cannot
    be joined."""
    set_ray_environment()
    if (warning := auth_token.token_file_warning()) is not None:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if address != "local":
        with _tune_folder(), _joined(address) as ray:
            yield ray
        return
    # On loopback only, which `_node_ip_address` alone does not give: Ray replaces 127.0.0.1 by the machine's own
    # address unless it believes that clusters are unsupported here. It reads this when it is imported.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with _tune_folder(), auth_token.own_token(), ray_folder() as folder, processes.child_processes() as kill_all:
        try:
            with _started(folder, kill_all) as ray:
                yield ray
        finally:
            kill_all()


_tune_folders: list[str] = []


@contextlib.contextmanager
def _tune_folder() -> Iterator[None]:
    """A temporary folder for Tune's own state. It outlasts Ray, whose workers would make it again."""
    with scratch_folder("d2l_study-tune-") as folder:
        _tune_folders.append(folder)
        try:
            yield
        finally:
            _tune_folders.pop()


def tune_folder() -> str:
    """The temporary folder for Tune's own state, within a `cluster`."""
    return _tune_folders[-1]


@contextlib.contextmanager
def _started(folder: str | None, kill_all: Callable[[], None]) -> Iterator[Any]:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    # Never whatever cluster the temp folder remembers.
    options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
    for last in (False, True):
        try:
            ray.init(**options)
            break
        except Exception as error:  # its processes fail in many ways, of which one is a plain Exception after a time
            reason = f"{first_line(error)} (its logs: {_logs(folder)})"
            ray.shutdown()
            kill_all()  # what has begun to run
            if last:
                raise MachineError(f"Ray did not start on this machine, tried twice: {reason}") from None
            print(f"Ray did not start: {reason}; trying once more", file=sys.stderr, flush=True)
    _quiet_loggers()
    try:
        yield ray
    finally:
        shut_down(ray)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    import ray

    place = find_head(address)
    try:
        ray.init(address=place, log_to_driver=False, logging_level=logging.ERROR, configure_logging=True)
    except Exception as error:
        reason = first_line(error)
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({reason}); start one, or use --address local"
        ) from None
    _quiet_loggers()
    try:
        yield ray
    finally:
        shut_down(ray)


def _quiet_loggers() -> None:
    """Let Ray log errors only, and Tune nothing."""
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # we print failures of trials, once
    logging.getLogger("ray").setLevel(logging.ERROR)


# ---- the folder of Ray's files
def _default_ray_folder() -> str:
    """The folder that Ray would take by itself, as `ray start` does."""
    linux = os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None
    return os.path.join(os.environ.get("RAY_TMPDIR") or linux or "/tmp", "ray")  # noqa: PTH118


def _logs(folder: str | None) -> str:
    return f"{folder or _default_ray_folder()}/session_latest/logs"


def is_usable(folder: str) -> bool:
    """Whether Ray's files can be written into a folder, and its name is short enough for Ray's sockets."""
    if len(os.fsencode(folder)) > LONGEST_RAY_FOLDER:
        return False
    with contextlib.suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK | os.X_OK)
    return False


@contextlib.contextmanager
def ray_folder() -> Iterator[str | None]:
    """The folder for Ray's files. None where Ray's own choice works; else a temporary folder that only this user can
    read, which a line names: batch systems give jobs temporary folders with long names. `UserError` if there is no
    such folder."""
    usual = _default_ray_folder()
    if is_usable(usual):
        yield None
        return
    with contextlib.ExitStack() as stack:
        own = _own_ray_folder(stack)
        if own is None:
            raise UserError(
                f"Ray's temporary folder {usual} cannot be used (in its sockets' names there is room for "
                f"{LONGEST_RAY_FOLDER} bytes of it), nor /tmp; set RAY_TMPDIR to a shorter folder"
            )
        print(f"  Ray's files are in {own}, since its sockets have no room in {usual}", flush=True)
        yield own


def _own_ray_folder(stack: contextlib.ExitStack) -> str | None:
    for base in ("/tmp", "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            folder = f"{stack.enter_context(scratch_folder('d2l-ray-', base))}/ray"
            if is_usable(folder):
                return folder
    return None


# ---- the end
def shut_down(ray: Any, seconds: float = END_SECONDS) -> None:
    """End Ray, waiting for it at most so long, with Python's garbage collector off.

    Tune leaves cycles that hold object references. The collector runs in whatever thread allocates, MLflow's for
    example. If it finds such a cycle while Ray is ending, Ray ends the whole process, with exit code 1.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        limit = LOST_SECONDS if thread_calls.abandoned else seconds
        thread_calls.call_within(ray.shutdown, limit, "ray-shutdown")
    finally:
        if was_enabled and not thread_calls.abandoned:
            gc.enable()
