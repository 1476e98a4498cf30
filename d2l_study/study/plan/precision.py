"""`resources.precision`: the first trial of a study decides it, by a probe where it is `auto`, and all others keep it.

The number format changes results a little (0.868 against 0.854 in one cell), so that trials which each took the faster
one of their own node would set arms of two formats beside each other. The decision is a file of the study, which the
first to write it decides; commands that go on with the study keep it, on whatever node.

    ROOT/studies/<name>/precision.json   precision, and the device and node that it was probed on
"""

from __future__ import annotations

import itertools
import platform
from typing import Any

from d2l_study.errors import DamagedError, UserError
from d2l_study.study.ledger import records
from d2l_study.study.ledger.storage import read_record
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.space.resources import Resources

PRECISIONS = ("float32", "bfloat16")
AT_ONCE = 64
"""Runs that are looked at before the next ones: nearly always one of the first tells."""


def decided_precision(folder: StudyFolder, shape: tuple[int, ...], device: str) -> str:
    """The precision of a study whose space says `auto`; probed here, for patches of `shape` (C, H, W) on `device`, if
    no trial has decided it. A study of an earlier version, which probed in each trial, keeps that of its first run."""
    if (known := _recorded(folder)) is not None:
        return known
    found, of = _of_first_run(folder), "the study's first run"
    if found is None:
        from d2l_study.learning.precision import faster_precision

        found, of = faster_precision(shape, device), f"a probe on {device}"
    _record(folder, found, of)
    return _recorded(folder) or found


def keep_precision(folder: StudyFolder, precision: str) -> None:
    """Record the precision that a study is told, so that what has only checkpoints goes on in it, wherever that is."""
    if precision in PRECISIONS and _recorded(folder) is None and folder.exists():
        _record(folder, precision, "resources.precision")


def known_precision(folder: StudyFolder) -> str | None:
    """The precision that a study has computed in; None if it has not begun."""
    return (_recorded(folder) or _of_first_run(folder)) if folder.exists() else None


def known_resources(folder: StudyFolder) -> Resources:
    """How a run of a study is computed outside its `run` command: in the precision and with the threads of the study's
    first run, else as its last `run` was told; on a GPU if either was on one, stacked as `run` was told."""
    told = folder.resolved_or_empty().get("space", {}).get("resources") or {}
    of_run = _first_run(folder) or {}
    found = {key: told[key] for key in ("precision", "threads", "pack") if key in told}
    if told.get("gpus") or str(of_run.get("device")).startswith("cuda"):
        found["gpus"] = 1.0
    if (precision := _recorded(folder) or of_run.get("precision")) is not None:
        found["precision"] = precision
    if of_run.get("threads"):
        found["threads"] = int(of_run["threads"])
    return Resources(**found)


def check_precision(folder: StudyFolder, asked: str) -> None:
    """`UserError` if a study that exists has computed in another precision than is asked for now; `auto` asks for
    the one that it has."""
    if asked not in PRECISIONS:
        return
    has = known_precision(folder)
    if has is not None and has != asked:
        raise UserError(
            f"resources.precision: {asked} is not allowed: study {folder.name!r} has computed in {has}, and a table "
            f"would set arms of both beside each other; go on with resources.precision={has} (or auto), or give the "
            "new one a name of its own: --study NEWNAME"
        )


def _key(folder: StudyFolder) -> str:
    return f"{folder.key}/precision.json"


def _record(folder: StudyFolder, precision: str, by: str) -> None:
    """Write the decision, unless another command has written one meanwhile."""
    data = records.encode({"precision": precision, "by": by, "host": platform.node()})
    if not folder.storage.put_if_absent(_key(folder), data) and _recorded(folder) is None:
        folder.storage.put(_key(folder), data)  # what is there is damaged


def _recorded(folder: StudyFolder) -> str | None:
    try:
        found = read_record(folder.storage, _key(folder), "").get("precision")
    except (FileNotFoundError, DamagedError):
        return None
    return found if found in PRECISIONS else None


def _of_first_run(folder: StudyFolder) -> str | None:
    """The precision of the first run that the study itself has committed; None too if its plan is lost."""
    row = _first_run(folder)
    return None if row is None else str(row["precision"])


def _first_run(folder: StudyFolder) -> dict[str, Any] | None:
    """The row of the first run that the study itself has committed, with its precision."""
    runs = ((entry["config_id"], replicate) for entry in folder.plan_or_empty() for replicate in entry["replicates"])
    while some := list(itertools.islice(runs, AT_ONCE)):
        for row in folder.storage.map(lambda run: folder.ledger.row(*run, folder.fresh_of), some):
            if row.get("made_by") == folder.name and row.get("precision") in PRECISIONS:
                return row
    return None
