"""The token that lets a process into a Ray cluster, where it may run any code as the user who started the cluster.

A Ray that is started here gets a token of its own. Its processes get it by the environment; it is written nowhere. Ray
itself would keep one token for all in ~/.ray/auth_token, and make that file readable for everybody (2.60).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

TOKEN, TOKEN_FILE, MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"


def token_file() -> Path:
    """Where Ray looks for the token if the environment holds none."""
    return Path(os.environ.get(TOKEN_FILE) or os.path.expanduser("~/.ray/auth_token"))  # noqa: PTH111 (never raises)


def has_token() -> bool:
    """Whether Ray would find a token, in the environment or in a file."""
    return bool(os.environ.get(TOKEN)) or os.path.isfile(token_file())  # noqa: PTH113 (never raises)


def token_file_warning() -> str | None:
    """A warning, with what to type, if others can read the token's file: they could run code as this user in every Ray
    that takes the token. None if all is well."""
    try:
        mode = stat.S_IMODE(os.stat(token_file()).st_mode)  # noqa: PTH116
    except (OSError, ValueError):
        return None
    if not mode & 0o077:
        return None
    return (
        f"others can read Ray's token (mode {mode:04o}), and with it run code as you in each Ray cluster that takes "
        f"it: chmod 600 {shlex.quote(str(token_file()))}"
    )


@contextlib.contextmanager
def own_token() -> Iterator[None]:
    """A Ray that is started within the block has a token of its own, unless the user's variables name one."""
    if os.environ.get(TOKEN) or os.environ.get(TOKEN_FILE):
        yield
        return
    os.environ[TOKEN] = secrets.token_hex(32)
    _reset_cache()
    try:
        yield
    finally:
        os.environ.pop(TOKEN, None)
        _reset_cache()


def _reset_cache() -> None:
    """Let Ray read the token again; a process does so once."""
    with contextlib.suppress(ImportError, AttributeError):  # a Ray from before there were tokens
        from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]

        AuthenticationTokenLoader.instance().reset_cache()
