"""The artifacts of a configuration's MLflow page, for every command that shows one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from d2l_study.study.ledger.study_folder import StudyFolder


def artifacts_of(
    folder: StudyFolder, config_id: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Callable[[], bytes]]:
    """Name -> how it is made (`run_page.artifacts_of`); what the id stands for is made again where it is lost."""
    from d2l_study.study.mlflow import run_page
    from d2l_study.study.search.restore import read_config

    return run_page.artifacts_of(folder, config_id, rows, read_config)
