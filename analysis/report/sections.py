"""What a report says in words and small tables: summary, best trials, failures, provenance."""

from __future__ import annotations

import contextlib
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from analysis.cells.best import SIZE_KEYS, TASK_KEYS
from analysis.cells.layout import is_missing, setting_text, value_text
from analysis.cells.model_selection import SELECTION_METRIC, ranked_by_validation, ties_for_first
from analysis.cells.partitions import (
    DRAWN,
    Design,
    Partition,
    metric_interval,
    partitions_of,
    unit_counts_text,
    unit_noun,
)
from analysis.report import html_elements as html
from analysis.report.mlflow_links import MlflowLinks
from analysis.rows.display_names import SYMBOLS, Names
from analysis.rows.idle_values import without_idle_values
from analysis.rows.labels_used import COLUMN as LABELS_USED
from analysis.rows.labels_used import validation_labels_are_used
from analysis.rows.metrics import heading_of
from analysis.rows.stages import PART_TEACHER, default_metric
from analysis.statistics.intervals import Interval, unit_count
from analysis.tables.caption import no_interval_sentences
from analysis.tables.number_style import BOTH_BOUNDS
from d2l_study.credentials import masked
from d2l_study.options import value_text as option_text
from d2l_study.study.ledger.failures import log_tail

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

BEST_PER_TASK, MOST_TASKS = 5, 12
MOST_CAUSES, IDS_SHOWN = 20, 6


# ---- summary
def run_counts(rows: pandas.DataFrame) -> str:
    """Large numbers: runs by how they ended, configurations, time."""
    states = rows["status"].value_counts()
    total = len(rows)
    found: list[tuple[str, str, bool]] = [(f"{int(states.get('done', 0)):,}", f"of {total:,} runs done", False)]
    names = {"failed": "failed", "pruned": "ended early", "missing": "not run yet"}
    found += [(f"{int(states[s]):,}", word, s == "failed") for s, word in names.items() if states.get(s, 0)]
    if "failed" not in states:
        found.append(("0", "failed", False))
    found.append((f"{rows['config_id'].nunique():,}", "configurations", False))
    seconds = sum(float(rows[name].sum()) for name in ("train_seconds", "eval_seconds") if name in rows)
    if seconds > 0:
        found.append((duration(seconds), "of training and testing, summed over runs", False))
    return html.large_numbers(found)


