"""`python -m analysis`: the tables, the figure and the rows of a study, from its stored results."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from d2l_study.errors import UserError, nearest

# Said here again, so that --help and wrong options are answered without the libraries behind the commands.
FORMATS = ("markdown", "csv", "latex")
SCALES = ("linear", "logit")
KINDS = ("curves", "pairs")
BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
DESCRIPTION = "Tables, figures and rows of a study, from its stored results. Nothing is trained."
STUDY_HELP = "a study's name, or its folder ROOT/studies/<name>"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user has to mend, 141 for a closed pipe."""
    try:
        arguments = _parse(sys.argv[1:] if argv is None else list(argv))
        {"tables": _tables, "figure": _figure, "export": _export}[arguments.command](arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return 0


def _tables(arguments: argparse.Namespace) -> None:
    from analysis import results, tables

    format = arguments.format
    if format is None:
        format = tables.SUFFIXES.get(Path(arguments.out).suffix.lower(), "markdown") if arguments.out else "markdown"
    text = tables.render(
        results.load(arguments.study, arguments.root), arguments.metric, format,
        row_key=arguments.rows, column_key=arguments.columns, panel_key=_panel(arguments),
    )  # fmt: skip
    if arguments.out is None:
        print(text, end="")
        return
    path = results.writable_path(arguments.out, () if arguments.format else tuple(tables.SUFFIXES))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path}: cannot write there: {error.strerror or error}") from None
    print(f"wrote {path}")


def _figure(arguments: argparse.Namespace) -> None:
    from analysis import figures, pairs, results

    results.writable_path(arguments.out, figures.SUFFIXES)  # before the work, not after it
    rows = results.load(arguments.study, arguments.root)
    if arguments.kind == "pairs":
        if arguments.scale != "linear":
            raise UserError(f"--scale {arguments.scale}: the differences of --kind pairs are drawn on a linear scale")
        figure = pairs.draw_pairs(rows, arguments.metric, panel_key=_panel(arguments))
    else:
        figure = figures.draw(rows, arguments.metric, panel_key=_panel(arguments), scale=arguments.scale)
    print(f"wrote {figures.save(figure, arguments.out)}")


def _export(arguments: argparse.Namespace) -> None:
    from analysis import results

    results.writable_path(arguments.out, results.EXPORT_SUFFIXES)
    rows = results.load(arguments.study, arguments.root)
    print(f"wrote {results.export(rows, arguments.out)} ({len(rows)} rows)")


def _panel(arguments: argparse.Namespace) -> str | None:
    return None if arguments.panel == "none" else arguments.panel


# ---- the command line
class _Parser(argparse.ArgumentParser):
    """Raises UserError with the nearest valid name, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        choice = re.match(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)$", message, re.DOTALL)
        if choice:
            name, value, allowed = choice.groups()
            names = [one.strip(" '\"") for one in allowed.split(",")]
            raise UserError(f"{name} {value}: not known{nearest(value, names)} (known: {', '.join(names)})")
        raise UserError(f"{message} (see {self.prog} --help)")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = _Parser(prog="python -m analysis", description=DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    by_name = {}

    def command(name: str, text: str, epilog: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog, allow_abbrev=False
        )
        added.add_argument("study", metavar="STUDY", help=STUDY_HELP)
        added.add_argument("--root", default="runs", help="the folder that holds results and studies (default: runs)")
        by_name[name] = added
        return added

    tables = command(
        "tables", "print a table with intervals, counts and paired differences",
        "Example: python -m analysis tables vat_quick --metric instance_auc --format latex --out table.tex",
    )  # fmt: skip
    _add_metric(tables)
    tables.add_argument("--rows", default="method", metavar="KEY", help="key of the rows (default: method)")
    tables.add_argument("--columns", default="num_bags", metavar="KEY", help="key of the columns (default: num_bags)")
    _add_panel(tables, "one table for each of its values")
    tables.add_argument("--format", choices=FORMATS, help="default: by the suffix of --out, else markdown")
    tables.add_argument("--out", metavar="FILE", help="write there instead of printing")

    figure = command(
        "figure", "draw a metric against the number of bags, or students against their teachers",
        "Example: python -m analysis figure vat_quick --out auc.pdf",
    )  # fmt: skip
    figure.add_argument(
        "--kind", choices=KINDS, default="curves",
        help="curves: the metric against the number of bags with 95 %% bands (default); pairs: each student minus its "
        "teacher, replicate by replicate",
    )  # fmt: skip
    _add_metric(figure)
    _add_panel(figure, "one panel for each of its values")
    figure.add_argument(
        "--scale", choices=SCALES, default="linear", help="of the metric; logit spreads what lies near 1"
    )
    figure.add_argument("--out", required=True, metavar="FILE", help=".png, .svg or .pdf")

    export = command(
        "export", "write the rows of a study, one per run",
        "Example: python -m analysis export vat_quick --out rows.parquet",
    )  # fmt: skip
    export.add_argument("--out", required=True, metavar="FILE", help=".parquet or .csv")

    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = by_name[arguments.command]
        options = [o for action in chosen._actions for o in action.option_strings if o.startswith("--")]
        found = unknown[0].split("=")[0]
        what = "unknown option" if found.startswith("-") else "unexpected argument"
        raise UserError(f"{what} {found}{nearest(found, options)} (options: {', '.join(options)})")
    return arguments


def _add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric", help="a metric of the runs (default: instance_auc in a study of students, else bag_auc)"
    )


def _add_panel(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--panel", default="mean_bag_size", metavar="KEY", help=f"{text} (default: mean_bag_size; none for no panels)"
    )
