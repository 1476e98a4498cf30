"""What can be made again of a damaged root: what a configuration's id stands for, from the space of its study."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from d2l_study.errors import DamagedError, UserError
from d2l_study.study.ledger.study_documents import SPACE
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, configurations
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.search.search import Search
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.load import load_space


def content_of(c: Configuration, study: str) -> dict[str, Any]:
    """`config.json`: what the id of a configuration stands for."""
    return {
        "stage": c.stage, "sections": {name: section.to_dict() for name, section in c.sections.items()},
        "base_seed": c.base_seed, "data_checksum": c.data_checksum, "teachers": c.teachers, "study": study,
    }  # fmt: skip


def read_config(folder: StudyFolder, config_id: str) -> dict[str, Any]:
    """What the id of a configuration stands for; made and kept again if it is lost. Empty if its study's space does not
    hold it any more."""
    try:
        return folder.ledger.read_config(config_id)
    except (FileNotFoundError, DamagedError):
        restore_configurations(folder, {config_id})
    try:
        return folder.ledger.read_config(config_id)
    except (FileNotFoundError, DamagedError):
        return {}


def restore_configurations(folder: StudyFolder, wanted: Collection[str]) -> set[str]:
    """Write again what these ids of the study's plan stand for; returns those that its space has. No data are read:
    the plan keeps their checksums."""
    try:
        plan = folder.plan()
        known = stored_configurations(folder, plan)
    except (FileNotFoundError, UserError):  # no plan or space, a damaged one, or one that is not understood any more
        return set()
    planned = {entry["config_id"] for entry in plan}
    found = {c.config_id: c for c in known if c.config_id in wanted and c.config_id in planned}
    for identity, c in found.items():
        folder.ledger.write_config(identity, content_of(c, folder.name))
    return set(found)


def stored_configurations(folder: StudyFolder, plan: list[dict[str, Any]]) -> list[Configuration]:
    """What the space of a study, as its last `run` had it, asks for. FileNotFoundError if it is not there, `UserError`
    if it is damaged or not understood any more."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SPACE
        path.write_bytes(folder.space_text())
        known = folder.resolved().get("space", {})
        space = load_space(path, known.get("overrides", ()), beside=known.get("folder"))
    pairs = {(entry["values"].get("dataset"), entry.get("data_checksum")) for entry in plan}
    one_each = len({dataset for dataset, _ in pairs}) == len(pairs)
    checksum: Checksum = {str(d): str(c) for d, c in pairs} if one_each else DataChecksums()
    return Search(space, folder, checksum).configurations if space.adaptive else configurations(space, checksum)
