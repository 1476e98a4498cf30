"""Stored results as tables: the rows of a study (one per run) and the predictions behind them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2l_study.errors import UserError, listed, nearest
from d2l_study.study.folder import find_study

if TYPE_CHECKING:
    import pandas

PREDICTIONS = "predictions.parquet"
SPLITS = ("val", "test")
LEVELS = ("bag", "instance")
EXPORT_SUFFIXES = (".parquet", ".csv")


def load(study: str | Path, root: str | Path = "runs") -> pandas.DataFrame:
    """The rows of a study, one per planned run, whatever its status (done, failed, missing, pruned).

    `study` is a name under `root` or the study's folder. `attrs["study"]` holds the name and
    `attrs["varied"]` the keys that vary. UserError if there is no such study or its plan is empty.
    """
    frame = find_study(str(study), str(root)).rows()
    if frame.empty:
        raise UserError(f"study {frame.attrs.get('study', study)!r} has no runs in its plan")
    return frame


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
    label (0, 1 or missing), logit (of the probability of the positive class). UserError if a name is not
    known, no finished run matches, or a run kept no predictions.
    """
    import pandas as pd

    for name, value, allowed in (("split", split, SPLITS), ("level", level, LEVELS)):
        if value is not None and value not in allowed:
            raise UserError(f"{name}: {value!r} is not allowed; expected {' or '.join(allowed)}")
    folder = find_study(str(study), str(root))
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
        try:
            data = folder.ledger.read_file(run["config_id"], int(run["replicate"]), PREDICTIONS)
        except (KeyError, FileNotFoundError):
            name = f"{run['config_id'][:10]} r{int(run['replicate']):03d}"
            raise UserError(f"study {folder.name!r}: run {name} kept no {PREDICTIONS}") from None
        part = pd.read_parquet(io.BytesIO(data))
        if split is not None:
            part = part[part["split"] == split]
        if level is not None:
            part = part[part["level"] == level]
        part.insert(0, "config_id", run["config_id"])
        part.insert(1, "method", run["method"])
        parts.append(part)
    return pd.concat(parts, ignore_index=True)


def export(rows: pandas.DataFrame, out: str | Path) -> Path:
    """Write the rows as they are to a .parquet or .csv file; returns its path."""
    path = writable_path(out, EXPORT_SUFFIXES)
    try:
        if path.suffix.lower() == ".csv":
            rows.to_csv(path, index=False)
        else:
            rows.to_parquet(path, index=False)
    except OSError as error:
        raise UserError(f"--out {path}: cannot write there: {error.strerror or error}") from None
    return path


def writable_path(out: str | Path, suffixes: tuple[str, ...] = ()) -> Path:
    """The path; UserError for another suffix than those allowed, or a folder that is not there."""
    path = Path(out).expanduser()
    if suffixes and path.suffix.lower() not in suffixes:
        found = f"the suffix {path.suffix!r}" if path.suffix else "no suffix"
        raise UserError(f"--out {out}: {found} is not allowed; expected {listed(suffixes)}")
    if path.is_dir():
        raise UserError(f"--out {out}: this is a folder; a file name is needed")
    if not path.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {path.parent}")
    return path
