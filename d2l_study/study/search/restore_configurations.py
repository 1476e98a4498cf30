"""`config.json`: what a configuration's id stands for. It is made again from the space of the study if it is lost."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from d2l_study import SCIENCE_VERSION as LATEST
from d2l_study.errors import DamagedError, UserError
from d2l_study.learning.science_version import FIRST
from d2l_study.study.ledger.ledger import config_id
from d2l_study.study.ledger.storage import short_path
from d2l_study.study.ledger.study_documents import SPACE
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.configurations import Checksum, configurations
from d2l_study.study.plan.data_checksums import DataChecksums
from d2l_study.study.search.search import Search
from d2l_study.study.space.configuration import Configuration
from d2l_study.study.space.load import load_space


def config_content(c: Configuration, study: str) -> dict[str, Any]:
    """The content of `config.json`. study: the name of the study that writes it."""
    return {
        "stage": c.stage, "sections": {name: section.to_dict() for name, section in c.sections.items()},
        "base_seed": c.base_seed, "data_checksum": c.data_checksum, "teachers": c.teachers, "study": study,
    }  # fmt: skip


def read_config(folder: StudyFolder, config_id: str) -> dict[str, Any]:
    """The content of a configuration's `config.json`, which is written again if it is lost or damaged. Empty if the
    space of the study does not hold the configuration any more."""
    try:
        return folder.ledger.read_config(config_id)
    except (FileNotFoundError, DamagedError):
        restore_configurations(folder, {config_id})
    try:
        return folder.ledger.read_config(config_id)
    except (FileNotFoundError, DamagedError):
        return {}


def restore_configurations(folder: StudyFolder, wanted: Collection[str]) -> set[str]:
    """Write `config.json` of these config_ids again, if they are in the study's plan and space; returns these. The plan
    holds the checksums of the data, which are read only where a length in epochs asks how many bags are given."""
    try:
        plan = folder.plan()
        known = configurations_of_study(folder, plan)
    except (FileNotFoundError, UserError):  # no plan or space, a damaged one, or one that is not understood any more
        return set()
    planned = {entry["config_id"]: entry for entry in plan}
    found = {
        identity: c for c in known for identity in _ids_of_all_versions(c) if identity in wanted and identity in planned
    }
    for identity, c in found.items():
        teachers = (planned[identity].get("teacher_id") or "").split(",")  # may have ids of an earlier version, too
        content = config_content(c, folder.name) | {"teachers": [teacher for teacher in teachers if teacher]}
        folder.ledger.write_config(identity, content)
    return set(found)


def _ids_of_all_versions(c: Configuration) -> set[str]:
    """The ids that a configuration has now and had before its science version was raised."""
    identity = {name: section.identity() for name, section in c.sections.items()}
    return {config_id(c.stage, identity, c.data_checksum, c.base_seed, version) for version in range(FIRST, LATEST + 1)}


def configurations_of_study(folder: StudyFolder, plan: list[dict[str, Any]]) -> list[Configuration]:
    """The configurations of a study's space, as its last `run` had it. FileNotFoundError if the space is not there,
    `UserError` if it is damaged or this version does not understand it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / SPACE
        path.write_bytes(folder.space_text())
        known = folder.resolved().get("space", {})
        kept = short_path(folder.storage.shown(f"{folder.key}/{SPACE}"))
        space = load_space(path, known.get("overrides", ()), beside=known.get("folder"), shown=kept)
    space = space.with_places_of(known)  # a path of `--set` began at the folder in which `run` was given
    pairs = {(entry["values"].get("dataset"), entry.get("data_checksum")) for entry in plan}
    one_each = len({dataset for dataset, _ in pairs}) == len(pairs)
    checksum: Checksum = {str(d): str(c) for d, c in pairs} if one_each else DataChecksums()
    return Search(space, folder, checksum).configurations if space.adaptive else configurations(space, checksum)
