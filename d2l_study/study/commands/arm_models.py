"""The models that MLflow holds of a study: of each arm that of its best trial, where its weights are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from d2l_study.errors import UserError
from d2l_study.study.commands.found_model import whole_record, write_found_model
from d2l_study.study.ledger.best_weights import best_of_arms
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.mlflow.configuration_page import run_name
from d2l_study.study.mlflow.logged_models import ModelContent
from d2l_study.study.mlflow.study_models import StudyModels
from d2l_study.study.trial.model_reference import find_models
from d2l_study.study.trial.stored_models import choose_replicate


def arm_models(folder: StudyFolder, rows: Sequence[Mapping[str, Any]]) -> StudyModels:
    """The models of a study. rows: as of `StudyFolder.rows`. Weights are read only when a model is made."""
    plan, best = folder.plan(), best_of_arms(folder, rows)
    entries = {entry["config_id"]: entry for entry in plan}
    contents = []
    for config in dict.fromkeys(best.values()):
        try:
            replicate, choice = choose_replicate(folder.ledger, config, None)
        except UserError:  # its weights are not stored, or it has none
            continue
        entry = entries[config]
        done = sum(row["config_id"] == config and row["status"] == "done" for row in rows)
        contents.append(ModelContent(
            run_name(entry["method"], entry["stage"], entry["values"], entry["varied"]), folder.name, config,
            replicate, partial(_write, folder, config), tuple(arm for arm, own in best.items() if own == config),
            f"{config} r{replicate:03d} of {done}: {choice}", {"method": entry["method"], **entry["values"]},
        ))  # fmt: skip
    return StudyModels(frozenset(str(entry["method"]) for entry in plan), best, contents)


def _write(folder: StudyFolder, config: str, target: Path) -> None:
    """Write the model's folder. The bags that it has seen are not marked, since that reads the whole data set at the
    end of each study; `register` does."""
    (found,) = find_models(config, folder.storage.root)
    write_found_model(target, found, whole_record(found, marks=False), "model")
