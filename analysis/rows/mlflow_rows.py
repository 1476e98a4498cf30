"""The rows of a study from an MLflow store alone: for whoever has its address and not the ledger.

The tracker writes a child run per configuration (`study.mlflow.configuration_page`): its values as params, every
outcome of each replicate as a metric `bag_auc/r003`, and what the rows say besides (status, repeat, fold, arms) as a
tag. Numbers come back exactly. Texts of a run that are none of these (device, time of the commit) are not in MLflow,
and bag predictions are there as artifacts only."""

from __future__ import annotations

import ast
import json
import math
import re
from typing import TYPE_CHECKING, Any

from analysis.rows.display_names import LABELS as NAMES
from analysis.rows.display_names import valid_labels
from d2l_study.errors import UserError, listed, nearest
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.ledger.study_folder import LEADING_COLUMNS
from d2l_study.study.mlflow.address import check_uri, client, one_line, sqlite_path
from d2l_study.study.mlflow.tags import (
    ARMS,
    CAUSE,
    CONFIG,
    KIND,
    LABELS,
    REPLICATES,
    ROWS,
    TEACHER,
    VARIED,
    runs_of_study,
)

if TYPE_CHECKING:
    import pandas

_OF_REPLICATE = re.compile(r"(?!curve/)(?P<name>.+)/r(?P<replicate>\d+)$")


def load_from_mlflow(uri: str, study: str | None = None) -> pandas.DataFrame:
    """The rows of a study in a store, as `load` gives them. UserError if it cannot be reached or has no such study."""
    import pandas as pd

    path = sqlite_path(uri)
    if path is not None and not path.exists():  # MLflow would make an empty store of it
        raise UserError(f"tracking URI {uri!r}: there is no file {path}")
    check_uri(uri)
    store = client(uri)
    try:
        name = _find(store, uri, study)
        runs, labels = _runs(store, name)
    except UserError:
        raise
    except Exception as error:  # MLflow, requests and the database drivers each raise their own
        raise UserError(f"tracking URI {uri!r}: {one_line(error)}") from None
    rows = [row for run in runs for row in _rows_of(name, run)]
    if not rows:
        raise UserError(f"study {name!r} at {uri} has no runs of configurations yet")
    frame = pd.DataFrame(rows)
    for column in LEADING_COLUMNS:
        if column not in frame:
            frame[column] = math.nan
    frame = frame[[*LEADING_COLUMNS, *(c for c in frame if c not in LEADING_COLUMNS)]]
    frame.attrs["study"] = name
    if named := valid_labels(labels, map(str, frame.columns)):
        frame.attrs[NAMES] = named
    if all(VARIED in run.data.tags for run in runs):
        frame.attrs["varied"] = sorted({k for run in runs for k in run.data.tags[VARIED].split(",") if k})
    return frame


def _find(store: Any, uri: str, study: str | None) -> str:
    names = sorted(e.name for e in store.search_experiments() if e.name != "Default")
    if study is None:
        if len(names) == 1:
            return names[0]
        raise UserError(f"{uri}: holds {len(names)} studies, name one as mlflow:{uri}#NAME (there: {listed(names)})")
    if study not in names:
        raise UserError(
            f"no study {study!r} at {uri}{nearest(study, names)} (studies there: {listed(names) or 'none'})"
        )
    return study


def _runs(store: Any, study: str) -> tuple[list[Any], Any]:
    """The study's child runs, arms in the order of its plan as far as the study's own run tells it, in an arm the
    oldest first; of a configuration that is there twice, the first. And the names for print that it tells."""
    experiment = store.get_experiment_by_name(study)
    found, arms = [], list[str]()
    labels: Any = {}
    for run in runs_of_study(store, experiment.experiment_id, study):
        if run.data.tags.get(KIND) == "configuration":
            found.append(run)
        elif run.data.tags.get(KIND) == "study":
            arms, labels = [str(arm) for arm in _tag(run, ARMS, [])], _tag(run, LABELS, {})
    first: dict[str, Any] = {}
    for run in sorted(found, key=lambda run: run.info.start_time):
        first.setdefault(run.data.tags[CONFIG], run)
    # Runs begin in the order in which they were trained; a table begins with the baseline.
    place = {arm: i for i, arm in enumerate(arms)}
    ordered = sorted(first.values(), key=lambda run: place.get(run.data.params.get("method"), len(place)))
    return ordered, labels


def _tag(run: Any, name: str, otherwise: Any) -> Any:
    """What a tag of the study's own run holds; `otherwise` where an older tracker wrote it, or it was too long for a
    tag."""
    try:
        found = json.loads(run.data.tags[name])
    except (KeyError, ValueError):
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def _facts(run: Any) -> dict[str, Any]:
    """What the tag of a run says of its rows; nothing where an older tracker wrote it, or it was too long for a tag."""
    try:
        return json.loads(run.data.tags.get(ROWS, "{}"))
    except ValueError:
        return {}


def _rows_of(study: str, run: Any) -> list[dict[str, Any]]:
    params = {key: _value(text) for key, text in run.data.params.items()}
    method, stage = run.data.params.get("method"), run.data.params.get("stage")
    config, facts = run.data.tags[CONFIG], _facts(run)
    values: dict[int, dict[str, float]] = {}
    for key, value in run.data.metrics.items():
        if found := _OF_REPLICATE.match(key):
            values.setdefault(int(found["replicate"]), {})[found["name"]] = value
    # MLflow deletes no metric: results that the ledger has no more are NaN there.
    values = {r: own for r, own in values.items() if not all(map(math.isnan, own.values()))}
    replicates = facts.get("replicate") or _guessed(values, run.data.tags.get(REPLICATES, ""))
    rows = []
    for i, replicate in enumerate(replicates):
        done = replicate in values
        own = {name: value[i] if isinstance(value, list) else value for name, value in facts.items()}
        status = own.get("status") or ("done" if done else "failed" if run.data.tags.get(CAUSE) else "missing")
        rows.append({
            **params, **own, "study": study, "config_id": config, "trial_id": trial_id(config), "stage": stage,
            "method": method, "replicate": replicate, "teacher_id": run.data.tags.get(TEACHER),
            "status": status, "cause": run.data.tags.get(CAUSE) or None if status == "failed" else None,
            **values.get(replicate, {}),
        })  # fmt: skip
    return rows


def _guessed(values: dict[int, Any], count: str) -> list[int]:
    """The replicates of a run that an older tracker wrote, from its `4 of 5`: the missing ones get the free numbers."""
    planned = int(count.split()[-1]) if re.fullmatch(r"\d+ of \d+", count) else len(values)
    free = (r for r in range(planned + len(values)) if r not in values)
    return sorted([*values, *(next(free) for _ in range(planned - len(values)))])


def _value(text: str) -> Any:
    """A param as it was before MLflow made it a text: a number, a truth value or a list, else the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
