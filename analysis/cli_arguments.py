"""The options of `python -m analysis`, and what their values mean. Imports none of the libraries behind the commands,
so that `--help` and wrong options are answered at once."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from typing import NoReturn

from analysis.figures.options import KINDS, SCALES
from analysis.figures.sizes import SIZES
from analysis.rows.metrics import LEVELS, no_metric_error
from analysis.tables.options import AUTO, EXPLAIN, FORMATS, INTERVALS, TESTS
from d2l_study.command_line import ANALYSIS_MODULE, Parser, command_first_text, missing_text
from d2l_study.errors import UserError, nearest, nearest_option

DEFAULT_PANEL = "mean_bag_size"
"""Of the figures that have panels."""
DESCRIPTION = "Tables, tests, figures and rows of studies, from their stored results. Nothing is trained."
STUDY_HELP = (
    "a study's name, its folder ROOT/studies/<name>, an exported .parquet or .csv file, or mlflow:URI#NAME; several "
    "are shown together"
)


# ---- what values mean
EXAMPLES = {"--baseline": "method=none", "--where": "num_bags=50", "--label": "none='Attention MIL'"}


def key_values(texts: Sequence[str], option: str) -> dict[str, str]:
    """The values of an option that takes KEY=VALUE, several times. UserError for a text that is none, or two values of
    a key."""
    found: dict[str, str] = {}
    for key, value in _pairs(texts, option):
        if found.setdefault(key, value) != value:
            raise UserError(f"{option} {key}={found[key]} {key}={value}: two values of {key}; expected one")
    return found


def key_choices(texts: Sequence[str], option: str) -> dict[str, list[str]]:
    """As `key_values`, of an option that takes several values of a key."""
    found: dict[str, list[str]] = {}
    for key, value in _pairs(texts, option):
        found.setdefault(key, []).append(value)
    return found


def _pairs(texts: Sequence[str], option: str) -> Iterator[tuple[str, str]]:
    """Keys and values, in the order given."""
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key or not value:
            expected = "NAME=TEXT" if option == "--label" else "KEY=VALUE"
            raise UserError(f"{option} {text or repr(text)}: expected {expected}, for example {EXAMPLES[option]}")
        yield key, value


def metric_names(texts: Sequence[str] | None) -> str | list[str] | None:
    """`--metric a,b` and `--metric a --metric b` are two metrics; None without the option. UserError for one that
    names none."""
    if texts is None:
        return None
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if not names:
        raise no_metric_error(" ".join(texts))
    return names[0] if len(names) == 1 else names


def metric_name(text: str | None) -> str | None:
    """The one metric of a figure. UserError for none, or several."""
    if text is not None and not text.strip():
        raise no_metric_error(text)
    if text is not None and "," in text:
        raise UserError(f"--metric {text}: a figure shows one metric, for example {text.split(',')[0].strip()}")
    return text


# ---- the parser
class _Parser(Parser):
    """Raises UserError with the nearest valid name, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        choice = re.match(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)$", message, re.DOTALL)
        if choice:
            name, value, allowed = choice.groups()
            names = [one.strip(" '\"") for one in allowed.split(",")]
            raise UserError(f"{name} {value}: not known{nearest(value, names)} (known: {', '.join(names)})")
        raise UserError(f"{missing_text(message)} (see {self.prog} --help)")


def parse(argv: list[str], prog: str = ANALYSIS_MODULE) -> argparse.Namespace:
    """The command and its options. UserError for a command, option or value that is not known. prog: how the user calls
    this, for messages and help."""
    parser, by_name = command_parsers(prog)
    if argv and argv[0] not in ("-h", "--help") and (first := command_first_text(prog, argv, tuple(by_name))):
        raise UserError(f"{first} (see {prog} --help)")
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = by_name[arguments.command]
        options = [o for action in chosen._actions for o in action.option_strings if o.startswith("--")]
        found = unknown[0].split("=")[0]
        what = "unknown option" if found.startswith("-") else "unexpected argument"
        raise UserError(f"{what} {found}{nearest_option(found, options)} (options: {', '.join(options)})")
    return arguments


