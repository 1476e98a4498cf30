"""The page `reference/commands.md`: every command with its options, from the parsers that read them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from mkdocs.structure.files import File, Files
from plain_text import escaped  # in this folder, which MkDocs puts on the path while it loads a hook

from analysis.cli_arguments import command_parsers
from d2l_study.cli import command_parser
from d2l_study.command_line import D2L

PAGE = "reference/commands.md"
INTRODUCTION = """# Commands

This page is made from the code, as what `--help` prints. `d2l run` is the same as `python -m d2l_study run`, and
`d2l tables` as `python -m analysis tables`.

Exit codes: 0, all went well. 1, a run failed, or a place takes no more. 2, a mistake in the command or the space.
130, stopped by Ctrl-C.
"""


def on_files(files: Files, config: Any) -> Files:
    """Add the page."""
    files.append(File.generated(config, PAGE, content="\n".join(_page())))
    return files


def _page() -> Iterator[str]:
    yield INTRODUCTION
    for title, parser in (("Studies and models", command_parser(D2L)), ("Results", command_parsers(D2L)[0])):
        yield f"\n## {title}\n\n{escaped(parser.description or '')}\n"
        for command in _commands(parser):
            yield from _command(command)


def _commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of commands that are no further divided, in the order of the help."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in inner:
        for command in action.choices.values():
            divided = any(isinstance(below, argparse._SubParsersAction) for below in command._actions)
            yield from _commands(command) if divided else (command,)


def _command(parser: argparse.ArgumentParser) -> Iterator[str]:
    words = parser.prog.split()[1:]
    yield f"\n### {' '.join(words)}\n\n{escaped(parser.description or '')}\n"
    yield f"```\n{_usage(parser)}\n```\n"
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(action, argparse._HelpAction):
            continue
        formatter = parser._get_formatter()
        text = formatter._expand_help(action) if action.help else ""
        yield f"`{_head(action)}`\n:   {escaped(text)}\n"
    if parser.epilog:
        yield f"{escaped(parser.epilog)}\n"


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = parser.formatter_class(parser.prog, width=84)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _head(action: argparse.Action) -> str:
    """An option with its value as the usage names it, or the name of an argument."""
    value = "" if action.nargs == 0 else _value(action)
    return f"{', '.join(action.option_strings)} {value}".strip()


def _value(action: argparse.Action) -> str:
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
