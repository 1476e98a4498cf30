"""The entries of the page `reference/commands.md`: every command with its options, from the parsers that read them.

The file in the repository has the introduction alone, so that links to it lead somewhere there too.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from plain_text import escaped  # in this folder, which MkDocs puts on the path while it loads a hook

from analysis.cli_arguments import command_parsers
from d2l_study.cli import command_parser
from d2l_study.command_line import D2L

PAGE = "reference/commands.md"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """The page as it is in the repository, then its entries."""
    return "\n".join([markdown, *_sections()]) if page.file.src_uri == PAGE else markdown


def _sections() -> Iterator[str]:
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
