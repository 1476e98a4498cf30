"""What failed in a study: cause, attempts, the end of the log, and the command that runs it alone."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from d2l_study.study.folder import StudyFolder

if TYPE_CHECKING:
    import pandas

MOST = 10
LOG_LINES = 4


def show_failures(folder: StudyFolder, rows: pandas.DataFrame, where: str = "") -> None:
    """Print the failed runs of a study's rows, those of one configuration and cause together."""
    failed = rows[rows["status"] == "failed"]
    print(f"\n{len(failed)} run{'s' if len(failed) > 1 else ''} failed:")
    groups = list(failed.groupby(["trial_id", "cause"], sort=False))
    for (trial, cause), group in groups[:MOST]:
        numbers = ", ".join(str(r) for r in group["replicate"])
        print(f"  {trial} ({group['method'].iloc[0]}), replicates {numbers}: {cause}")
        first = group.iloc[0]
        for line in log_tail(folder, first["config_id"], int(first["replicate"])):
            print(f"      {line}")
        command = ["python", "-m", "d2l_study", "trial", "--id", trial, "--replicate", str(first["replicate"])]
        print(f"    alone: {shlex.join(command)}{where}")
    if len(groups) > MOST:
        print(f"  … and {len(groups) - MOST} more")
    print(f"  logs: {folder.storage.shown(f'{folder.key}/failures')}")


def log_tail(folder: StudyFolder, config: str, replicate: int) -> list[str]:
    """The last lines of a failed run's log, without the last one if it only repeats the cause."""
    failure = folder.failure(config, replicate)
    if failure is None:
        return []
    lines = [line.rstrip() for line in str(failure.get("log", "")).splitlines() if line.strip()]
    if lines and lines[-1].endswith(str(failure["cause"])):
        lines.pop()
    return lines[-LOG_LINES:]
