"""The predictions that the runs of a study kept, of bags and instances."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.rows.loading import study_folder
from analysis.rows.metrics import LEVELS
from d2l_study.errors import UserError, listed, nearest
from d2l_study.study.ledger.run_files import PREDICTIONS

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

SPLITS = ("val", "test")


def load_predictions(
    study: str | Path,
    root: str | Path = "runs",
    *,
    split: str | None = None,
    level: str | None = None,
    **where: Any,
) -> pandas.DataFrame:
    """The stored predictions of the runs that are done, of one cell or of one run.

    `where` selects runs by the columns of `load`, for example `method="vat", num_bags=50, replicate=0`; of a list of
    values any.
    Columns: config_id, method, replicate, stage, split (val | test), level (bag | instance), bag_index, index,
    label (0, 1 or missing; of bags before label noise), seen_label (of bags, as training saw it; not in files of
    earlier versions), logit (of the probability of the positive class); of given bags also group (patient or the
    like, its number in the data set; not in files of earlier versions). UserError if a name is not known, no finished
    run matches, or a run kept no predictions.
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
        several = value if isinstance(value, list | tuple) else [value]
        chosen = chosen[chosen[key].isin(several)]
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
