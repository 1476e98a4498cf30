"""The command line: one thin layer over `study`. Heavy packages are imported by the command that needs them."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from d2l_study import __version__, last_words
from d2l_study.cleaning_commands import add_cleaning
from d2l_study.command_line import Parser, refusal
from d2l_study.errors import StorageError, UnreadableError, UserError, damage_shown, nearest
from d2l_study.terminal import print_anywhere

if TYPE_CHECKING:
    from d2l_study.study.commands.prepare_study import RunOptions

PROG = "python -m d2l_study"
ROOT = "runs"
MOST_REPLICATES = 1000
"""As a space may have (`StudyOptions.replicates`), said here again so that a wrong number is answered at once."""


@damage_shown()
def main(
    argv: Sequence[str] | None = None, prog: str = PROG, analysis_commands: Mapping[str, str] | None = None
) -> int:
    """Run a command; returns its exit code: 0, 1 if a run failed, 2 for a mistake of the user's.

    prog: how the user calls this, for messages and help. analysis_commands: see `command_parser`.
    """
    print_anywhere()
    name = ""
    try:
        arguments = command_parser(prog, analysis_commands).parse_args(argv)
        name = arguments.parser.prog.split()[-1]
        return arguments.command(arguments) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StorageError as error:
        said = error.strerror or str(error)
        print(f"error: cannot write to {error.filename}: {said}{last_words.refused(name)}", file=sys.stderr)
        return 1
    except UnreadableError as error:
        print(f"error: cannot read {error.filename}: {error.strerror}{last_words.refused(name)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {refusal(error)}{last_words.refused(name)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\n{last_words.stopped(name)}", file=sys.stderr)
        return 130


# ---- commands


def _run(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.run import run_study

    return run_study(_run_options(arguments))


def _plan(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.plan_summary import show_plan
    from d2l_study.study.commands.prepare_study import check_same_study, prepare_study
    from d2l_study.study.commands.study_summary import show_study_name

    study = prepare_study(_run_options(arguments))
    show_plan(study, list_all=True)
    check_same_study(study)
    show_study_name(study)
    return 0


def _run_options(arguments: argparse.Namespace) -> RunOptions:
    from d2l_study.study.commands.prepare_study import RunOptions

    return RunOptions(
        space=arguments.space, study=arguments.study, overrides=tuple(arguments.set), replicates=arguments.replicates,
        limit=arguments.limit, max_concurrent=arguments.max_concurrent, address=getattr(arguments, "address", "local"),
        root=arguments.root, tracking_uri=getattr(arguments, "tracking_uri", None), fresh=arguments.fresh,
        extend=arguments.extend, fail_fast=getattr(arguments, "fail_fast", False),
    )  # fmt: skip


def _spaces(arguments: argparse.Namespace) -> int:
    from d2l_study.study.space.files import list_spaces

    spaces = list_spaces()
    width = max((len(name) for name, _, _ in spaces), default=0)
    for name, description, _ in spaces:
        print(f"{name:<{width}}  {description}")
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


def _label(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.label import LabelOptions, run_label

    return run_label(LabelOptions(
        arguments.run, tuple(arguments.inputs), arguments.out, arguments.root, arguments.stride, arguments.data,
        arguments.replicate, arguments.tracking_uri,
    ))  # fmt: skip


def _ui(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.mlflow_ui import serve
    from d2l_study.study.mlflow.address import resolve_uri

    serve(arguments.root, resolve_uri(arguments.tracking_uri, arguments.root), arguments.port)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.status import show_list

    return show_list(arguments.root)


def _status(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.status import show_list, show_status

    return show_list(arguments.root) if arguments.study is None else show_status(arguments.study, arguments.root)


def _stop(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.stop import stop_study

    return stop_study(arguments.study, arguments.root)


def _sync(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.sync import sync_study

    return sync_study(arguments.study, arguments.root, arguments.tracking_uri)


def _trial(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.trial import run_recorded_trial

    return run_recorded_trial(arguments.id, arguments.replicate, arguments.root, arguments.weights)


def _reproduce(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.reproduce import reproduce

    return reproduce(arguments.trial, arguments.replicate, arguments.root)


# ---- arguments


class _Parser(Parser):
    """Mistakes are answered as everywhere: one line, the nearest valid name, exit code 2."""

    def error(self, message: str) -> NoReturn:
        known = [option for action in self._actions for option in action.option_strings]
        unknown = [
            w.split("=")[0] for w in getattr(self, "_words", []) if w.startswith("-") and w.split("=")[0] not in known
        ]
        commands = next((list(a.choices) for a in self._actions if isinstance(a, argparse._SubParsersAction)), [])
        if commands and "invalid choice: " in message:
            name = message.split("invalid choice: ")[1].split("'")[1]
            message = f"unknown command {name!r}{nearest(name, commands)} (commands: {', '.join(commands)})"
        elif unknown and ("unrecognized" in message or "required" in message):
            message = f"unknown option {unknown[0]}{nearest(unknown[0], known, 0.6)}"
        raise UserError(f"{message} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None, **more: Any) -> Any:
        self._words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace, **more)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            getattr(found, "parser", self).error(f"unrecognized arguments: {' '.join(rest)}")
        return found


def command_parser(prog: str = PROG, analysis_commands: Mapping[str, str] | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; heavy packages are not imported for it.

    analysis_commands: name and help of commands that `analysis` answers under the same program (`d2l`). They are
    listed here, and a mistyped command is answered with them too.
    """
    parser = _Parser(
        prog=prog,
        description="Distill-to-Label studies: attention MIL, virtual adversarial training, distillation.",
        epilog=None if analysis_commands else "Tables and figures: python -m analysis --help",
    )
    parser.add_argument("--version", action="version", version=f"d2l_study {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    run = _command(commands, "run", _run, "run a study, or go on with it, and print its AUC table")
    _add_study(run)
    where = "the Ray cluster: local (started here), auto (the one this machine is in), or HOST[:PORT]"
    run.add_argument("--address", default="local", metavar="local|auto|HOST", help=where)
    run.add_argument("--fail-fast", action="store_true", help="end the study at the first run that fails")
    run.add_argument("--tracking-uri", metavar="URI",
                     help="MLflow store; default: MLFLOW_TRACKING_URI, else ROOT/mlflow.db")  # fmt: skip

    plan = _command(commands, "plan", _plan, "show what a study would run and how long it takes; runs nothing")
    _add_study(plan)

    _add_root(_command(commands, "list", _list, "list the studies that exist"))

    status = _command(commands, "status", _status, "show how far a study is, from any terminal, while it runs or later")
    _add_existing(status, "a study's name, or its folder; without it all studies in a line each", nargs="?")

    stop = _command(commands, "stop", _stop, "end a running study cleanly, from any terminal or machine")
    _add_existing(stop)

    sync = _command(commands, "sync", _sync, "bring an MLflow store up to date with a study, from its results")
    _add_existing(sync)
    sync.add_argument("--tracking-uri", metavar="URI", help="the MLflow store; default as for run")

    add_cleaning(commands, _command, _add_existing, _add_root)

    trial = _command(commands, "trial", _trial, "run one trial in this process, under a debugger if wished")
    trial.add_argument("--id", required=True, metavar="ID", help="a trial's id, as in plan, tables and MLflow")
    trial.add_argument("--replicate", type=_number, action="append", metavar="R", help="only this replicate")
    trial.add_argument("--weights", action="store_true",
                       help="train again the runs whose weights were not kept, and keep them, for `label`")  # fmt: skip
    _add_root(trial)

    again = _command(commands, "reproduce", _reproduce, "train a trial again from its record, and compare")
    again.add_argument("trial", metavar="TRIAL", help="a trial's id, as in plan, tables and MLflow")
    again.add_argument("--replicate", type=_number, action="append", metavar="R", help="only this replicate")
    _add_root(again)

    _command(commands, "spaces", _spaces, "list the search spaces")

    keys = _command(commands, "keys", _keys, "show the keys of a space, with defaults, bounds and meaning")
    keys.add_argument("what", nargs="*", metavar="SECTION[.KEY]|DATASET",
                      help="only these, for example: teacher, student.temperature, colon")  # fmt: skip

    data = _command(commands, "data", _data, "show which data sets are here, where, and if they are verified")
    data.add_argument("--mnist", metavar="DIR", help="check a folder of MNIST IDX files of your own")
    data.add_argument("--root", help=argparse.SUPPRESS)
    data.add_argument("--data", metavar="DIR", help="folder with the archives of tissue images; default: D2L_DATA")

    label = _command(commands, "label", _label, "label instances with a stored model of a study")
    label.add_argument("--run", required=True, metavar="TRIAL|MLFLOW_RUN_ID",
                       help="a trial's id, or its first digits, or the id of its MLflow run")  # fmt: skip
    label.add_argument("inputs", nargs="+", metavar="INPUT",
                       help=".npy or .npz (FILE.npz:NAME) arrays, IDX files, images, or folders of images; over an "
                            "image larger than a patch the model is slid")  # fmt: skip
    label.add_argument("--out", required=True, metavar="DIR", help="folder for scores.parquet, or the maps of images")
    label.add_argument("--stride", type=_positive, metavar="S",
                       help="pixels between patches in a large image; default: a quarter of a patch")  # fmt: skip
    label.add_argument("--data", metavar="DIR",
                       help="folder of the model's data set, for true instances; default: as trained")  # fmt: skip
    label.add_argument("--replicate", type=_number, metavar="R", help="default: the best on validation")
    label.add_argument("--tracking-uri", metavar="URI", help="where the MLflow run is; default as for run")
    _add_root(label)

    ui = _command(commands, "ui", _ui, "show the studies' MLflow pages on 127.0.0.1")
    _add_root(ui)
    ui.add_argument("--tracking-uri", metavar="URI", help="the MLflow store to show; default as for run")
    ui.add_argument("--port", type=_port, default=5000, help="default: 5000")

    for name, text in (analysis_commands or {}).items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _command(commands: Any, name: str, function: Any, text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", allow_abbrev=False)
    parser.set_defaults(command=function, parser=parser)
    return parser


def _add_study(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--space", required=True, metavar="NAME|FILE", help="a search space (see `spaces`) or a file")
    parser.add_argument("--study", metavar="NAME", help="name of the study; default: that of the space")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="override keys of the space, e.g. teacher.epsilon=2 data.num_bags=[50,100]")  # fmt: skip
    parser.add_argument("--replicates", type=_replicates, metavar="R", help="replicates of each configuration")
    parser.add_argument("--limit", type=_positive, metavar="N", help="run at most N trials this time")
    parser.add_argument("--max-concurrent", type=_positive, metavar="N", help="at most N trials at a time")
    parser.add_argument("--extend", action="store_true",
                        help="go on with a study whose space has changed; only what is new is trained")  # fmt: skip
    parser.add_argument("--fresh", action="store_true",
                        help="use no results of other studies; train their runs again, and compare")  # fmt: skip
    _add_root(parser)


def _add_existing(
    parser: argparse.ArgumentParser, text: str = "a study's name, or its folder", nargs: str | None = None
) -> None:
    parser.add_argument("study", metavar="STUDY", help=text, nargs=nargs)
    _add_root(parser)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", default=ROOT, metavar="DIR", help=f"where results are kept; default: {ROOT}/")


def _positive(text: str) -> int:
    return _whole(text, 1, 1_000_000)


def _replicates(text: str) -> int:
    return _whole(text, 1, MOST_REPLICATES)


def _number(text: str) -> int:
    return _whole(text, 0, MOST_REPLICATES - 1)


def _port(text: str) -> int:
    return _whole(text, 0, 65535)


def _whole(text: str, least: int, most: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; expected a whole number from {least} to {most}")
    return value
