"""The commands that show what there is: `spaces`, `keys`, `data`, `ui`."""

from __future__ import annotations

import argparse
import shlex
from typing import Any

from d2l_study.cli.arguments import add_command, add_root, port
from d2l_study.command_line import command_text
from d2l_study.errors import UserError


def add_information_commands(commands: Any) -> None:
    """Add `spaces`, `new`, `keys` and `data` to a parser's `commands`."""
    add_command(commands, "spaces", _spaces, "list the search spaces")

    new = add_command(commands, "new", _new, "write a first space of your own, with comments")
    new.add_argument("file", metavar="FILE", help="the file, for example my_space.yaml")
    new.add_argument("--data", default="mnist", metavar="DATASET",
                     help="its data set: mnist, features (your feature files), manifest (your images), slides (your "
                          "whole slides) or another of `keys data`; default: mnist")  # fmt: skip
    new.add_argument("--students", action="store_true", help="a space of teachers and their students")

    keys = add_command(commands, "keys", _keys, "show the keys of a space, with defaults, bounds and meaning")
    keys.add_argument("what", nargs="*", metavar="SECTION[.KEY]|DATASET",
                      help="only these, for example: teacher, student.temperature, colon")  # fmt: skip

    data = add_command(commands, "data", _data, "show which data sets are here, where, and if they are verified")
    data.add_argument("--mnist", metavar="DIR", help="check a folder of MNIST IDX files of your own")
    data.add_argument("--root", help=argparse.SUPPRESS)
    data.add_argument("--data", metavar="DIR", help="folder with the archives of tissue images; default: D2L_DATA")


def add_ui(commands: Any) -> None:
    """Add `ui` to a parser's `commands`."""
    ui = add_command(commands, "ui", _ui, "show the studies' MLflow pages on 127.0.0.1")
    add_root(ui)
    ui.add_argument("--tracking-uri", metavar="URI", help="the MLflow store to show; default as for run")
    ui.add_argument("--port", type=port, default=5000, help="default: 5000")


def _spaces(arguments: argparse.Namespace) -> int:
    from d2l_study.study.space.files import list_spaces
    from d2l_study.terminal import print_entry

    spaces = list_spaces()
    width = max((len(name) for name, _, _ in spaces), default=0)
    for name, description, _ in spaces:
        print_entry(name, description, width)
    return 0


def _new(arguments: argparse.Namespace) -> int:
    from d2l_study.study.space.new_space import write_new_space

    path = write_new_space(arguments.file, arguments.data, arguments.students)
    plan = command_text(f"plan --space {shlex.quote(str(path))}")
    print(f"wrote {path}\nwhat it would run: {plan}")
    return 0


def _keys(arguments: argparse.Namespace) -> int:
    from d2l_study.study.space.keys_help import show_keys

    print(show_keys(arguments.what))
    return 0


def _data(arguments: argparse.Namespace) -> int:
    from d2l_study.data.inventory import show_data

    if arguments.root is not None:
        raise UserError(f"--root {arguments.root}: is where results are kept, in every command; the folder with the "
                        "archives is --data DIR")  # fmt: skip
    return show_data(arguments.mnist, arguments.data)


def _ui(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.mlflow_ui import serve
    from d2l_study.study.mlflow.address import resolve_uri

    serve(arguments.root, resolve_uri(arguments.tracking_uri, arguments.root), arguments.port)
    return 0
