"""What the two command lines, `d2l_study` and `analysis`, have in common.

Both are called by the installed command `d2l`, and as `python -m d2l_study` and `python -m analysis`. What is printed
names other commands as the running one was called (`command_text`). Files that are kept, such as reports, say `d2l`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from d2l_study import thread_calls

D2L = "d2l"
STUDY_MODULE = "python -m d2l_study"
ANALYSIS_MODULE = "python -m analysis"
_IN_ANALYSIS = ("tables", "compare", "figure", "report")
"""Commands of `analysis` that messages name."""

_called_as = D2L


@contextlib.contextmanager
def called_as(program: str) -> Iterator[None]:
    """While the block runs, `command_text` speaks as this process was called. program: as usage lines show it."""
    global _called_as
    before, _called_as = _called_as, program
    try:
        yield
    finally:
        _called_as = before


def command_text(words: str) -> str:
    """A command as the user of this process would type it: `d2l plan …`, or `python -m d2l_study plan …`.

    words: the command and its arguments. In a notebook and in workers it is `d2l`.
    """
    if _called_as == D2L:
        return f"{D2L} {words}"
    of_analysis = words.partition(" ")[0].partition("|")[0] in _IN_ANALYSIS
    return f"{ANALYSIS_MODULE if of_analysis else STUDY_MODULE} {words}"


class Parser(argparse.ArgumentParser):
    """Mistakes go to `error`, whose message is one line; nothing is printed and nothing ends the process."""

    def _get_values(self, action: argparse.Action, arg_strings: Sequence[str]) -> Any:
        if action.option_strings and "--" in arg_strings:  # argparse would drop it, and give an empty list for a text
            self.error(f"argument {'/'.join(action.option_strings)}: '--' is no value")
        return super()._get_values(action, list(arg_strings))


def command_first_text(program: str, words: Sequence[str], commands: Sequence[str]) -> str:
    """What to type instead where an option stands before the command; empty where none does. words: as given."""
    if not words or not words[0].startswith("-"):
        return ""
    name = next((word for word in words if word in commands), None)
    if name is None:
        return f"{words[0]}: a command comes first (commands: {', '.join(commands)})"
    rest = list(words)
    rest.remove(name)
    return f"the command comes first: {shlex.join([*program.split(), name, *rest])}"


def missing_text(message: str) -> str:
    """argparse's message on arguments that are required and not given, in plain words; any other as it is."""
    _, found, names = message.partition("the following arguments are required: ")
    return f"{names} {'are' if ',' in names else 'is'} missing" if found else message


def leave(code: int) -> NoReturn:
    """End this process with its exit code, by force where a thread may hang that Python would wait for.

    By force also after a mistake (2), where nothing has begun: a thread that a library is just starting would abort
    the process at an orderly end (exit code 134).
    """
    if thread_calls.abandoned or (code == 2 and "ray" not in sys.modules):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def os_error_text(error: OSError) -> str:
    """One line on what the file system or the network refused, for errors that no command has foreseen."""
    place = next((str(name) for name in (error.filename, error.filename2) if name is not None), None)
    said = error.strerror or str(error) or type(error).__name__
    return f"{place}: {said}" if place is not None else f"the system refused a file or connection: {said}"


def missing_package_text(error: ModuleNotFoundError) -> str:
    """One line for a Python that lacks a package of ours, as one outside the environment that was installed into."""
    name = (error.name or str(error)).partition(".")[0]
    return (
        f"the package {name} is not installed for {sys.executable}; use the Python of the environment that "
        "d2l_study was installed into (after make study: . .venv/bin/activate)"
    )
