"""The notes of MLflow's pages: what a reader sees there, in a few lines of Markdown.

A note that a person has written stays.
"""

from __future__ import annotations

NOTE = "mlflow.note.content"
"""The tag that MLflow shows as the description of a run or an experiment."""

_METRICS = "`bag_auc`, `instance_auc` and others are means over its replicates on test bags, `val_…` on validation bags"

EXPERIMENT = (
    f"Each run is one configuration: {_METRICS}. The run that has the name of the study holds its report "
    "(*Artifacts*, `report.html`)."
)
STUDY = (
    "The study as a whole. Its report is `report.html` under *Artifacts*. Its child runs are the configurations, with "
    "their test metrics.\n\n"
    "`best_val_bag_auc/ARM`: the highest mean validation AUC of a configuration of the arm."
)
CONFIGURATION = (
    "One configuration, trained in several replicates.\n\n"
    f"- {_METRICS}.\n"
    "- `…_std`: the standard deviation over replicates. `…/r003`: replicate 3 alone.\n"
    "- `curve/…`: values during training, by optimizer step."
)
_LEARNED = "Learned from ["


def configuration_note(teacher: str = "", link: str = "") -> str:
    """The note of a configuration. teacher, link: name and page of the run that a student learned from."""
    return f"{_LEARNED}{teacher}]({link}).\n\n{CONFIGURATION}" if teacher else CONFIGURATION


def is_ours(note: str) -> bool:
    """Whether a note is none, or one that this module or an earlier version wrote."""
    return not note or note.startswith((_LEARNED, CONFIGURATION.partition("\n")[0], STUDY.partition("\n")[0]))
