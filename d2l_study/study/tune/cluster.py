"""Ray, started here for one study or joined; what was started here is ended here, whatever state it is in."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2l_study import thread_calls
from d2l_study.errors import UserError, first_line
from d2l_study.study.tune import auth_token, processes
from d2l_study.study.tune.address import find_head
from d2l_study.study.tune.ray_environment import quiet_environment
from d2l_study.temporary_files import scratch_folder

LONGEST_PLACE = 41
"""Bytes of the folder under which Ray's sockets have room: the kernel takes 107 in all, of which 65 are
`/session_DATE_TIME_PID/sockets/plasma_store`."""

END_SECONDS, LOST_SECONDS = 20.0, 3.0
"""For Ray to end by itself; one of whose processes hangs never does, and one that was found lost is given a try."""


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Any]:
    """Ray, started here on loopback (`local`) or joined (`auto`, `HOST:PORT`); what was started here is ended here,
    within `END_SECONDS` or by force."""
    quiet_environment()
    if (wide := auth_token.warning()) is not None:
        print(f"warning: {wide}", file=sys.stderr, flush=True)
    if address != "local":
        with _scratch(), _joined(address) as ray:
            yield ray
        return
    # On loopback only, which `_node_ip_address` alone does not give: Ray replaces 127.0.0.1 by the machine's own
    # address unless it believes that clusters are unsupported here. It reads this when it is imported.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    with _scratch(), auth_token.own_token(), _short_place() as place, processes.started_here() as end_all:
        try:
            with _started(place) as ray:
                yield ray
        finally:
            end_all()


_scratch_folder: list[str] = []


@contextlib.contextmanager
def _scratch() -> Iterator[None]:
    """A folder for Tune's own state. It outlasts Ray, whose workers would make it again."""
    with scratch_folder("d2l_study-tune-") as folder:
        _scratch_folder.append(folder)
        try:
            yield
        finally:
            _scratch_folder.pop()


def scratch() -> str:
    """The folder for Tune's state, within a `cluster`."""
    return _scratch_folder[-1]


@contextlib.contextmanager
def _started(place: str | None) -> Iterator[Any]:
    import ray

    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    # Never whatever cluster the temp folder remembers.
    options |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": place}
    try:
        ray.init(**options)
    except Exception as error:  # its processes fail in many ways, of which one is a plain Exception after a time
        raise UserError(f"Ray did not start on this machine: {first_line(error)} (its logs: {_logs(place)})") from None
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
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # failures of trials are told by us, once
    logging.getLogger("ray").setLevel(logging.ERROR)


# ---- where Ray's files are
def _usual_place() -> str:
    """The folder that Ray would take, as `ray start` does."""
    linux = os.environ.get("TMPDIR") if sys.platform.startswith("linux") else None
    return os.path.join(os.environ.get("RAY_TMPDIR") or linux or "/tmp", "ray")  # noqa: PTH118


def _logs(place: str | None) -> str:
    return f"{place or _usual_place()}/session_latest/logs"


def usable_place(folder: str) -> bool:
    """Whether Ray's sockets have room under a folder, and its files can be written there."""
    if len(os.fsencode(folder)) > LONGEST_PLACE:
        return False
    with contextlib.suppress(OSError):
        Path(folder).mkdir(parents=True, exist_ok=True)
        return os.access(folder, os.W_OK | os.X_OK)
    return False


@contextlib.contextmanager
def _short_place() -> Iterator[str | None]:
    """None where Ray's own choice works; else a folder of this user's alone, which a line names. Batch systems give
    jobs long names of temporary folders. `UserError` if there is no such place."""
    usual = _usual_place()
    if usable_place(usual):
        yield None
        return
    with contextlib.ExitStack() as stack:
        own = _own_place(stack)
        if own is None:
            raise UserError(
                f"Ray's temporary folder {usual} cannot be used (in its sockets' names there is room for "
                f"{LONGEST_PLACE} bytes of it), nor /tmp; set RAY_TMPDIR to a shorter folder"
            )
        print(f"  Ray's files are in {own}, since its sockets have no room in {usual}", flush=True)
        yield own


def _own_place(stack: contextlib.ExitStack) -> str | None:
    for base in ("/tmp", "/var/tmp", "/dev/shm"):
        with contextlib.suppress(OSError):
            place = f"{stack.enter_context(scratch_folder('d2l-ray-', base))}/ray"
            if usable_place(place):
                return place
    return None


# ---- the end
def shut_down(ray: Any, seconds: float = END_SECONDS) -> None:
    """End Ray with no garbage of its own left to be found meanwhile, waiting for it at most so long.

    Tune leaves cycles that hold object references. If the collector, which runs in whatever thread allocates (that of
    MLflow, say), finds them while Ray is ending, Ray ends the whole process, with exit code 1.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        gc.collect()
        limit = LOST_SECONDS if thread_calls.abandoned.is_set() else seconds
        thread_calls.call_within(ray.shutdown, limit, "ray-shutdown")
    finally:
        if was_enabled and not thread_calls.abandoned.is_set():
            gc.enable()
