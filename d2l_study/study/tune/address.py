"""Where the head of a Ray cluster is, and whether it answers. `ray.init` itself would try for minutes.

`auto` is the cluster that this machine is in: the variable RAY_ADDRESS names it, or a file that `ray start` writes on
every machine. Ray itself would also take any Ray process that it finds on the machine, such as those of somebody's
study with --address local.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from d2l_study.errors import UserError, first_line
from d2l_study.study.tune.auth_token import MODE, has_token
from d2l_study.study.tune.ray_environment import set_ray_environment
from d2l_study.thread_calls import ThreadCall

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 30.0
PORT = 6379
TOKEN = (
    "where the cluster asks for a token, RAY_AUTH_MODE=token has to be set and the token to be in ~/.ray/auth_token or "
    "RAY_AUTH_TOKEN"
)


def find_head(address: str) -> str:
    """HOST:PORT of the cluster that an address names; "local" stays "local". `UserError` if there is none."""
    if address == "local":
        return address
    found = _cluster_of_this_machine() if address == "auto" else address
    host, _, port = found.rpartition(":") if ":" in found else (found, "", str(PORT))
    if "//" in found or not host or not (port.isdecimal() and 0 < int(port) < 65536):
        where = "RAY_ADDRESS" if address == "auto" else "--address"
        raise UserError(
            f"{where} {found}: not allowed; expected local, auto, or the HOST[:PORT] of a Ray head, without a "
            "scheme, and a port from 1 to 65535"
        )
    return f"{host}:{port}"


def check_address(address: str) -> None:
    """`UserError`, within half a minute, if no cluster answers at a named address, or if it does not let us in."""
    place = find_head(address)
    if place == "local":
        return
    host, _, port = place.rpartition(":")
    named = f"auto ({place})" if address == "auto" else address
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"--address {named}: no Ray cluster answers at {place} ({reason}); "
            "expected local, auto, or the HOST[:PORT] of a Ray head"
        ) from None
    if os.environ.get(MODE) == "token" and not has_token():  # Ray would end the process, with a stack trace
        raise UserError(f"--address {named}: RAY_AUTH_MODE is token, and there is no token; {TOKEN}")
    _ask_head(place, named)


def _cluster_of_this_machine() -> str:
    """The address of the cluster that this machine is in; `UserError` if it is in none."""
    named = os.environ.get("RAY_ADDRESS")
    if named and named not in ("auto", "local"):
        return named
    file = Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    try:
        return file.read_text().strip()
    except OSError:
        raise UserError(
            f"--address auto: this machine is in no Ray cluster (RAY_ADDRESS is not set, and there is no {file}, which "
            "`ray start` writes); start one (docs/cluster.md), name its head (HOST[:PORT]), or use --address local"
        ) from None


def _ask_head(place: str, named: str) -> None:
    """Ask what listens there one question. If no answer comes, the thread is left behind; it hinders nobody."""

    def ask() -> None:
        set_ray_environment()
        from ray._raylet import GcsClient  # type: ignore[attr-defined]

        GcsClient(address=place)

    call = ThreadCall(ask, "ray-check")
    if not call.ended(ANSWER_SECONDS):
        raise UserError(f"--address {named}: something listens at {place}, but it does not answer as a Ray head does")
    if call.error is not None:
        reason = first_line(call.error).partition(". ")[0]
        raise UserError(f"--address {named}: the Ray head there does not let this process in ({reason}); {TOKEN}")
