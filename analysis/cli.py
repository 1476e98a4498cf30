"""`python -m analysis`: tables, tests, figures and rows of studies, from their stored results."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from analysis.figures.kinds import KINDS, KINDS_WITH, SCORE_KINDS, SEARCH_KINDS
from analysis.rows import option_values
from d2l_study import last_words
from d2l_study.command_line import Parser, refusal
from d2l_study.errors import UnreadableError, UserError, damage_shown, nearest
from d2l_study.terminal import print_anywhere

if TYPE_CHECKING:
    import pandas

PROG = "python -m analysis"
# Said here again, so that --help and wrong options are answered without the libraries behind the commands.
FORMATS = ("markdown", "csv", "latex", "html", "parquet")
TESTS = ("paired", "delong", "clusters")
AUTO = "auto"
SCALES = ("linear", "logit")
LEVELS = ("bag", "instance")
SIZES = ("column", "page", "slide")
DEFAULT_PANEL = "mean_bag_size"
"""Of the figures that have panels."""
BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended
DESCRIPTION = "Tables, tests, figures and rows of studies, from their stored results. Nothing is trained."
STUDY_HELP = (
    "a study's name, its folder ROOT/studies/<name>, an exported .parquet or .csv file, or mlflow:URI#NAME; several "
    "are shown together"
)


@damage_shown()
def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user has to mend, 141 for a closed pipe.

    prog: how the user calls this, for messages and help.
    """
    print_anywhere()
    try:
        arguments = _parse(sys.argv[1:] if argv is None else list(argv), prog)
        commands = {"tables": _tables, "compare": _compare, "figure": _figure, "report": _report, "export": _export}
        commands[arguments.command](arguments)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except UnreadableError as error:
        print(f"error: cannot read {error.filename}: {error.strerror}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        print(f"error: {refusal(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{last_words.stopped('analysis')}", file=sys.stderr)
        return 130
    return 0


def _tables(arguments: argparse.Namespace) -> None:
    from analysis.tables import tables

    format, path = _format_and_path(arguments)
    rows = _load(arguments)
    made = tables.table(
        rows, option_values.metrics(arguments.metric), row_key=arguments.rows, column_key=arguments.columns,
        panel_key=_panel(arguments),
        test_train_ratio=arguments.test_train_ratio, pooled=None if arguments.no_pooled else _pooled(rows, arguments),
        with_published=arguments.published,
    )  # fmt: skip
    if arguments.published and not made.published:
        raise UserError(f"--published: no published figures of {', '.join(made.layout.datasets)} are kept")
    _put_out(made, format, path)


def _compare(arguments: argparse.Namespace) -> None:
    from analysis.tables import comparison

    format, path = _format_and_path(arguments)
    made = comparison.compare(
        _load(arguments), option_values.pairs(arguments.baseline, "--baseline"),
        option_values.metrics(arguments.metric), test=arguments.test,
        column_key=arguments.columns, panel_key=_panel(arguments), test_train_ratio=arguments.test_train_ratio,
        replicates=arguments.replicate,
    )  # fmt: skip
    _put_out(made, format, path)


def _format_and_path(arguments: argparse.Namespace) -> tuple[str, Path | None]:
    """The format asked for, or that of the suffix of --out, and where to write; checked before the work."""
    from analysis.rows import results
    from analysis.tables import tables

    if arguments.out is None:
        if arguments.format == "parquet":
            raise UserError("--format parquet: is no text and cannot be printed; name a file with --out")
        return arguments.format or "markdown", None
    path = results.writable_path(arguments.out, () if arguments.format else tuple(tables.SUFFIXES))
    return arguments.format or tables.SUFFIXES[path.suffix.lower()], path


def _put_out(made: Any, format: str, path: Path | None) -> None:
    """Print a `Table` or `Comparison`, or write it."""
    if path is None:
        print(made.text(format), end="")
        return
    try:
        if format == "parquet":
            made.frame().to_parquet(path, index=False)
        else:
            path.write_text(made.text(format), encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {path}: cannot write there: {error.strerror or error}") from None
    print(f"wrote {path}")


def _load(arguments: argparse.Namespace) -> pandas.DataFrame:
    from analysis.rows import results
    from analysis.rows.display_names import with_labels

    study = arguments.study
    only = study[0] if isinstance(study, list) and len(study) == 1 else study
    rows = results.load(only, arguments.root, tracking_uri=arguments.tracking_uri)
    labels = option_values.pairs(getattr(arguments, "label", []), "--label")
    return with_labels(rows, labels, "--label") if labels else rows


def _pooled(rows: pandas.DataFrame, arguments: argparse.Namespace) -> pandas.DataFrame | None:
    """Pooled out-of-fold rows, where there are folds and the predictions are at hand."""
    from analysis.cells import layout
    from analysis.rows import results

    columns = layout.default_columns(rows) if arguments.columns == AUTO else arguments.columns
    if columns != layout.METRICS or not layout.has_folds(rows) or not rows.attrs.get(results.FOLDERS):
        return None
    from analysis.cells import out_of_fold

    return out_of_fold.pooled_rows(rows)


def _figure(arguments: argparse.Namespace) -> None:
    from analysis.figures import metric_curves
    from analysis.rows import results

    results.writable_path(arguments.out, metric_curves.SUFFIXES)  # before the work, not after it
    _check_figure_options(arguments)
    figure = _search_figure(arguments) if arguments.kind in SEARCH_KINDS else _figure_of_rows(arguments)
    print(f"wrote {metric_curves.save(figure, arguments.out)}")


FIGURE_OPTIONS = {
    "scale": ("curves",), "level": SCORE_KINDS, "rows": ("heatmap",), "columns": ("heatmap",),
    "panel": ("curves", "pairs"),
    "metric": ("curves", "pairs", "heatmap", "learning"),
    "where": tuple(kind for kind in KINDS if kind not in SEARCH_KINDS),
}  # fmt: skip
"""Which kinds of figures take an option; the others take all."""


def _check_figure_options(arguments: argparse.Namespace) -> None:
    kind = arguments.kind
    for option, kinds in FIGURE_OPTIONS.items():
        given = getattr(arguments, option)
        if given in (None, []) or kind in kinds:
            continue
        if (option, given) in (("scale", "linear"), ("panel", DEFAULT_PANEL)):
            continue
        why = {"pairs": "its differences are drawn on a linear scale"}.get(kind, "") if option == "scale" else (
            "it shows what the search looked at" if kind in SEARCH_KINDS and option == "metric" else "")  # fmt: skip
        text = " ".join(map(str, given)) if isinstance(given, list) else given
        raise UserError(
            f"--{option} {text}: not of --kind {kind}{'; ' + why if why else ''} (it is of {', '.join(kinds)})"
        )


def _figure_of_rows(arguments: argparse.Namespace) -> Any:
    from analysis.cells.chosen import where
    from analysis.figures import drawing

    rows, kind = where(_load(arguments), option_values.pairs(arguments.where, "--where")), arguments.kind
    given = {"metric": option_values.metric(arguments.metric), "panel_key": _panel(arguments),
             "row_key": arguments.rows, "column_key": arguments.columns, "level": arguments.level,
             "scale": arguments.scale}  # fmt: skip
    kept = {k: v for k, v in given.items() if kind in KINDS_WITH[k] and (v is not None or k == "panel_key")}
    return drawing.figure(rows, kind, size=arguments.size, **kept)


def _search_figure(arguments: argparse.Namespace) -> Any:
    from analysis.figures import search

    if len(arguments.study) > 1:
        raise UserError(f"--kind {arguments.kind}: one study at a time, found {len(arguments.study)}")
    if arguments.tracking_uri:
        raise UserError(f"--tracking-uri: not of --kind {arguments.kind}, which reads the trials in the study's folder")
    labels = option_values.pairs(arguments.label, "--label")
    return search.draw_search(arguments.study[0], arguments.root, arguments.kind, arguments.size, labels)


def _report(arguments: argparse.Namespace) -> None:
    from analysis.report import report
    from analysis.rows import results

    results.writable_path(arguments.out, report.SUFFIXES)
    if len(arguments.study) > 1:
        raise UserError(f"a report is about one study, found {len(arguments.study)}")
    rows = _load(arguments)
    uri = arguments.tracking_uri
    if uri is None and rows.attrs.get(results.FOLDERS):
        from d2l_study.study.mlflow.address import resolve_uri

        uri = resolve_uri(None, next(iter(rows.attrs[results.FOLDERS].values())))
    print(f"wrote {report.write_report(rows, arguments.out, root=arguments.root, uri=uri)}")


def _export(arguments: argparse.Namespace) -> None:
    from analysis.rows import results
    from analysis.rows.display_names import BY_STUDY, LABELS

    results.writable_path(arguments.out, results.EXPORT_SUFFIXES)
    rows = _load(arguments)
    path = results.export(rows, arguments.out)
    plain = ""
    if path.suffix.lower() == ".csv" and any(rows.attrs.get(name) for name in (LABELS, BY_STUDY)):
        plain = "; names are plain: CSV has no room for labels, .parquet keeps them"
    print(f"wrote {path} ({len(rows)} rows){plain}")


def _panel(arguments: argparse.Namespace) -> str | None:
    return None if arguments.panel == "none" else arguments.panel


# ---- the command line
class _Parser(Parser):
    """Raises UserError with the nearest valid name, where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        choice = re.match(r"argument (.+?): invalid choice: '?(.*?)'? \(choose from (.*)\)$", message, re.DOTALL)
        if choice:
            name, value, allowed = choice.groups()
            names = [one.strip(" '\"") for one in allowed.split(",")]
            raise UserError(f"{name} {value}: not known{nearest(value, names)} (known: {', '.join(names)})")
        raise UserError(f"{message} (see {self.prog} --help)")


def _parse(argv: list[str], prog: str = PROG) -> argparse.Namespace:
    parser = _Parser(prog=prog, description=DESCRIPTION, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    by_name = {}

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
    tables.add_argument("--published", action="store_true", help="with published figures of the same data sets")
    tables.add_argument(
        "--no-pooled", action="store_true", help="without the pooled out-of-fold figures of studies with folds"
    )
    _add_output(tables)

    compared = command(
        "compare", "test every method against one of them: paired by replicate, or two models on one test set",
        f"Example: {prog} compare vat_quick --baseline method=none --metric instance_auc",
    )  # fmt: skip
    compared.add_argument(
        "--baseline", nargs="+", default=["method=none"], metavar="KEY=VALUE",
        help="what the others are compared with (default: method=none)",
    )  # fmt: skip
    compared.add_argument(
        "--test", choices=TESTS, default="paired",
        help="paired: differences by replicate, t and Wilcoxon, for folds the corrected t (default); delong: two "
        "models on the test bags of one replicate; clusters: on its instances, by image",
    )  # fmt: skip
    compared.add_argument(
        "--replicate", type=int, nargs="+", metavar="R", help="only these replicates (of delong and clusters)"
    )
    _add_metrics(compared)
    _add_axes(compared)
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
        "--where", nargs="+", default=[], metavar="KEY=VALUE", help="only runs with these values, such as num_bags=50"
    )
    figure.add_argument(
        "--size", choices=SIZES, default="page",
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

    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        chosen = by_name[arguments.command]
        options = [o for action in chosen._actions for o in action.option_strings if o.startswith("--")]
        found = unknown[0].split("=")[0]
        what = "unknown option" if found.startswith("-") else "unexpected argument"
        raise UserError(f"{what} {found}{nearest(found, options)} (options: {', '.join(options)})")
    return arguments


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


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, help="default: by the suffix of --out, else markdown")
    parser.add_argument("--out", metavar="FILE", help="write there instead of printing")