def command_parsers(prog: str = ANALYSIS_MODULE) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of the command line, and those of its commands by name. prog: as of `parse`."""
    parser = _Parser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    by_name: dict[str, argparse.ArgumentParser] = {}

    def command(name: str, text: str, epilog: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog, allow_abbrev=False
        )
        added.add_argument("study", metavar="STUDY", nargs="+", help=STUDY_HELP)
        added.add_argument("--root", default="runs", help="the folder that holds results and studies (default: runs)")
        added.add_argument("--tracking-uri", metavar="URI", help="read the studies of this MLflow store, and no folder")
        if name != "export":  # rows keep the names of the space
            added.add_argument(
                "--label", nargs="+", action="extend", default=[], metavar="NAME=TEXT",
                help="how an arm, key or metric is to be called, such as none='Attention MIL'",
            )  # fmt: skip
        by_name[name] = added
        return added

    tables = command(
        "tables", "print a table with intervals, counts and paired differences",
        f"Example: {prog} tables vat_quick --metric instance_auc --format latex --out table.tex",
    )  # fmt: skip
    _add_metrics(tables)
    tables.add_argument("--rows", default="method", metavar="KEY", help="key of the rows (default: method)")
    _add_axes(tables)
    tables.add_argument(
        "--published", action="store_true",
        help="with published figures of the same data sets, where columns are metrics or data sets",
    )  # fmt: skip
    tables.add_argument(
        "--no-pooled", action="store_true", help="without the pooled out-of-fold figures of studies with folds"
    )
    tables.add_argument(
        "--intervals", choices=INTERVALS, default="replicates",
        help="what they are over; images: metrics of the instances of given bags, with a bootstrap of the test images "
        "(default: replicates)",
    )  # fmt: skip
    _add_explain(tables)
    _add_output(tables)

    compared = command(
        "compare", "test every method against one of them: paired by replicate, or two models on one test set",
        f"Example: {prog} compare vat_quick --baseline method=none --metric instance_auc",
    )  # fmt: skip
    compared.add_argument(
        "--baseline", nargs="+", action="extend", metavar="KEY=VALUE",
        help="what the others are compared with (default: method=none, else the first method)",
    )  # fmt: skip
    compared.add_argument(
        "--controls", action="store_true", help="compare each student with its own teacher and its controls instead"
    )
    compared.add_argument(
        "--test", choices=TESTS, default="paired",
        help="paired: differences by replicate, t and Wilcoxon, for folds the corrected t (default); delong: two "
        "models on the test bags of one replicate; clusters: on its instances, by image",
    )  # fmt: skip
    compared.add_argument(
        "--replicate",
        type=int,
        nargs="+",
        action="extend",
        metavar="R",
        help="only these replicates (of delong and clusters)",
    )
    _add_metrics(compared)
    _add_axes(compared)
    _add_explain(compared)
    _add_output(compared)

    figure = command(
        "figure", "draw a figure: curves, students against teachers, a heat map, ROC, reliability, learning, a search",
        f"Example: {prog} figure vat_quick --out auc.pdf",
    )  # fmt: skip
    figure.add_argument(
        "--kind", choices=KINDS, default="curves",
        help="curves: the metric against the number of bags with 95 %% bands (default); pairs: each student minus its "
        "teacher, replicate by replicate; heatmap: over two keys; roc, pr, reliability: of the stored test scores; "
        "learning: curves of the training; of a search: best (so far, by trial), importances (of its keys), parallel "
        "(each trial over its keys)",
    )  # fmt: skip
    figure.add_argument(
        "--metric", help="a metric of the runs (default: instance_auc in a study of students, else bag_auc)"
    )
    figure.add_argument(
        "--panel", default=DEFAULT_PANEL, metavar="KEY",
        help=f"of curves and pairs: one panel for each of its values (default: {DEFAULT_PANEL}; none for no panels)",
    )  # fmt: skip
    figure.add_argument("--rows", metavar="KEY", help="of a heat map (default: num_bags, lambda_adv, or what varies)")
    figure.add_argument(
        "--columns", metavar="KEY", help="of a heat map (default: mean_bag_size, epsilon, or what varies)"
    )
    figure.add_argument("--level", choices=LEVELS, help="of roc, pr and reliability (default: bag)")
    figure.add_argument(
        "--where",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with these values, such as num_bags=50 num_bags=100 method=vat; of several of a key any",
    )
    figure.add_argument(
        "--size", choices=tuple(SIZES), default="page",
        help="column: 3.4 inches wide; page: 7 inches (default); slide: 13.3 × 7.5 inches, with larger letters",
    )  # fmt: skip
    figure.add_argument("--scale", choices=SCALES, help="of the metric; logit spreads what lies near 1")
    figure.add_argument("--out", required=True, metavar="FILE", help=".png, .svg or .pdf")

    report = command(
        "report", "write a study's report: one HTML file with tables, tests, figures, failures and provenance",
        f"Example: {prog} report vat_quick --out report.html",
    )  # fmt: skip
    report.add_argument("--out", default="report.html", metavar="FILE", help=".html (default: report.html)")

    export = command(
        "export", "write the rows of a study, one per run",
        f"Example: {prog} export vat_quick --out rows.parquet",
    )  # fmt: skip
    export.add_argument("--out", required=True, metavar="FILE", help=".parquet or .csv")

    return parser, by_name


def _add_metrics(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metric", action="append",
        help="a metric of the runs, or several: a,b (default: instance_auc in a study of students, else bag_auc; in "
        "one with folds those of the bags and of the instances)",
    )  # fmt: skip


def _add_axes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--columns", default=AUTO, metavar="KEY",
        help="key of the columns, or metric (default: num_bags; metric where there are folds or several metrics)",
    )  # fmt: skip
    parser.add_argument(
        "--panel", default=AUTO, metavar="KEY",
        help="one table for each of its values (default: mean_bag_size, or dataset where there are several; none for "
        "no panels)",
    )  # fmt: skip
    parser.add_argument(
        "--test-train-ratio", type=_ratio, metavar="X",
        help="of folds: test over training bags, for the corrected intervals and tests (default: as in the runs)",
    )  # fmt: skip


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 100:
        raise argparse.ArgumentTypeError(f"{text}: expected a number above 0, for example 0.125")
    return value


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        EXPLAIN, action="store_true", help="say below the table how its intervals and tests are made; files, LaTeX and "
        "HTML always do",
    )  # fmt: skip


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --out, else markdown")
    parser.add_argument("--out", metavar="FILE", help="write there instead of printing")
