"""The commands about searches: `search export`."""

from __future__ import annotations

import argparse
from typing import Any

from d2l_study.cli.arguments import add_command, add_existing_study


def add_search_commands(commands: Any) -> None:
    """Add `search` with its own commands to a parser's `commands`."""
    text = "write the search of a study for other programs"
    search = commands.add_parser("search", help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    own = search.add_subparsers(metavar="COMMAND", required=True)
    export = add_command(own, "export", _export, "write a study's searches as a file that optuna-dashboard opens")
    add_existing_study(export)
    export.add_argument("--storage", required=True, metavar="FILE",
                        help="the file: a journal of Optuna, or sqlite:///FILE; one of an earlier export is "
                             "replaced")  # fmt: skip


def _export(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.search_export import export_search_of

    return export_search_of(arguments.study, arguments.root, arguments.storage)
