"""`python -m analysis`: tables, tests, figures and rows of studies, from their stored results."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.cli_arguments import (
    DEFAULT_PANEL,
    command_parsers,
    key_choices,
    key_values,
    metric_name,
    metric_names,
    parse,
)
from analysis.figures.options import KINDS, KINDS_WITH, SEARCH_KINDS
from analysis.rows.exported_files import SUFFIXES as EXPORT_SUFFIXES
from analysis.rows.exported_files import export
from analysis.rows.loading import load
from analysis.rows.mixed_columns import without_mixed_columns
from analysis.rows.output_files import writable_path, writing
from analysis.rows.study_folders import FOLDERS
from analysis.tables.options import AUTO, FORMAT_OF_SUFFIX, IMAGES
from d2l_study.command_line import ANALYSIS_MODULE, called_as, missing_package_text, os_error_text
from d2l_study.errors import UnreadableError, UserError, damage_shown
from d2l_study.interruption_messages import stopped_text
from d2l_study.lost_interruptions import lost_interruptions_sent_again
from d2l_study.terminal import print_anywhere

if TYPE_CHECKING:
    import pandas

    from analysis.tables.formatted import FormattedTable

BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended


@damage_shown()
@lost_interruptions_sent_again()
def main(argv: Sequence[str] | None = None, prog: str = ANALYSIS_MODULE) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user has to mend, 141 for a closed pipe.

    prog: how the user calls this, for messages and help.
    """
    with called_as(prog):
        return _answered(sys.argv[1:] if argv is None else list(argv), prog)


def _answered(argv: list[str], prog: str) -> int:
    """The exit code of a command; what goes wrong is said in one line."""
    print_anywhere()
    try:
        if not argv:
            command_parsers(prog)[0].print_help()
            return 0
        arguments = parse(argv, prog)
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
        print(f"error: {os_error_text(error)}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: {missing_package_text(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{stopped_text('analysis')}", file=sys.stderr)
        return 130
    return 0


def _tables(arguments: argparse.Namespace) -> None:
    from analysis.tables.published_rows import why_none
    from analysis.tables.study_table import table

    format, path = _format_and_path(arguments)
    if arguments.intervals == IMAGES:
        _check_image_options(arguments)
    if arguments.published and format in ("csv", "parquet"):
        raise UserError(f"--published: not in {format}, which holds the study's own numbers alone")
    rows = _load(arguments)
    if arguments.intervals == IMAGES:
        from analysis.tables.image_table import image_table

        _print_or_write(image_table(rows, metric_names(arguments.metric)), format, path, arguments.explain)
        return
    made = table(
        rows, metric_names(arguments.metric), row_key=arguments.rows, column_key=arguments.columns,
        panel_key=_panel(arguments),
        test_train_ratio=arguments.test_train_ratio, pooled=None if arguments.no_pooled else _pooled(rows, arguments),
        with_published=arguments.published,
    )  # fmt: skip
    if arguments.published and not made.published:
        raise UserError(f"--published: no published figures of {', '.join(made.layout.datasets)} are kept")
    if made.published and (why := why_none(made.layout, made.published)):
        raise UserError(f"--published: {why}")
    _print_or_write(made, format, path, arguments.explain)


def _check_image_options(arguments: argparse.Namespace) -> None:
    """UserError for an option that a table with intervals over images does not have."""
    given = {
        "--rows": arguments.rows != "method", "--columns": arguments.columns != AUTO,
        "--panel": arguments.panel != AUTO, "--test-train-ratio": arguments.test_train_ratio is not None,
        "--published": arguments.published, "--no-pooled": arguments.no_pooled,
    }  # fmt: skip
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise UserError(f"{wrong[0]}: not beside --intervals images, whose table is of methods against metrics")


def _compare(arguments: argparse.Namespace) -> None:
    from analysis.tables.comparison import compare

    format, path = _format_and_path(arguments)
    baseline = key_values(arguments.baseline or [], "--baseline")  # checked before rows are read
    made = compare(
        _load(arguments), baseline,
        metric_names(arguments.metric), controls=arguments.controls, test=arguments.test,
        column_key=arguments.columns, panel_key=_panel(arguments), test_train_ratio=arguments.test_train_ratio,
        replicates=arguments.replicate,
    )  # fmt: skip
    _print_or_write(made, format, path, arguments.explain)


def _format_and_path(arguments: argparse.Namespace) -> tuple[str, Path | None]:
    """The format asked for, or that of the suffix of --out, and where to write; checked before the work."""
    if arguments.out is None:
        if arguments.format == "parquet":
            raise UserError("--format parquet: is no text and cannot be printed; name a file with --out")
        return arguments.format or "markdown", None
    path = writable_path(arguments.out, () if arguments.format else tuple(FORMAT_OF_SUFFIX))
    of_suffix = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if arguments.format and of_suffix and of_suffix != arguments.format:
        suffix = next(suffix for suffix, format in FORMAT_OF_SUFFIX.items() if format == arguments.format)
        raise UserError(f"--out {arguments.out}: ends as {of_suffix}, and --format is {arguments.format}; expected "
                        f"--format {of_suffix}, or a name that ends in {suffix}")  # fmt: skip
    return arguments.format or FORMAT_OF_SUFFIX[path.suffix.lower()], path


