"""The commands about studies: `run`, `plan`, `list`, `status`, `stop`, `sync`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from d2l_study.cli.arguments import add_command, add_existing_study, add_root, positive, replicate_count
from d2l_study.errors import UserError

if TYPE_CHECKING:
    from d2l_study.study.commands.prepare_study import RunOptions


def add_study_commands(commands: Any) -> None:
    """Add the commands to a parser's `commands`."""
    run = add_command(commands, "run", _run, "run a study, or go on with it, and print its AUC table")
    _add_space(run)
    where = "the Ray cluster: local (started here), auto (the one this machine is in), or HOST[:PORT]"
    run.add_argument("--address", default="local", metavar="local|auto|HOST", help=where)
    run.add_argument("--fail-fast", action="store_true", help="end the study at the first run that fails")
    run.add_argument("--explain", action="store_true",
                     help="say below the table how its intervals and tests are made")  # fmt: skip
    run.add_argument("--tracking-uri", metavar="URI",
                     help="MLflow store; default: MLFLOW_TRACKING_URI, else ROOT/mlflow.db")  # fmt: skip

    plan = add_command(commands, "plan", _plan, "show what a study would run and how long it takes; runs nothing")
    _add_space(plan)
    text = "list every configuration; without it more than a dozen are summed up by arm and axis"
    plan.add_argument("--list", action="store_true", help=text)

    add_root(add_command(commands, "list", _list, "list the studies that exist"))

    text = "show how far a study is, from any terminal, while it runs or later"
    status = add_command(commands, "status", _status, text)
    add_existing_study(status, "a study's name, or its folder; without it all studies in a line each", nargs="?")
    status.add_argument("--list", action="store_true", dest="every",
                        help="list the trials with their ids also where they are many")  # fmt: skip

    add_existing_study(
        add_command(commands, "stop", _stop, "end a running study cleanly, from any terminal or machine")
    )

    sync = add_command(commands, "sync", _sync, "bring an MLflow store up to date with a study, from its results")
    add_existing_study(sync)
    sync.add_argument("--tracking-uri", metavar="URI",
                      help="the MLflow store; default: MLFLOW_TRACKING_URI, else the one it was last written "
                           "to (not for a bucket), else ROOT/mlflow.db")  # fmt: skip


def _add_space(parser: argparse.ArgumentParser) -> None:
    """The arguments that `run` and `plan` have in common."""
    parser.add_argument("--space", required=True, metavar="NAME|FILE", help="a search space (see `spaces`) or a file")
    parser.add_argument("--study", metavar="NAME", help="name of the study; default: that of the space")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE",
                        help="override keys of the space, e.g. teacher.epsilon=2 data.num_bags=[50,100]")  # fmt: skip
    parser.add_argument("--replicates", type=replicate_count, metavar="R", help="replicates of each configuration")
    parser.add_argument("--limit", type=positive, metavar="N", help="run at most N trials this time")
    parser.add_argument("--max-concurrent", type=positive, metavar="N", help="at most N trials at a time")
    parser.add_argument("--extend", action="store_true",
                        help="go on with a study whose space has changed; only what is new is trained")  # fmt: skip
    parser.add_argument("--fresh", action="store_true",
                        help="use no results of other studies; train their runs again, and compare")  # fmt: skip
    add_root(parser)


def _run(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.run import run_study

    return run_study(_run_options(arguments))


def _plan(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.plan_summary import show_plan
    from d2l_study.study.commands.plan_table import Listing
    from d2l_study.study.commands.prepare_study import check_same_study, prepare_study
    from d2l_study.study.commands.study_summary import show_study_name

    study = prepare_study(_run_options(arguments))
    show_plan(study, Listing.ALL if arguments.list else Listing.FITTING)
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
        explain=getattr(arguments, "explain", False),
    )  # fmt: skip


def _list(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.status import show_list

    return show_list(arguments.root)


def _status(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.status import show_list, show_status

    if arguments.study is not None:
        return show_status(arguments.study, arguments.root, arguments.every)
    if arguments.every:
        raise UserError("status --list: lists the trials of a study; name one (status without --list shows them all)")
    return show_list(arguments.root)


def _stop(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.stop import stop_study

    return stop_study(arguments.study, arguments.root)


def _sync(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.sync import sync_study

    return sync_study(arguments.study, arguments.root, arguments.tracking_uri)
