"""The log that a failed run left in its study's folder."""

from __future__ import annotations

from d2l_study.study.ledger.study_folder import StudyFolder

LOG_LINES = 4


def log_tail(folder: StudyFolder, config: str, replicate: int) -> list[str]:
    """The last lines of a failed run's log, at most `LOG_LINES`, without the last one if it only repeats the cause.
    Empty where no failure is recorded."""
    failure = folder.failure(config, replicate)
    if failure is None:
        return []
    lines = [line.rstrip() for line in str(failure.get("log", "")).splitlines() if line.strip()]
    if lines and lines[-1].endswith(str(failure["cause"])):
        lines.pop()
    return lines[-LOG_LINES:]
