"""The rows of studies, one per run, from wherever they are: a study's folder, an exported file, or an MLflow store."""

from __future__ import annotations

import bisect
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.rows.display_names import LABELS, joined_labels, valid_labels, with_labels
from analysis.rows.exported_files import SUFFIXES as EXPORT_SUFFIXES
from analysis.rows.exported_files import load_file
from analysis.rows.labels_used import with_labels_used
from analysis.rows.mixed_columns import without_mixed_columns
from analysis.rows.repeated_runs import unlike_rows
from analysis.rows.study_folders import FOLDERS, with_own_names
from d2l_study.environment import user_path
from d2l_study.errors import DamagedError, UserError, listed
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study_names import can_be_folder

if TYPE_CHECKING:
    import pandas

SPLITS = ("val", "test")
MLFLOW = "mlflow:"


def load(
    study: str | Path | Sequence[str | Path],
    root: str | Path = "runs",
    *,
    tracking_uri: str | None = None,
    labels: Mapping[str, str] | None = None,
) -> pandas.DataFrame:
    """The rows of one or several studies, one per planned run, whatever its status (done, failed, missing, pruned).

    study: a name under `root`, a study's folder, an exported `.parquet` or `.csv` file, or `mlflow:URI#NAME` (without
        `#NAME` where the store holds one study); or a list of those
    tracking_uri: an MLflow store in which names are looked up instead of under `root`; nothing else is read
    labels: names for print of arms, keys and metrics, such as {"none": "Attention MIL"}, over those of the space

    Keys that are a number in one place and a text in another are texts, and so are lists.
    Studies of one name in several roots are told apart by the ends of their roots: `old_runs/vat_quick`.
    `attrs["study"]` holds the name (or names) and `attrs["varied"]` the keys that vary. UserError if there is no such
    study or its plan is empty.
    """
    names = [study] if isinstance(study, str | Path) else [*study]
    if not names:
        raise UserError("no study was named")
    frames = with_own_names([_load_one(str(name), root, tracking_uri) for name in names])
    frame = frames[0] if len(frames) == 1 else _concatenated(frames, [str(name) for name in names])
    return with_labels(frame, labels) if labels else frame


def _concatenated(frames: Sequence[pandas.DataFrame], names: Sequence[str]) -> pandas.DataFrame:
    """The rows of several studies under each other. names: what they were read from. UserError where two of them have
    unlike rows of one run of one study, which no name would tell apart."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    frame = pd.concat([one.dropna(axis="columns", how="all") for one in frames], ignore_index=True)
    order = dict.fromkeys(column for one in frames for column in one.columns)
    for column in order:  # a column that all studies leave empty, of numbers where one of them says so
        if column not in frame:
            numeric = any(column in one and is_numeric_dtype(one[column]) for one in frames)
            frame[column] = math.nan if numeric else None
    frame = without_mixed_columns(frame[[*order]])
    if unlike := unlike_rows(frame, by_study=True):
        ends = list(itertools.accumulate(map(len, frames)))
        one, other = (names[bisect.bisect_right(ends, place)] for place in unlike.places)
        study = str(frame["study"].iloc[unlike.places[0]])
        raise UserError(f"{one} and {other}: rows of run {unlike.run} of study {study!r} differ ({unlike.text}); "
                        "expected equal rows, or another name of the study in one of them (column study)")  # fmt: skip
    frame.attrs = {**_joined_attributes([one.attrs for one in frames]), **joined_labels(frames)}
    return frame


def _load_one(name: str, root: str | Path, tracking_uri: str | None) -> pandas.DataFrame:
    return with_labels_used(without_mixed_columns(_stored_rows(name, root, tracking_uri)))


def _stored_rows(name: str, root: str | Path, tracking_uri: str | None) -> pandas.DataFrame:
    if name.startswith(MLFLOW) or tracking_uri is not None:
        from analysis.rows.mlflow_rows import load_from_mlflow

        uri, _, study = name.removeprefix(MLFLOW).partition("#") if name.startswith(MLFLOW) else ("", "", name)
        uri = uri or tracking_uri or ""
        if not uri:
            raise UserError(
                f"{name}: names no store; expected mlflow:URI#NAME, for example mlflow:http://HOST:5000#NAME"
            )
        return load_from_mlflow(uri, study or None)
    path = user_path(name, "STUDY")
    if path.suffix.lower() in EXPORT_SUFFIXES and not _older_study(name, path, root):
        return load_file(path)
    folder = study_folder(name, root)
    frame = folder.rows()
    if frame.empty:
        raise UserError(f"study {frame.attrs.get('study', name)!r} has no runs in its plan")
    frame.attrs[FOLDERS] = {folder.name: str(folder.storage.root)}
    if labels := labels_of(folder, map(str, frame.columns)):
        frame.attrs[LABELS] = labels
    return frame


def labels_of(folder: StudyFolder, columns: Iterable[str] = ()) -> dict[str, str]:
    """The names for print that a study's space gives; none where its record is damaged, which others say."""
    try:
        return valid_labels(folder.resolved().get("space", {}).get("labels"), columns)
    except DamagedError:
        return {}


def study_folder(name: str, root: str | Path = "runs") -> StudyFolder:
    """A study by its name under the root, or by its folder; UserError if there is none."""
    path = user_path(name, "STUDY")
    exported = path.suffix.lower() in EXPORT_SUFFIXES and not _older_study(name, path, root)
    if exported or name.startswith(MLFLOW):
        raise UserError(
            f"{name}: this needs a study's folder, which holds more than its rows; expected its name or folder"
        )
    if "/" in name and path.is_dir() and not (path / "plan.json").is_file():
        found = sorted(one.parent.name for one in path.glob("studies/*/plan.json"))
        hint = f"; it is a root of studies, name one with --root {name}: {listed(found)}" if found else ""
        raise UserError(f"{name}: this folder is no study, it holds no plan.json{hint}")
    return find_study(name, str(root))


def _older_study(name: str, path: Path, root: str | Path) -> bool:
    """Whether a name that ends like a file is that of a study, or its folder, from before there was a rule of names."""
    if os.path.lexists(path):  # unlike Path's, it raises for no name
        return os.path.isfile(path / "plan.json")  # noqa: PTH113
    return can_be_folder(name) and StudyFolder(open_storage(root), name).exists()


def _joined_attributes(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The attributes of several studies as those of one."""
    attrs: dict[str, Any] = {"study": listed(dict.fromkeys(one.get("study", "") for one in found))}
    if all("varied" in one for one in found):
        attrs["varied"] = sorted({key for one in found for key in one["varied"]})
    searches = [one["search"] for one in found if "search" in one]
    if searches:
        attrs["search"] = {"metric": searches[0]["metric"], "oracle": any(one["oracle"] for one in searches)}
    attrs[FOLDERS] = {name: place for one in found for name, place in one.get(FOLDERS, {}).items()}
    return attrs
