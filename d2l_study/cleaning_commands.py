"""The commands that take away: `prune`, `remove`, `gc`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

Command = Callable[[Any, str, Any, str], argparse.ArgumentParser]
Options = Callable[[argparse.ArgumentParser], None]


def add_cleaning(commands: Any, command: Command, add_existing: Options, add_root: Options) -> None:
    """Add the commands. command: adds one; add_existing, add_root: the options that commands have in common."""
    prune = command(commands, "prune", _prune, "take what its space no longer has out of a study's plan and tables")
    add_existing(prune)
    prune.add_argument("--arm", nargs="+", action="extend", default=[], metavar="NAME",
                       help="these arms instead, and students of such teachers")  # fmt: skip
    prune.add_argument("--failed", action="store_true", help="configurations of which a run failed")
    _add_store(prune)

    remove = command(commands, "remove", _remove, "remove a study and its MLflow pages; without --yes only say so")
    add_existing(remove)
    remove.add_argument("--yes", action="store_true", help="do it")
    _add_store(remove)

    gc = command(commands, "gc", _gc, "show results that no study names any more, and what lost attempts left")
    add_root(gc)
    gc.add_argument("--delete", action="store_true", help="delete them")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tracking-uri", metavar="URI", help="the MLflow store, which follows; default as for run")


def _prune(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.prune import prune_study

    return prune_study(arguments.study, arguments.root, arguments.arm, arguments.failed, arguments.tracking_uri)


def _remove(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.remove import remove_study

    return remove_study(arguments.study, arguments.root, arguments.yes, arguments.tracking_uri)


def _gc(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.garbage_collection import collect

    return collect(arguments.root, arguments.delete)
