"""`search.json` of a study: the definition of its search, and its trials so far (see `study.search.search`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from d2l_study.study.ledger.study_documents import StudyDocuments

DOCUMENT = "search.json"
LOST = (
    "this search cannot go on, since what it asked for is not known; its runs are safe, and a search under another "
    "name (--study NEWNAME) reuses those that it asks for too"
)


def read_document(folder: StudyDocuments) -> dict[str, Any] | None:
    """`definition` and `trials` of the study's search; None if it has none, `DamagedError` if the record is damaged."""
    try:
        return folder.read_document(DOCUMENT, LOST, _problem)
    except FileNotFoundError:
        return None


def _problem(found: Mapping[str, Any]) -> str | None:
    definition = found.get("definition")
    metrics = definition.get("metrics") if isinstance(definition, dict) else None
    sound = isinstance(metrics, list) and metrics and isinstance(found.get("trials"), list)
    return None if sound else "it has no definition with metrics, or no trials"


def still_to_ask(folder: StudyDocuments) -> tuple[int, int]:
    """How many trials of the study's search have not been asked for yet, and of how many runs; 0 without a search."""
    document = read_document(folder)
    if document is None:
        return 0, 0
    space, searches = folder.resolved()["space"], document["definition"]["searches"]
    budget = sum(space["search"]["trials"] if search["distributions"] else 1 for search in searches)
    left = max(0, budget - len(document["trials"]))
    return left, left * int(space["replicates"])


def write_document(folder: StudyDocuments, definition: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> None:
    """Replace the record of the study's search."""
    document = {"version": 1, "definition": definition, "trials": list(trials)}
    folder.write_document(DOCUMENT, document)
