"""Where the studies of loaded rows lie, for what rows do not hold: predictions, curves, searches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from d2l_study.errors import UserError
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas

FOLDERS = "folders"
"""The attribute of loaded rows: study -> the root that holds it. Rows of a file or of MLflow do not have it."""


def folders_of(rows: pandas.DataFrame) -> dict[str, StudyFolder]:
    """The folders of loaded rows by study; UserError where they came from a file or MLflow, without predictions."""
    places = rows.attrs.get(FOLDERS) or {}
    if not places:
        raise UserError("predictions are in a study's folder; these rows came from a file or from MLflow alone")
    return {name: StudyFolder(open_storage(root), name) for name, root in places.items()}


def folders_by_config(rows: pandas.DataFrame) -> dict[str, StudyFolder]:
    """config_id -> the folder of a study that holds its runs; of several studies the first in which one is finished.
    UserError as of `folders_of`."""
    folders = folders_of(rows)
    finished_first = rows.iloc[(rows["status"] != "done").to_numpy().argsort(kind="stable")]
    first = finished_first.drop_duplicates("config_id")
    return {str(c): folders[str(s)] for c, s in zip(first["config_id"], first["study"], strict=True)}