def _print_or_write(table: FormattedTable, format: str, path: Path | None, explain: bool) -> None:
    if path is None:
        print(table.text(format, explain=explain), end="")
        return
    with writing(path) as place:
        if format == "parquet":
            without_mixed_columns(table.frame()).to_parquet(place, index=False)
        else:
            place.write_text(table.text(format), encoding="utf-8")
    print(f"wrote {path}")


def _load(arguments: argparse.Namespace) -> pandas.DataFrame:
    from analysis.rows.display_names import with_labels

    study = arguments.study
    only = study[0] if isinstance(study, list) and len(study) == 1 else study
    labels = key_values(getattr(arguments, "label", []), "--label")
    rows = load(only, arguments.root, tracking_uri=arguments.tracking_uri)
    return with_labels(rows, labels, "--label") if labels else rows


def _pooled(rows: pandas.DataFrame, arguments: argparse.Namespace) -> pandas.DataFrame | None:
    """Pooled out-of-fold rows, where there are folds and the predictions are at hand."""
    from analysis.cells import layout

    columns = layout.default_columns(rows) if arguments.columns == AUTO else arguments.columns
    if columns != layout.METRICS or not layout.has_given_bags(rows) or not rows.attrs.get(FOLDERS):
        return None
    from analysis.cells import out_of_fold

    return out_of_fold.pooled_rows(rows)


def _figure(arguments: argparse.Namespace) -> None:
    from analysis.figures.files import SUFFIXES, save_figure

    writable_path(arguments.out, SUFFIXES)  # before the work, not after it
    _check_figure_options(arguments)
    figure = _search_figure(arguments) if arguments.kind in SEARCH_KINDS else _figure_of_rows(arguments)
    print(f"wrote {save_figure(figure, arguments.out)}")


FIGURE_OPTIONS = {
    "scale": KINDS_WITH["scale"], "level": KINDS_WITH["level"], "rows": KINDS_WITH["row_key"], "columns": ("heatmap",),
    "panel": KINDS_WITH["panel_key"], "metric": KINDS_WITH["metric"],
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
    from analysis.cells.row_filter import rows_where
    from analysis.figures.figure import figure

    wanted, kind = key_choices(arguments.where, "--where"), arguments.kind
    rows = rows_where(_load(arguments), wanted)
    given = {"metric": metric_name(arguments.metric), "panel_key": _panel(arguments),
             "row_key": arguments.rows, "column_key": arguments.columns, "level": arguments.level,
             "scale": arguments.scale}  # fmt: skip
    kept = {k: v for k, v in given.items() if kind in KINDS_WITH[k] and (v is not None or k == "panel_key")}
    return figure(rows, kind, size=arguments.size, **kept)


def _search_figure(arguments: argparse.Namespace) -> Any:
    from analysis.figures import search

    if len(arguments.study) > 1:
        raise UserError(f"--kind {arguments.kind}: one study at a time, found {len(arguments.study)}")
    if arguments.tracking_uri:
        raise UserError(f"--tracking-uri: not of --kind {arguments.kind}, which reads the trials in the study's folder")
    labels = key_values(arguments.label, "--label")
    return search.draw_search(arguments.study[0], arguments.root, arguments.kind, arguments.size, labels)


def _report(arguments: argparse.Namespace) -> None:
    from analysis.report import report

    writable_path(arguments.out, report.SUFFIXES)
    if len(arguments.study) > 1:
        raise UserError(f"a report is about one study, found {len(arguments.study)}")
    rows = _load(arguments)
    uri = arguments.tracking_uri
    if uri is None and rows.attrs.get(FOLDERS):
        from d2l_study.study.mlflow.address import resolve_uri

        uri = resolve_uri(None, next(iter(rows.attrs[FOLDERS].values())))
    print(f"wrote {report.write_report(rows, arguments.out, root=arguments.root, uri=uri)}")


def _export(arguments: argparse.Namespace) -> None:
    from analysis.rows.display_names import BY_STUDY, LABELS

    writable_path(arguments.out, EXPORT_SUFFIXES)
    rows = _load(arguments)
    path = export(rows, arguments.out)
    plain = ""
    if path.suffix.lower() == ".csv" and any(rows.attrs.get(name) for name in (LABELS, BY_STUDY)):
        plain = "; names are plain: CSV has no room for labels, .parquet keeps them"
    print(f"wrote {path} ({len(rows)} rows){plain}")


def _panel(arguments: argparse.Namespace) -> str | None:
    return None if arguments.panel == "none" else arguments.panel
