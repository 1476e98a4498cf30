"""What `run` prints of failed runs (cause, end of the log, the command that runs one alone) and undefined metrics."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from d2l_study.command_line import command_text
from d2l_study.errors import listed
from d2l_study.study.ledger.failures import log_tail
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS, lacks_instance_labels
from d2l_study.study.ledger.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas

MOST_SHOWN = 10


def show_failures(folder: StudyFolder, rows: pandas.DataFrame, where: str = "") -> None:
    """Print the failed runs of a study, those of one configuration and cause together. rows: of the study; where: the
    option `--root`, if it is needed."""
    failed = rows[rows["status"] == "failed"]
    print(f"\n{len(failed)} run{'s' if len(failed) > 1 else ''} failed:")
    groups = list(failed.groupby(["trial_id", "cause"], sort=False))
    for (trial, cause), group in groups[:MOST_SHOWN]:
        numbers = ", ".join(str(r) for r in group["replicate"])
        print(f"  {trial} ({group['method'].iloc[0]}), replicates {numbers}: {cause}")
        first = group.iloc[0]
        for line in log_tail(folder, first["config_id"], int(first["replicate"])):
            print(f"      {line}")
        words = shlex.join(["trial", "--id", trial, "--replicate", str(first["replicate"])])
        print(f"    alone: {command_text(words)}{where}")
    if len(groups) > MOST_SHOWN:
        print(f"  … and {len(groups) - MOST_SHOWN} more")
    if any(folder.failure(row["config_id"], int(row["replicate"])) for row in failed.to_dict("records")):
        print(f"  logs: {folder.storage.shown(f'{folder.key}/failures')}")


UNDEFINED_SHOWN = ("bag_auc", "instance_auc")


def show_undefined(rows: pandas.DataFrame) -> None:
    """Print which finished runs have a metric that is not defined, such as the AUC of a test fold with one class.

    Tables leave them out. A metric that no run has gets a line of its own.
    """
    if lacks_instance_labels(rows):
        print(f"\n{NO_INSTANCE_LABELS}: the data have none, so that nothing was measured of single instances")
        rows = rows.drop(columns="instance_auc", errors="ignore")
    done = rows[rows["status"] == "done"]
    for metric in UNDEFINED_SHOWN:
        if metric not in done:
            continue
        # Attention scores instances alone.
        mine = done[done["stage"] != "attention"] if metric == "bag_auc" and "stage" in done else done
        bare = mine[mine[metric].isna()]
        if not len(bare):
            continue
        level = metric.removesuffix("_auc")
        if len(bare) == len(mine):
            print(f"\n{metric} is not defined for any run: no test part has {level}s of both classes")
            continue
        which = sorted({int(r) for r in bare["replicate"]})
        print(
            f"\n{metric} is not defined (NaN) for {len(bare)} of {len(mine)} runs, those of replicate {listed(which)}: "
            f"the test {level}s are of one class; means over runs leave them out"
        )
