"""What the two command lines, `d2l_study` and `analysis`, have in common."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from d2l_study import thread_calls


class Parser(argparse.ArgumentParser):
    """Mistakes go to `error`, whose message is one line; nothing is printed and nothing ends the process."""

    def _get_values(self, action: argparse.Action, arg_strings: Sequence[str]) -> Any:
        if action.option_strings and "--" in arg_strings:  # argparse would drop it, and give an empty list for a text
            self.error(f"argument {'/'.join(action.option_strings)}: '--' is no value")
        return super()._get_values(action, list(arg_strings))


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
