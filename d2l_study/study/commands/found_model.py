"""A model that was named, as a folder that travels: with its record, and the page that tells people of it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from d2l_study import __version__
from d2l_study.errors import DamagedError
from d2l_study.inference.model_card import NO_LICENCE, model_card
from d2l_study.inference.model_folder import ModelRecord, write_model_folder
from d2l_study.study.commands.metric_intervals import summary_of
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.trial.model_record import record_of_run
from d2l_study.study.trial.model_reference import FoundModel

NEEDED = ("torch", "numpy", "safetensors")
"""What loading and scoring needs beside this package."""


def whole_record(found: FoundModel, marks: bool = True) -> ModelRecord:
    """What is known of a model's training, with the intervals of its metrics. marks: whether the bags that it has seen
    are marked, for which its data set is read."""
    if found.root is None:
        return found.loaded.record
    ledger = Ledger(open_storage(found.root))
    return record_of_run(ledger, found.config_id, found.replicate, found.choice, marks=marks, summary_of=summary_of)


def write_found_model(
    folder: Path, found: FoundModel, record: ModelRecord, name: str, licence: str = NO_LICENCE
) -> None:
    """Write the folder of a model into one that is there. record: as of `whole_record`; name: of the folder."""
    stored, needs = found.loaded.stored, requirements()
    text = model_card(stored, record, name, needs, licence, _description(found))
    write_model_folder(folder, stored, record, text, needs)


def requirements() -> dict[str, str]:
    """Package -> version that loading and scoring needs, as they are here."""
    found = {"d2l-study": __version__}
    return found | {name: metadata.version(name).split("+")[0] for name in NEEDED}


def _description(found: FoundModel) -> str:
    """What the study says of itself, where it is here."""
    if found.root is None:
        return ""
    folder = StudyFolder(open_storage(found.root), found.loaded.stored.card.study)
    try:
        return str(folder.resolved().get("space", {}).get("description") or "")
    except (OSError, DamagedError, ValueError):
        return ""
