"""The models that a user names with `--run`: of a trial, of a folder, or of MLflow's registry.

models = find_models("3fa92c", root="runs")              # of a trial: the replicate that validation chose
models = find_models("3fa92c", root="runs", every=True)  # all its replicates
models = find_models("models/colon-student")             # a folder that `d2l export` wrote
models = find_models("models:/colon@champion")           # a registered model, by alias or version
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_folder import CARD, MODEL, read_model_folder
from d2l_study.learning.prediction import Compute
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.trial.model_record import record_of_run
from d2l_study.study.trial.stored_models import find_model, stored_replicates

REGISTERED = "models:/"


@dataclass(frozen=True)
class FoundModel:
    """A model that was named. loaded: it, with what is known of it; config_id, replicate: of its run, as the file says;
    choice: why this replicate, in words, empty where one was named; root: where its run is, None of a folder."""

    loaded: LoadedModel
    config_id: str
    replicate: int
    choice: str
    root: str | None


def find_models(
    reference: str, root: str | Path = "runs", replicate: int | None = None, tracking_uri: str | None = None,
    every: bool = False, marks: bool = False, device: str = "cpu",
) -> list[FoundModel]:  # fmt: skip
    """The models that a reference names: one, or with `every` all stored replicates of a trial.

    replicate, tracking_uri: as of `find_model`; marks: whether the bags that they were trained on are wanted
    (`record_of_run`), which reads the data set; device: where they score. `UserError` for a reference to nothing, and
    for a damaged model.
    """
    compute = Compute(device)
    of_folder = _folder(reference, tracking_uri, root)
    if of_folder is not None:
        if replicate is not None:
            raise UserError(f"--replicate {replicate}: --run {reference} names one model; leave it out")
        if every:
            raise UserError(f"--ensemble: --run {reference} is one model; expected a trial, whose folds are many")
        stored, record = read_model_folder(of_folder, "--run")
        card = stored.card
        name = reference if reference.startswith(REGISTERED) else of_folder.name
        return [
            FoundModel(LoadedModel(stored, record, name, compute), card.config_id, card.replicate, record.choice, None)
        ]
    numbers = stored_replicates(root, reference, tracking_uri) if every else [replicate]
    ledger = Ledger(open_storage(root))
    found = []
    for number in numbers:
        selected = find_model(root, reference, number, tracking_uri)
        record = record_of_run(ledger, selected.config_id, selected.replicate, selected.choice, marks)
        name = f"{selected.stored.card.stage} {trial_id(selected.config_id)} r{selected.replicate:03d}"
        loaded = LoadedModel(selected.stored, record, name, compute)
        found.append(FoundModel(loaded, selected.config_id, selected.replicate, selected.choice, str(root)))
    return found


def _folder(reference: str, tracking_uri: str | None, root: str | Path) -> Path | None:
    """The folder of a model that a reference means; None if it means a trial."""
    if reference.startswith(REGISTERED):
        raise UserError(f"--run {reference}: not yet")
    path = user_path(reference, "--run")
    if path.name in (CARD, MODEL) and path.is_file():
        path = path.parent
    if path.is_dir() or "/" in reference or "\\" in reference:
        return path
    return None
