"""What `run` prints at its end: the table, the failures, and where to look next."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from d2l_study.command_line import command_text
from d2l_study.errors import counted
from d2l_study.interruption_messages import continuation_text, refused_text
from d2l_study.study.commands.failure_report import show_failures, show_undefined
from d2l_study.study.commands.fresh_results import runs_of_others, text_of_others
from d2l_study.study.commands.prepare_study import PreparedStudy
from d2l_study.study.commands.table_and_report import FIGURE_NAME, rows_of, table_of
from d2l_study.study.commands.table_and_report import NAME as REPORT_NAME
from d2l_study.study.ledger.storage import short_path

if TYPE_CHECKING:
    import pandas


def show_study_summary(
    study: PreparedStudy, stopped: bool, failed: int, unfinished: int, reason: str | None = None
) -> int:
    """Print the table, the failures and where to look next. Returns the exit code of `run`.

    stopped: before its end; failed, unfinished: how many runs; reason: why the study was ended.
    """
    code = _show_results(study, stopped, failed, unfinished, reason)
    show_study_name(study)
    return code


def is_named_by_set(study: PreparedStudy) -> bool:
    """Whether `--set` has made the name of a study, which nobody has typed yet."""
    return study.options.study is None and bool(study.space.scientific_overrides)


def show_new_name(study: PreparedStudy) -> None:
    """Print, before the work, where the results of a study go that `--set` has named, and how to name it otherwise."""
    if is_named_by_set(study):
        print(f"--set makes another study of {study.space.name}: its results go to {study.name} (--study NAME gives it "
              "another name)", flush=True)  # fmt: skip


def show_study_name(study: PreparedStudy) -> None:
    """Print the name of a study that `--set` has named, with the commands that need it."""
    if not is_named_by_set(study):
        return
    where = "" if study.options.root == "runs" else f" --root {shlex.quote(study.options.root)}"
    name = shlex.quote(study.name)
    print(
        f"\n--set makes another study of {study.space.name}: {study.name}\n"
        f"      {command_text(f'status|stop|sync {name}{where}')}\n"
        f"      {command_text(f'tables|figure|report {name}{where}')}"
    )


def _show_results(study: PreparedStudy, stopped: bool, failed: int, unfinished: int, reason: str | None) -> int:
    name, root = study.name, study.options.root
    where = "" if root == "runs" else f" --root {shlex.quote(root)}"
    why = f" ({reason})" if reason else ""
    broken = reason is not None and reason.startswith(("cannot ", "--fail-fast", "another driver", "Ray's node"))
    print()
    if study.search is not None and not study.search.trials:
        print(f"Stopped before the first trial{why}; {continuation_text(reason)}.")
        return _broken_off(reason) if broken else 130
    rows = rows_of(name, root)
    search, explain = study.space.search is not None, study.options.explain
    print(table_of(study.folder, rows, study.space.metric, search=search, explain=explain), end="")
    show_undefined(rows)
    show_fresh_results(study, rows)
    if others := runs_of_others(study.folder, rows.to_dict("records")):
        print(f"\n{text_of_others(others)}")
    if failed:
        show_failures(study.folder, rows, where)
    if stopped or unfinished:
        left = f"{unfinished} run{'s' if unfinished != 1 else ''} left"
        print(f"\n{'Stopped' if stopped else 'Not finished'}{why}: {left}; {continuation_text(reason)}.")
    code = _broken_off(reason) if broken else 130 if stopped else 1 if failed else 0
    if not (rows["status"] == "done").any():
        return code or 1
    taught = bool((rows["stage"].eq("student") & rows["status"].eq("done")).any())
    pairs = " --kind best" if study.space.search else " --kind pairs" if taught else ""
    name, picture = shlex.quote(name), shlex.quote(f"{name}.png")
    more = further_table(rows, search=study.space.search is not None, taught=taught)
    print(
        f"\nNext: {command_text(f'figure {name}{where}{pairs} --out {picture}')}\n"
        f"      {command_text(f'tables {name}{where} {more}')}\n"
        f"      {command_text(f'status {name}{where}')}   (the ids that --run takes)\n"
        f"      {command_text(f'ui{where}')}"
    )
    for what, file in (("report", REPORT_NAME), ("figure", FIGURE_NAME)):
        if study.folder.storage.exists(f"{study.folder.key}/{file}"):
            print(f"      {what}: {short_path(study.folder.storage.shown(f'{study.folder.key}/{file}'))}")
    return code


def further_table(rows: pandas.DataFrame, *, search: bool = False, taught: bool = False) -> str:
    """The options of a table that shows what the one above does not: that of drawn bags is of one metric, that of given
    ones has all of them. taught: whether there are students, whose table is of instances."""
    if search:
        return "--metric val_bag_auc"
    known = "instance_auc" in rows and bool(rows["instance_auc"].notna().any())
    if "fold" in rows and rows["fold"].notna().any():
        count = rows.get("fold_count", rows["fold"]).max()
        whole = rows["status"].eq("done").all() and rows["fold"].nunique() == count
        return "--intervals images" if known and whole else "--explain"
    return f"--metric {'instance_auc' if known and not taught else 'bag_auc'}"


def _broken_off(reason: str | None) -> int:
    """Exit code 1 of a study that was broken off; prints the error where the root takes or gives nothing more."""
    if reason is not None and reason.startswith("cannot "):
        print(f"error: {reason}{refused_text('run')}", file=sys.stderr)
    return 1


def show_fresh_results(study: PreparedStudy, rows: pandas.DataFrame) -> None:
    """After `--fresh`, print whether the runs of other studies came out the same."""
    if not study.options.fresh or "replaces" not in rows:
        return
    again = rows[(rows["made_by"] == study.name) & rows["replaces"].notna()]
    if len(again):
        same = int((again["replaces_difference"] == 0).sum())
        most = again["replaces_difference"].max()
        differing = "" if same == len(again) else f"; the largest difference of a metric is {most:.3g}"
        print(f"\n--fresh: {counted(len(again), 'run')} of other studies trained again, {same} with identical results"
              + differing)  # fmt: skip
