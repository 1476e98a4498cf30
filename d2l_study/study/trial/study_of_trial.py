"""The study that a trial belongs to, of those that exist, and where this has its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from d2l_study.errors import DamagedError
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.studies import list_studies
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.data_location import located_content


def study_of_trial(ledger: Ledger, config: str, content: Mapping[str, Any]) -> StudyFolder | None:
    """A study that has a configuration in its plan: that which planned it first, if it is still there; None if no study
    has it. content: of the configuration's `config.json`."""
    first = content.get("study")
    names = (name for name in list_studies(ledger.storage) if name != first)
    if isinstance(first, str) and _has(folder := StudyFolder(ledger.storage, first), config):
        return folder
    return next((folder for name in names if _has(folder := StudyFolder(ledger.storage, name), config)), None)


def where_data_are(ledger: Ledger, config: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a configuration's `config.json` with its data where its study has them now: `config.json` names
    the place at which they were first, and data move."""
    folder = study_of_trial(ledger, config, content)
    if folder is None:
        return {**content}
    return located_content(content, config, folder.resolved_or_empty().get("space") or {}, folder.plan())


def _has(folder: StudyFolder, config: str) -> bool:
    """Whether a study has a configuration; not if its plan is lost or damaged."""
    try:
        return config in folder.planned()
    except (DamagedError, FileNotFoundError):
        return False
