"""The entry of the command line: reads the words, runs the command, and answers mistakes in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from d2l_study import __version__
from d2l_study.cli import (
    cleaning_commands,
    information_commands,
    model_commands,
    search_commands,
    slide_commands,
    study_commands,
    trial_commands,
)
from d2l_study.command_line import (
    ANALYSIS_MODULE,
    STUDY_MODULE,
    Parser,
    called_as,
    command_first_text,
    missing_package_text,
    missing_text,
    os_error_text,
)
from d2l_study.errors import (
    MachineError,
    StorageError,
    UnreadableError,
    UserError,
    damage_shown,
    nearest,
    nearest_option,
)
from d2l_study.interruption_messages import machine_text, refused_text, stopped_text
from d2l_study.lost_interruptions import lost_interruptions_sent_again
from d2l_study.terminal import print_anywhere

EXTRAS = (
    "Extras, installed as in pip install 'd2l-study[wsi]': [wsi] whole-slide images; [export] models as ONNX; "
    "[cluster] clusters of Ray and results in S3; [docs] the documentation site; [dev] the tests."
)
"""Of pyproject.toml, for those who have only the installed command."""


@damage_shown()
@lost_interruptions_sent_again()
def main(
    argv: Sequence[str] | None = None, prog: str = STUDY_MODULE, analysis_commands: Mapping[str, str] | None = None
) -> int:
    """Run a command. Returns its exit code: 0; 1 if a run failed or the root refused; 2 for a mistake of the user's.

    argv: None takes the process's own. prog: how the user calls this, for messages and help. analysis_commands: see
    `command_parser`.
    """
    with called_as(prog):
        return _answered(argv, prog, analysis_commands)


def _answered(argv: Sequence[str] | None, prog: str, analysis_commands: Mapping[str, str] | None) -> int:
    """The exit code of a command; what goes wrong is said in one line."""
    print_anywhere()
    name = ""
    try:
        parser = command_parser(prog, analysis_commands)
        if not (sys.argv[1:] if argv is None else argv):
            parser.print_help()
            return 0
        arguments = parser.parse_args(argv)
        name = arguments.parser.prog.split()[-1]
        return arguments.command(arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StorageError as error:
        reason = error.strerror or str(error)
        print(
            f"error: cannot write to {error.filename}: {reason}{refused_text(name)}",
            file=sys.stderr,
        )
        return 1
    except UnreadableError as error:
        print(
            f"error: cannot read {error.filename}: {error.strerror}{refused_text(name)}",
            file=sys.stderr,
        )
        return 1
    except MachineError as error:
        print(f"error: {error}{machine_text(name)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {os_error_text(error)}{refused_text(name)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {missing_package_text(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{stopped_text(name)}", file=sys.stderr)
        return 130


def command_parser(
    prog: str = STUDY_MODULE, analysis_commands: Mapping[str, str] | None = None
) -> argparse.ArgumentParser:
    """The parser of the command line; heavy packages are not imported for it.

    analysis_commands: name and help of commands that `analysis` answers under the same program (`d2l`). They are
    listed here, and a mistyped command is answered with them too.
    """
    parser = _Parser(
        prog=prog,
        description="Distill-to-Label studies: attention MIL, virtual adversarial training, distillation.",
    )
    if analysis_commands:
        parser.epilog = EXTRAS
    else:
        parser.epilog = parser.elsewhere = f"Tables and figures: {ANALYSIS_MODULE} --help"
    parser.add_argument("--version", action="version", version=f"d2l_study {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    study_commands.add_study_commands(commands)
    search_commands.add_search_commands(commands)
    cleaning_commands.add_cleaning_commands(commands)
    trial_commands.add_trial_commands(commands)
    information_commands.add_information_commands(commands)
    slide_commands.add_slide_commands(commands)
    trial_commands.add_label(commands)
    model_commands.add_model_commands(commands)
    information_commands.add_ui(commands)
    for name, text in (analysis_commands or {}).items():
        if name not in commands.choices:  # `export` is in both
            commands.add_parser(name, help=text, add_help=False)
    return parser


class _Parser(Parser):
    """Answers a mistake as every command does: one line, the nearest valid name, exit code 2."""

    elsewhere = ""
    """Where further commands are, for the answer to an unknown one."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        words: list[str] = getattr(self, "_words", [])
        unknown = [w.split("=")[0] for w in words if w.startswith("-") and w.split("=")[0] not in known]
        commands = self._commands()
        if commands and "invalid choice: " in message:
            name = message.split("invalid choice: ")[1].split("'")[1]
            message = f"unknown command {name!r}{nearest(name, commands)} (commands: {', '.join(commands)})"
            message += f"; {self.elsewhere}" if self.elsewhere else ""
        elif unknown and ("unrecognized" in message or "required" in message):
            message = f"unknown option {unknown[0]}{nearest_option(unknown[0], known)}"
        elif "required: --space" in message and words and not words[0].startswith("-"):
            message = f"--space is missing; did you mean --space {words[0]}?"
        raise UserError(f"{missing_text(message)} (see {self.prog} --help)")

    def _commands(self) -> list[str]:
        return next((list(a.choices) for a in self._actions if isinstance(a, argparse._SubParsersAction)), [])

    def parse_known_args(self, args: Any = None, namespace: Any = None, **more: Any) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace, **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(sys.argv[1:] if args is None else args)
        commands = self._commands()
        own = any(option.startswith(words[0]) for a in self._actions for option in a.option_strings) if words else True
        if not own and (first := command_first_text(self.prog, words, commands)):
            raise UserError(f"{first} (see {self.prog} --help)")
        parsed, rest = self.parse_known_args(args, namespace)
        if rest:
            getattr(parsed, "parser", self).error(f"unrecognized: {' '.join(rest)}")
        return parsed
