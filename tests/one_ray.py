"""Commands of one process under one Ray: to start and end it, and what its processes import, takes most of the time of
a study this small.

    python tests/one_ray.py < words.json    # [["run", "--space", …], …]; prints what each said, and more, as JSON
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from whole_root import Said


@dataclass(frozen=True)
class Answers:
    """Of the commands, in their order; the secrets of two Rays that the process started, the second without a home."""

    said: list[Said]
    tokens: list[str]


def answers(commands: list[list[object]], home: Path) -> Answers:
    """Of a new process, whose home folder is `home`."""
    keep = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    keep["MPLCONFIGDIR"] = matplotlib.get_configdir()  # its cache of fonts takes a second to make
    words = json.dumps([[str(word) for word in command] for command in commands])
    done = subprocess.run(
        [sys.executable, __file__], input=words, env={**keep, "HOME": str(home)}, cwd=home,
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return Answers([Said(*one) for one in found["said"]], found["tokens"])


def _token(ray: Any) -> str:
    from ray._raylet import AuthenticationMode, get_authentication_mode

    assert get_authentication_mode() == AuthenticationMode.TOKEN
    return ray.get(ray.remote(lambda: os.environ["RAY_AUTH_TOKEN"]).remote())


def main() -> None:
    from whole_root import command

    from d2l_study import cli
    from d2l_study.study.tune import cluster

    start = cluster.cluster
    with start("local") as ray:
        tokens = [_token(ray)]
        cluster.cluster = lambda address: contextlib.nullcontext(ray)
        said = [command(cli.main, *words) for words in json.load(sys.stdin)]
    os.environ["HOME"] = "/proc/1/nowhere"
    with start("local") as ray:  # Ray reads its token once a process, and the second has one of its own
        tokens.append(_token(ray))
    print(json.dumps({"said": [[one.code, one.out, one.err] for one in said], "tokens": tokens}))


if __name__ == "__main__":
    main()
