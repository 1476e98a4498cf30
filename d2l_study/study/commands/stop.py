"""`stop`: end a running study cleanly, from any terminal or machine."""

from __future__ import annotations

from d2l_study.credentials import masked
from d2l_study.study.commands.status import run_counts
from d2l_study.study.ledger.lease import ask_to_stop, holder
from d2l_study.study.ledger.search_document import still_to_ask
from d2l_study.study.ledger.studies import find_study


def stop_study(study: str, root: str, wait_seconds: float = 180.0) -> int:
    """Ask the driver of a study, wherever it runs, to end it cleanly, and wait until it has.

    Returns the exit code: 1 if the study has not ended after `wait_seconds`.
    """
    folder = find_study(study, root)
    driver = holder(folder)
    if driver is None:
        print(f"{folder.name}: nobody is at work on it")
        return 0
    print(f"{folder.name}: asking process {driver['pid']} on {driver['host']} to end it …", flush=True)
    if not ask_to_stop(folder, driver, wait_seconds):
        print(f"{folder.name}: it has not ended after {wait_seconds:g} s; it is still asked to")
        return 1
    counts = run_counts(folder)
    print(f"{folder.name}: stopped, {counts['done']} of {sum(counts.values())} runs done")
    command = folder.resolved().get("provenance", {}).get("command")
    if (counts["missing"] or still_to_ask(folder)[0]) and command:
        print(f"  to go on: {masked(command)}")
    return 0