def duration(seconds: float) -> str:
    """`2.5 h`, in the largest unit of which there are two at least."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def time_span(rows: pandas.DataFrame) -> str:
    """From the first to the last commit, to the minute; empty where rows do not say."""
    if "committed_at" not in rows:
        return ""
    times = rows["committed_at"].dropna().astype(str)
    if times.empty:
        return ""
    first, last = times.min()[:16].replace("T", " "), times.max()[:16].replace("T", " ")
    return f"{first} UTC" if first == last else f"{first} to {last} UTC"


def study_facts(rows: pandas.DataFrame) -> list[tuple[str, str | html.Text]]:
    """What was varied and how often, as facts."""
    names = Names.of(rows)
    arms = [names.arm(arm) for arm in dict.fromkeys(f"{m}" for m in rows["method"].dropna())]
    shown = ", ".join(arms[:12]) + (f" and {len(arms) - 12} more" if len(arms) > 12 else "")
    found: list[tuple[str, str | html.Text]] = [(f"{len(arms)} arm{'s' if len(arms) != 1 else ''}", shown)]
    keys = [*dict.fromkeys(key for key in (*SIZE_KEYS, *rows.attrs.get("varied", [])) if key in rows)]
    read = without_idle_values(rows, keys)
    for key in keys:
        values = read[key].dropna().unique()
        if not len(values):
            continue
        name = f"{key} {SYMBOLS[key]}" if names.uses_symbol(key) else names.key(key)
        numeric = all(isinstance(v, int | float) or hasattr(v, "item") for v in values) and rows[key].dtype != bool
        values = sorted(values) if numeric else list(values)
        if len(values) > 12 and numeric:
            found.append((name, f"{len(values)} values from {values[0]:.3g} to {values[-1]:.3g}"))
        else:
            found.append((name, ", ".join(value_text(v) for v in values[:12])))
    told = rows[rows["stage"] != PART_TEACHER] if "stage" in rows else rows
    if LABELS_USED in told and told[LABELS_USED].notna().any():
        least, most = int(told[LABELS_USED].min()), int(told[LABELS_USED].max())
        used = f"{least}" if least == most else f"{least} to {most}"
        of = {True: ", training and validation", False: ", those of training bags alone", None: ""}
        found.append(("labels used", f"{used} labels of bags in a run{of[validation_labels_are_used(told)]}"))
    per = rows.groupby(["config_id", "method"])["replicate"].nunique()
    low, high = int(per.min()), int(per.max())
    partitions = partitions_of(rows)
    designs = {partition.design for partition in partitions.values()}
    what = "replicates: new bags, new initialisation"
    if designs:
        what = "trainings on one given split" if designs == {"split"} else "folds and repeats of one data set"
    units = {_unit_count(mine, partitions[str(one)]) for one, mine in rows.groupby("config_id") if one in partitions}
    if designs == {"folds"} and max(units) < high:
        what = f"{unit_counts_text(('folds', True, count) for count in units)}"
    found.append(("replicates", f"{low if low == high else f'{low} to {high}'} ({what})"))
    return found


def _unit_count(runs: pandas.DataFrame, partition: Partition) -> int:
    """How many values the runs of a configuration make, those that were tested on the same bags counted once."""
    return unit_count(runs["replicate"].astype(int), partition.units)


# ---- the best trials
def best_trials(rows: pandas.DataFrame, pages: MlflowLinks) -> list[str]:
    """The best configurations of each task by mean validation AUC, with their settings, test figure and MLflow page."""
    order = ranked_by_validation(rows)
    if order.empty:
        return []
    tasks = [key for key in TASK_KEYS if key in order]
    test = default_metric(rows)
    shown = order.groupby(tasks, sort=False, dropna=False).head(BEST_PER_TASK) if tasks else order.head(BEST_PER_TASK)
    number = shown.groupby(tasks, sort=False, dropna=False).ngroups if tasks else 1
    shown = shown.head(BEST_PER_TASK * MOST_TASKS)
    several = [key for key in tasks if order[key].nunique(dropna=False) > 1]
    varied = [key for key in rows.attrs.get("varied", []) if key not in tasks and key in rows]
    read = without_idle_values(rows[rows["config_id"].isin(set(shown["config_id"]))], varied)
    by_config = dict(iter(read.groupby("config_id")))
    partitions, names = partitions_of(rows), Names.of(rows)
    lines: list[list[Any]] = []
    designs: dict[Design, None] = {}
    intervals: list[Interval] = []
    for one in shown.to_dict("records"):
        mine = by_config[one["config_id"]]
        mine = mine[(mine["method"] == one["method"]) & (mine["status"] == "done")]
        partition = partitions.get(str(one["config_id"]), DRAWN)
        chosen = metric_interval(mine, SELECTION_METRIC, partition)
        tested = metric_interval(mine, test, partition) if test in mine else None
        intervals += [chosen, *([tested] if tested is not None else [])]
        settings = ", ".join(setting_text(k, _value(mine[k].iloc[0]), names) for k in varied if mine[k].notna().any())
        address = pages.by_config.get(one["config_id"])
        trial = html.link(address, one["trial_id"]) if address else html.code(one["trial_id"])
        count = f"{chosen.count}"
        if not one["complete"]:
            runs = " runs" if partition.units and _unit_count(mine, partition) < len(mine) else ""
            count = f"{one['count']} of {one['planned']}{runs}"
        designs[partition.design] = None
        task = {key: one[key] for key in several}
        lines.append([
            *(str(v) if key == "dataset" else html.Number(value_text(v), math.nan if is_missing(v) else float(v))
              for key, v in task.items()),
            trial, names.arm(str(one["method"])), settings or "–", _interval(chosen),
            _interval(tested) if tested is not None else "–", html.Number(count, float(chosen.count)),
        ])  # fmt: skip
    heads = [*map(names.key, several), "trial", "arm", "settings"]
    heading = names.texts.get(test) or heading_of(test)
    units = unit_noun(designs)
    heads += ["validation bag AUC", heading, units]
    many = f"the best of {len(order):,} configurations, at most {BEST_PER_TASK}" if len(order) > 1 else "there is one"
    note = (
        f"By mean validation AUC over {units}, the oracle left out: {many}"
        + (" in each task" if number > 1 else "")
        + ". What is the best of many on validation looks better there than it is; the test figures chose nothing. "
        "Mean [95 % interval]; an AUC is from 0 to 1, higher is better."
    )
    groups = [one for _, one in order.groupby(tasks, sort=False, dropna=False)] if tasks else [order]
    ties = [count for count in map(ties_for_first, groups) if count > 1]
    if ties:
        where = f" in {len(ties)} of {len(groups)} tasks" if len(groups) > 1 else ""
        note += f" Up to {max(ties)} tie at the highest validation AUC{where}: their order is that of the plan."
    note += "".join(f" {sentence}" for sentence in no_interval_sentences(intervals))
    if number > MOST_TASKS:
        note += f" The first {MOST_TASKS} of {number} tasks."
    pieces = [html.sortable_table(heads, lines, ids=[len(several)]), html.paragraph(note, "note")]
    return [*pieces, html.paragraph(pages.note, "note")] if pages.by_config and pages.note else pieces


def _interval(interval: Interval) -> html.Number:
    return html.Number(BOTH_BOUNDS.text(interval) if interval.count else "–", interval.mean)


def _value(value: Any) -> str:
    return option_text(value, digits=4) if isinstance(value, float) else value_text(value)


# ---- failures
def failures(rows: pandas.DataFrame, folder: StudyFolder | None, root: str) -> list[str]:
    """Failed runs by cause: how many, which, the end of one log, and the command that runs that one alone."""
    failed = rows[rows["status"] == "failed"]
    if failed.empty:
        return []
    causes = failed["cause"].fillna("no cause recorded") if "cause" in failed else failed["status"]
    groups = sorted(failed.groupby(causes, sort=False), key=lambda item: -len(item[1]))
    where = "" if root == "runs" else f" --root {shlex.quote(root)}"
    pieces = []
    for cause, group in groups[:MOST_CAUSES]:
        first = group.iloc[0]
        names = [f"{t} r{int(r):03d} ({m})" for t, r, m in zip(group["trial_id"], group["replicate"], group["method"],
                                                              strict=True)]  # fmt: skip
        more = f" and {len(names) - IDS_SHOWN:,} more" if len(names) > IDS_SHOWN else ""
        pieces.append(f"<h3>{len(group):,} run{'s' if len(group) > 1 else ''}: {html.code(str(cause)).html}</h3>")
        pieces.append(html.paragraph(", ".join(names[:IDS_SHOWN]) + more))
        if folder is not None:
            lines = log_tail(folder, str(first["config_id"]), int(first["replicate"]))
            command = f"d2l trial --id {first['trial_id']} --replicate {int(first['replicate'])}{where}"
            pieces += [html.preformatted("\n".join(lines))] if lines else []
            pieces.append(html.paragraph(html.Text(f"Alone: {html.code(command).html}")))
    if len(groups) > MOST_CAUSES:
        pieces.append(html.paragraph(f"… and {len(groups) - MOST_CAUSES} more causes.", "note"))
    return pieces


# ---- provenance
def provenance(rows: pandas.DataFrame, folder: StudyFolder | None, pages: MlflowLinks) -> list[str]:
    """Where the results come from: code, seeds, data, machine, precision, and the space as written."""
    resolved = folder.resolved() if folder is not None else {}
    space, origin = resolved.get("space", {}), resolved.get("provenance", {})
    checksums = sorted({str(e["data_checksum"]) for e in folder.plan() if e.get("data_checksum")}) if folder else []
    done = rows[rows["status"] == "done"]
    made_by = sorted({str(name) for name in _values(done, "made_by")} - {str(rows.attrs.get("study"))})
    versions = {"Python": origin["python"]} if "python" in origin else {}
    versions |= origin.get("packages", {})
    dirty = " (tree with changes)" if origin.get("dirty") else ""
    pieces = [
        html.fact_table([
            ("space", f"{space.get('name', '')}" + _overrides(space)),
            ("command", html.code(masked(str(origin["command"]))) if origin.get("command") else ""),
            ("code", f"{origin.get('code_version', '')}{dirty}" if origin.get("code_version") else ""),
            ("code of the runs", ", ".join(_values(done, "code_version"))),
            ("commit", html.code(origin["commit"]) if origin.get("commit") else ""),
            ("local difference", _difference_text(origin)),
            ("science version", str(origin.get("science_version", ""))),
            ("base seed", str(space.get("base_seed", "")) or ", ".join(_values(rows, "base_seed"))),
            ("data", ", ".join(_values(rows, "dataset"))),
            ("data checksum", html.code(", ".join(checksums)) if checksums else ""),
            ("device", ", ".join(_values(done, "device"))),
            ("precision", ", ".join(_values(done, "precision"))),
            ("threads", ", ".join(_values(done, "threads"))),
            ("host", ", ".join(str(origin[k]) for k in ("host", "processor", "system") if origin.get(k))),
            ("Python and packages", ", ".join(f"{name} {version}" for name, version in versions.items())),
            ("results", time_span(rows)),
            ("runs of other studies", f"some runs were made by {', '.join(made_by)}" if made_by else ""),
            ("MLflow", html.link(pages.study, "the study's page") if pages.study else ""),
        ]),
    ]  # fmt: skip
    if folder is not None:
        with contextlib.suppress(FileNotFoundError):
            text = folder.storage.read(f"{folder.key}/space.yaml")
            pieces.append(
                html.folded("The space as written", html.preformatted(masked(text.decode("utf-8", "replace"))))
            )
    else:
        pieces.append(
            html.paragraph(
                "These rows came without their study's folder: its space, machine and seeds are not known here.", "note"
            )
        )
    return pieces


def _difference_text(origin: Mapping[str, Any]) -> str:
    found = origin.get("local_difference") or {}
    cut = ", cut" if found.get("cut") else ""
    return f"{found['file']} in the study's folder ({found['bytes']:,} bytes{cut})" if found else ""


def _overrides(space: Mapping[str, Any]) -> str:
    overrides = space.get("overrides") or []
    return f", with {masked(' '.join(map(str, overrides)))}" if overrides else ""


def _values(rows: pandas.DataFrame, key: str) -> list[str]:
    return [value_text(v) for v in rows[key].dropna().unique()[:12]] if key in rows else []


def state_sentences(rows: pandas.DataFrame) -> Iterator[str]:
    """Sentences about what a reader must know of the runs before the numbers."""
    states = rows["status"].value_counts()
    if states.get("missing", 0):
        yield f"{int(states['missing']):,} planned runs are not there yet: this is a report of an unfinished study."
    if states.get("pruned", 0):
        yield f"{int(states['pruned']):,} runs were ended early by the study's rule; they enter no table."
