"""The commands that delete: `prune`, `remove`, `gc`."""

from __future__ import annotations

import argparse
from typing import Any

from d2l_study.cli.arguments import add_command, add_existing_study, add_root


def add_cleaning_commands(commands: Any) -> None:
    """Add the commands to a parser's `commands`."""
    prune = add_command(commands, "prune", _prune, "take what its space no longer has out of a study's plan and tables")
    add_existing_study(prune)
    prune.add_argument("--arm", nargs="+", action="extend", default=[], metavar="NAME",
                       help="these arms instead, and students of such teachers")  # fmt: skip
    prune.add_argument("--failed", action="store_true", help="configurations of which a run failed")
    _add_store(prune)

    remove = add_command(commands, "remove", _remove, "remove a study and its MLflow pages; without --yes only say so")
    add_existing_study(remove)
    remove.add_argument("--yes", action="store_true", help="do it")
    _add_store(remove)

    gc = add_command(commands, "gc", _gc, "show results that no study names any more, and what lost attempts left")
    add_root(gc)
    gc.add_argument("--delete", action="store_true", help="delete them")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tracking-uri", metavar="URI",
                        help="the MLflow store, which follows; default: MLFLOW_TRACKING_URI, else each that the study "
                             "was written to, else ROOT/mlflow.db")  # fmt: skip


def _prune(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.prune import prune_study

    return prune_study(arguments.study, arguments.root, arguments.arm, arguments.failed, arguments.tracking_uri)


def _remove(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.remove import remove_study

    return remove_study(arguments.study, arguments.root, arguments.yes, arguments.tracking_uri)


def _gc(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.garbage_collection import collect_garbage

    return collect_garbage(arguments.root, arguments.delete)
