"""Whether the rows of a study are of data without instance labels, so that nothing of instances could be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pandas

NO_INSTANCE_LABELS: Final = "no instance labels"
"""In the place of what could not be measured."""
OF_ONE_CLASS = "instance_accuracy"
"""A metric that test instances of known labels always have, also where all are of one class; attention has it not."""


def lacks_instance_labels(rows: pandas.DataFrame) -> bool:
    """Whether finished runs were measured on instances, and no test instance had a label. False where no run is
    finished, and of rows that do not tell."""
    measured = [name for name in ("instance_auc", OF_ONE_CLASS) if name in rows]
    if OF_ONE_CLASS not in measured:
        return False
    done = rows.loc[rows["status"] == "done", measured]
    return not done.empty and bool(done.isna().all(axis=None))
