"""What a search has found: of each arm the best trial by the validation metric, and, after that choice, its test
metric once. Several objectives: the Pareto front of each arm."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.search.search import COMPLETE, FAILED, OPEN, PRUNED

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

KINDS = ("best", "importances", "parallel")
MOST_FRONT = 12
"""Trials of a Pareto front that are printed; `search.json` has them all."""


def by_search(
    document: Mapping[str, Any], printed: Callable[[str], str] = str
) -> list[tuple[str, list[dict[str, Any]]]]:
    """(name of the search, its trials in the order of asking), in the order of the definition. printed: an arm's name
    as it is to be shown."""
    found: list[tuple[str, list[dict[str, Any]]]] = []
    for number, search in enumerate(document["definition"]["searches"]):
        name = " ".join(
            [printed(search["arm"]), *(f"{key.split('.')[-1]}={value}" for key, value in search["at"].items())]
        )
        found.append((name, [trial for trial in document["trials"] if trial["search"] == number]))
    return found


def best_trial(trials: Sequence[Mapping[str, Any]], goals: Sequence[str]) -> Mapping[str, Any] | None:
    """The complete trial with the best value of the first metric, the earliest of equal ones."""
    sign = 1 if goals[0] == "max" else -1
    done = [trial for trial in trials if trial["state"] == COMPLETE]
    return max(done, key=lambda t: (sign * t["values"][0], -t["number"]), default=None)


def tied_trials(trials: Sequence[Mapping[str, Any]], goals: Sequence[str]) -> list[Mapping[str, Any]]:
    """The complete trials whose value of the first metric is the best one, one of each configuration, the earliest
    first."""
    best = best_trial(trials, goals)
    if best is None:
        return []
    found: dict[str, Mapping[str, Any]] = {}
    for trial in sorted(trials, key=lambda t: t["number"]):
        if trial["state"] == COMPLETE and abs(trial["values"][0] - best["values"][0]) <= 1e-9:
            found.setdefault(trial["config_id"], trial)
    return [*found.values()]


def pareto_front(trials: Sequence[Mapping[str, Any]], goals: Sequence[str]) -> list[Mapping[str, Any]]:
    """The complete trials that no other one beats in one metric without losing in another, the best of the first
    metric first."""
    signs = [1 if goal == "max" else -1 for goal in goals]
    points = [(tuple(s * v for s, v in zip(signs, t["values"], strict=True)), t) for t in trials
              if t["state"] == COMPLETE]  # fmt: skip
    front = [
        (point, trial)
        for point, trial in points
        if not any(other != point and all(o >= p for o, p in zip(other, point, strict=True)) for other, _ in points)
    ]
    return [trial for _, trial in sorted(front, key=lambda item: item[0], reverse=True)]


def search_summary(folder: StudyFolder, rows: pandas.DataFrame) -> str:
    """The table at the end of a search, in Markdown."""
    from analysis.cells.partitions import DRAWN, interval_of, partitions_of
    from analysis.rows.display_names import Names
    from analysis.rows.metrics import describe

    document = read_document(folder)
    assert document is not None
    definition = document["definition"]
    metrics, goals = definition["metrics"], definition["goals"]
    mark = " †" if definition.get("oracle") else ""
    test = "instance_auc" if (rows["stage"] == "student").any() else "bag_auc"
    described = [describe(name) for name in (*metrics, test)]
    heads = [d.heading if d else name for d, name in zip(described, (*metrics, test), strict=True)]
    *heads, test_head = [f"{head}{mark}" for head in heads]
    several = len(metrics) > 1
    lines = [
        ["search", "trial", *(["front"] if several else []), "settings", *heads, test_head],
        ["---", "---", *(["---:"] if several else []), "---", *(["---:"] * len(heads)), "---:"],
    ]
    counts, ties, partitions = [], [], partitions_of(rows)
    for name, trials in by_search(document, Names.of(rows).arm):
        counts.append(f"{name}: {count_text(trials)}")
        front = pareto_front(trials, goals)
        best = best_trial(trials, goals)
        tied = tied_trials(trials, goals)
        if len(tied) > 1 and not several:
            ties.append(f"{name}: {len(tied)} trials tie at the best value; the first of them is shown.")
        chosen = front[:MOST_FRONT] if several else [best] if best else []
        if not chosen:
            lines.append([name, "–", *(["–"] if several else []), "no trial is complete", *("–" for _ in heads), "–"])
        for number, trial in enumerate(chosen, start=1):
            mine = rows[(rows["config_id"] == trial["config_id"]) & (rows["method"] == trial["arm"])]
            done = mine[mine["status"] == "done"]
            shown = "–"
            if number == 1 and test in done:  # one trial was chosen, and of it alone the test figure is looked at
                interval = interval_of(mine, test, partitions.get(str(trial["config_id"]), DRAWN))
                around = f" [{interval.lower:.3f}, {interval.upper:.3f}]" if interval.has_bounds else ""
                shown = f"{interval.mean:.3f}{around} ({interval.count})"
            lines.append([
                name, str(trial["trial_id"]), *([f"{number} of {len(front)}"] if several else []),
                settings_text(trial["params"]), *(figure_text(v) for v in trial["values"]), shown,
            ])  # fmt: skip
    widths = [max(len(line[i]) for line in lines if line is not lines[1]) for i in range(len(lines[0]))]
    text = "\n".join(_row(line, widths, lines[1]) for line in lines)
    replicates = rows.loc[rows["status"] == "done"].groupby("config_id").size().max()
    words = "The Pareto front" if several else "The best trial"
    notes = [
        f"{words} of each search by {' and '.join(h.replace(mark, '') for h in heads)}, means over "
        f"{int(replicates) if replicates == replicates else 0} replicates. What was chosen as the best of many looks "
        "better there than it is; the test figure was looked at after the choice, of the chosen trial alone: mean "
        "[95 % interval over replicates] (count).",
        *ties,
        *(f"Trials of {count}." for count in counts),
    ]
    if mark:
        notes.append("† ORACLE: the search looked at true instance labels, which nothing else may see. Not a result of "
                     "weak labels.")  # fmt: skip
    return text + "\n\n" + "\n".join(notes) + "\n"


def count_text(trials: Sequence[Mapping[str, Any]]) -> str:
    """How many of a search's trials ended in which way."""
    states = [trial["state"] for trial in trials]
    names = {COMPLETE: "complete", PRUNED: "ended early", FAILED: "failed", OPEN: "not finished"}
    found = [f"{states.count(state)} {name}" for state, name in names.items() if states.count(state)]
    configs = [trial["config_id"] for trial in trials]
    again = len(configs) - len(set(configs))
    return ", ".join(found or ["none yet"]) + (f"; {again} asked for a point that was there" if again else "")


def settings_text(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.split('.')[-1]}={value_text(value)}" for key, value in params.items()) or "(fixed)"


def value_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def figure_text(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def _row(cells: Sequence[str], widths: Sequence[int], rule: Sequence[str]) -> str:
    if cells is rule:
        return "| " + " | ".join(("-" * (w - 1) + ":") if c.endswith(":") else "-" * w
                                 for c, w in zip(cells, widths, strict=True)) + " |"  # fmt: skip
    padded = [c.rjust(w) if r.endswith(":") else c.ljust(w) for c, w, r in zip(cells, widths, rule, strict=True)]
    return "| " + " | ".join(padded) + " |"


def pictures_of(folder: StudyFolder) -> dict[str, Callable[[], bytes]]:
    """The pictures of a search as artifacts of the study's page in MLflow, each drawn when called."""
    document = read_document(folder)
    if document is None or not any(trial["state"] == COMPLETE for trial in document["trials"]):
        return {}
    return {f"search_{kind}.png": partial(_picture, document, folder.name, kind) for kind in KINDS}


def _picture(document: Mapping[str, Any], name: str, kind: str) -> bytes:
    from analysis.figures.search import picture

    return picture(document, kind, name)
