"""The artifacts of a configuration's MLflow page, for every command that writes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from d2l_study.study.ledger.study_folder import StudyFolder


def artifacts_of(
    folder: StudyFolder, config_id: str, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Callable[[], bytes]]:
    """Name -> a function that makes it (`study.mlflow.artifacts`). `config.json` is made again if it is lost."""
    from d2l_study.study.mlflow import artifacts
    from d2l_study.study.search.restore_configurations import read_config

    return artifacts.artifacts_of(folder, config_id, rows, read_config)
