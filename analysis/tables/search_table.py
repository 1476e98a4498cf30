"""The table that is printed at the end of a search: of each arm the best trial by the validation metric and, after that
choice, its test metric once. Several objectives: the Pareto front of each arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from analysis.cells.partitions import DRAWN, Partition, metric_interval, partitions_of
from analysis.cells.search_results import Trial, best_trial, count_text, pareto_front, tied_trials, trials_by_search
from analysis.rows.display_names import Names
from analysis.rows.metrics import heading_of, metric_of_column
from analysis.statistics.intervals import Interval
from analysis.tables.caption import no_interval_sentences
from analysis.tables.markdown import aligned, caption_blocks
from analysis.tables.number_style import BOTH_BOUNDS
from analysis.tables.sheet import Caption
from d2l_study.options import value_text
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.search.trial import COMPLETE

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

MOST_FRONT = 12
"""Trials of a Pareto front that are printed; `search.json` has them all."""


def search_table(folder: StudyFolder, rows: pandas.DataFrame, *, explain: bool = True) -> str:
    """The table with its caption, in Markdown. folder: of a search; rows: those of its study (`analysis.load`);
    explain: with the details of the caption."""
    document = read_document(folder)
    assert document is not None
    definition = document["definition"]
    metrics, goals = definition["metrics"], definition["goals"]
    several = len(metrics) > 1
    mark = " †" if definition.get("oracle") else ""
    test = "instance_auc" if (rows["stage"] == "student").any() else "bag_auc"
    headings = [heading_of(name) for name in metrics]
    scales = dict.fromkeys(one.scale for name in (*metrics, test) if (one := metric_of_column(name)) is not None)
    lines = [
        ["search", "trial", *(["front"] if several else []), "settings",
         *(f"{heading}{mark}" for heading in (*headings, heading_of(test)))]
    ]  # fmt: skip
    all_complete: list[str] = []
    not_complete: list[str] = []
    ties, intervals, partitions = [], [], partitions_of(rows)
    for name, trials in trials_by_search(document, Names.of(rows).arm):
        whole = all(trial["state"] == COMPLETE for trial in trials)
        (all_complete if whole else not_complete).append(f"Trials of {name}: {count_text(trials)}.")
        front = pareto_front(trials, goals)
        best = best_trial(trials, goals)
        tied = tied_trials(trials, goals)
        if len(tied) > 1 and not several:
            ties.append(f"{name}: {len(tied)} trials tie at the best value; the first of them is shown.")
        chosen = front[:MOST_FRONT] if several else [best] if best else []
        if not chosen:
            lines.append([name, "–", *(["–"] if several else []), "no trial is complete", *("–" for _ in metrics), "–"])
        for number, trial in enumerate(chosen, start=1):
            # One trial was chosen, and of it alone the test figure is looked at.
            interval = _tested(rows, trial, test, partitions) if number == 1 else None
            intervals += [] if interval is None else [interval]
            tested = "–" if interval is None else f"{BOTH_BOUNDS.text(interval)} ({interval.count})"
            lines.append([
                name, str(trial["trial_id"]), *([f"{number} of {len(front)}"] if several else []),
                _settings_text(trial["params"]), *map(_value_text, trial["values"]), tested,
            ])  # fmt: skip
    text = aligned(lines, right=[False, False, *([True] if several else []), False, *([True] * (len(metrics) + 1))])
    words = "The Pareto front" if several else "The best trial"
    over = _counts_text(document["trials"], rows)
    cells = (
        f"{words} of each search: {' and '.join(headings)}, means of {over}; {heading_of(test)} with [95 % interval] "
        f"(count). Values: {'; '.join(scales)}."
    )
    beside = ["What was chosen as the best of many looks better there than it is.", *no_interval_sentences(intervals),
              *not_complete, *ties]  # fmt: skip
    if mark:
        beside.append("† ORACLE: the search looked at true instance labels, which nothing else may see. Not a result "
                      "of weak labels.")  # fmt: skip
    details = ["The test figure was looked at after the choice, of the chosen trial alone; its interval is over "
               "replicates.", *all_complete]  # fmt: skip
    return "\n\n".join([text, *caption_blocks(Caption(cells, beside, details), explain)]) + "\n"


def _counts_text(trials: Sequence[Trial], rows: pandas.DataFrame) -> str:
    """Of how many replicates the values of complete trials are means, `1 to 2` where these differ. A document of a
    version that did not keep their number has the means of all runs that are done."""
    done = rows.loc[rows["status"] == "done"].groupby("config_id")["replicate"].nunique()
    counts = [t.get("replicates") or int(done.get(t["config_id"], 0)) for t in trials if t["state"] == COMPLETE] or [0]
    return f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{counts[0]}"


def _tested(rows: pandas.DataFrame, trial: Trial, metric: str, partitions: Mapping[str, Partition]) -> Interval | None:
    """The test metric of a trial; None where the rows do not have it."""
    mine = rows[(rows["config_id"] == trial["config_id"]) & (rows["method"] == trial["arm"])]
    if metric not in mine[mine["status"] == "done"]:
        return None
    return metric_interval(mine, metric, partitions.get(str(trial["config_id"]), DRAWN))


def _settings_text(params: Mapping[str, Any]) -> str:
    return (
        ", ".join(f"{key.split('.')[-1]}={value_text(value, digits=4)}" for key, value in params.items()) or "(fixed)"
    )


def _value_text(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
