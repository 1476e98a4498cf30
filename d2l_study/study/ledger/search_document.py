"""`search.json` of a study: the definition of its search, and its trials so far (see `study.search.search`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from d2l_study.study.ledger.study_documents import StudyDocuments

DOCUMENT = "search.json"
IN_PLAN = ("grid", "random")
"""Methods whose points are all known beforehand."""

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
    """How many trials of the study's search have not been asked for yet, and of how many runs.

    0 without a search, and of one whose points are all in the plan; 0 also where the space has no search any more (`run
    --extend`), or is not known."""
    document, space = read_document(folder), folder.resolved().get("space") or {}
    search = space.get("search")
    if document is None or not search or document["definition"].get("method") in IN_PLAN:
        return 0, 0
    budget = sum(search["trials"] if one["distributions"] else 1 for one in document["definition"]["searches"])
    left = max(0, budget - len(document["trials"]))
    return left, left * int(space["replicates"])


def write_document(folder: StudyDocuments, definition: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> None:
    """Replace the record of the study's search."""
    document = {"version": 1, "definition": definition, "trials": list(trials)}
    folder.write_document(DOCUMENT, document)
