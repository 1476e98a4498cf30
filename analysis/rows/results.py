"""Stored results as tables: the rows of a study (one per run) and the predictions behind them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.rows.csv_text import to_csv
from analysis.rows.display_names import LABELS, checked, joined, with_labels
from analysis.rows.exported_rows import SUFFIXES as EXPORT_SUFFIXES
from analysis.rows.exported_rows import load_file
from analysis.rows.metrics import LEVELS
from d2l_study.environment import user_path
from d2l_study.errors import DamagedError, UserError, listed, nearest
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.run_files import PREDICTIONS
from d2l_study.study.ledger.studies import find_study
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study_names import can_be_folder

if TYPE_CHECKING:
    import pandas

SPLITS = ("val", "test")
MLFLOW = "mlflow:"
FOLDERS = "folders"
"""The attribute that says where the studies of loaded rows lie, study -> root; predictions are read from there."""


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

    `attrs["study"]` holds the name (or names) and `attrs["varied"]` the keys that vary. UserError if there is no such
    study or its plan is empty.
    """
    names = [study] if isinstance(study, str | Path) else [*study]
    if not names:
        raise UserError("no study was named")
    frames = [_load_one(str(name), root, tracking_uri) for name in names]
    frame = frames[0] if len(frames) == 1 else _joined(frames)
    return with_labels(frame, labels) if labels else frame


def _joined(frames: Sequence[pandas.DataFrame]) -> pandas.DataFrame:
    """The rows of several studies under each other."""
    import pandas as pd

    frame = pd.concat([one.dropna(axis="columns", how="all") for one in frames], ignore_index=True)
    order = dict.fromkeys(column for one in frames for column in one.columns)
    for column in order:  # a column that all studies leave empty
        if column not in frame:
            frame[column] = None
    frame = frame[[*order]]
    frame.attrs = {**_together([one.attrs for one in frames]), **joined(frames)}
    return frame


def _load_one(name: str, root: str | Path, tracking_uri: str | None) -> pandas.DataFrame:
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
        return checked(folder.resolved().get("space", {}).get("labels"), columns)
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


def _together(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The attributes of several studies as those of one."""
    attrs: dict[str, Any] = {"study": listed(dict.fromkeys(one.get("study", "") for one in found))}
    if all("varied" in one for one in found):
        attrs["varied"] = sorted({key for one in found for key in one["varied"]})
    searches = [one["search"] for one in found if "search" in one]
    if searches:
        attrs["search"] = {"metric": searches[0]["metric"], "oracle": any(one["oracle"] for one in searches)}
    attrs[FOLDERS] = {name: place for one in found for name, place in one.get(FOLDERS, {}).items()}
    return attrs


def load_predictions(
    study: str | Path,
    root: str | Path = "runs",
    *,
    split: str | None = None,
    level: str | None = None,
    **where: Any,
) -> pandas.DataFrame:
    """The stored predictions of the runs that are done, of one cell or of one run.

    `where` selects runs by the columns of `load`, for example `method="vat", num_bags=50, replicate=0`.
    Columns: config_id, method, replicate, stage, split (val | test), level (bag | instance), bag_index, index,
    label (0, 1 or missing; of bags before label noise), seen_label (of bags, as training saw it; not in files of
    earlier versions), logit (of the probability of the positive class). UserError if a name is not
    known, no finished run matches, or a run kept no predictions.
    """
    import pandas as pd

    for name, value, allowed in (("split", split, SPLITS), ("level", level, LEVELS)):
        if value is not None and value not in allowed:
            raise UserError(f"{name}: {value!r} is not allowed; expected {' or '.join(allowed)}")
    folder = study_folder(str(study), root)
    rows = folder.rows()
    for key in where:
        if key not in rows:
            raise UserError(f"{key}: no such column in study {folder.name!r}{nearest(key, rows.columns)}")
    chosen = rows[rows["status"] == "done"]
    for key, value in where.items():
        chosen = chosen[chosen[key] == value]
    if chosen.empty:
        wanted = listed(f"{key}={value}" for key, value in where.items()) or "any"
        raise UserError(f"study {folder.name!r} has no finished run with {wanted}")
    # One configuration may stand in two arms: its runs are then listed, and returned, for each.
    parts = []
    for run in chosen[["config_id", "method", "replicate"]].to_dict("records"):
        part = run_predictions(folder, run["config_id"], int(run["replicate"]), split=split, level=level)
        part.insert(0, "config_id", run["config_id"])
        part.insert(1, "method", run["method"])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def run_predictions(
    folder: StudyFolder, config_id: str, replicate: int, *, split: str | None = None, level: str | None = None
) -> pandas.DataFrame:
    """The stored predictions of one finished run, columns as of `load_predictions` without the first two. UserError
    if it kept none."""
    import pandas as pd

    try:
        data = folder.read_file(config_id, replicate, PREDICTIONS)
    except (KeyError, FileNotFoundError):
        raise UserError(f"study {folder.name!r}: run {config_id[:10]} r{replicate:03d} kept no {PREDICTIONS}") from None
    part = pd.read_parquet(io.BytesIO(data))
    if split is not None:
        part = part[part["split"] == split]
    if level is not None:
        part = part[part["level"] == level]
    return part


def folders_of(rows: pandas.DataFrame) -> dict[str, StudyFolder]:
    """The folders of loaded rows by study; UserError where they came from a file or MLflow, without predictions."""
    places = rows.attrs.get(FOLDERS) or {}
    if not places:
        raise UserError("predictions are in a study's folder; these rows came from a file or from MLflow alone")
    return {name: StudyFolder(open_storage(root), name) for name, root in places.items()}


def export(rows: pandas.DataFrame, out: str | Path) -> Path:
    """Write the rows as they are to a .parquet or .csv file; returns its path."""
    path = writable_path(out, EXPORT_SUFFIXES)
    rows = rows.copy(deep=False)
    rows.attrs = {key: value for key, value in rows.attrs.items() if key != FOLDERS}  # the folders of this machine
    try:
        if path.suffix.lower() == ".csv":
            path.write_text(to_csv(rows), encoding="utf-8")
        else:
            rows.to_parquet(path, index=False)
    except OSError as error:
        raise UserError(f"--out {path}: cannot write there: {error.strerror or error}") from None
    return path


def writable_path(out: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """The path; UserError for another suffix than those allowed, or a folder that is not there."""
    path = user_path(out, "--out")
    if path.is_dir():
        raise UserError(f"--out {out}: this is a folder; a file name is needed")
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"the suffix {path.suffix!r} is not allowed" if path.suffix else "a suffix is missing"
        raise UserError(f"--out {out}: {found}; expected {listed(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {path.parent}")
    return path
