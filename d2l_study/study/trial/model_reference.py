"""The models that a user names with `--run`: of a trial, of a folder, or of MLflow's registry.

models = find_models("3fa92c", root="runs")              # of a trial: the replicate that validation chose
models = find_models("3fa92c", root="runs", every=True)  # all its replicates
models = find_models("models/colon-student")             # a folder that `d2l export` wrote
models = find_models("models:/colon@champion")           # a registered model, by alias or version
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from d2l_study.errors import UserError
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_folder import folder_name, named_folder, read_model_folder
from d2l_study.learning.prediction import Compute
from d2l_study.study.ledger.ledger import Ledger, trial_id
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.mlflow.registry import SCHEME, registered_folder
from d2l_study.study.trial.model_record import record_of_run
from d2l_study.study.trial.stored_models import SelectedModel, find_model, stored_replicates


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
    if names_one_model(reference):
        if replicate is not None:
            raise UserError(f"--replicate {replicate}: --run {reference} names one model; leave it out")
        if every:
            raise UserError(f"--ensemble: --run {reference} is one model; expected a trial, whose folds are many")
        with _folder(reference, tracking_uri, root) as folder:
            stored, record = read_model_folder(folder, "--run")
        card = stored.card
        name = reference if reference.startswith(SCHEME) else folder_name(folder)
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


def select_model(
    reference: str, root: str | Path = "runs", replicate: int | None = None, tracking_uri: str | None = None
) -> SelectedModel:  # fmt: skip
    """The one model that a reference names, without what is known of its training. Arguments and errors: as of
    `find_models`."""
    if not names_one_model(reference):
        return find_model(root, reference, replicate, tracking_uri)
    (found,) = find_models(reference, root, replicate, tracking_uri)
    choice = found.choice or "as it was saved"
    return SelectedModel(found.config_id, found.replicate, choice, found.loaded.stored)


def names_one_model(reference: str) -> bool:
    """Whether a reference is a model's folder, or a model in MLflow, and no trial, of which there may be several."""
    return reference.startswith(SCHEME) or named_folder(reference, "--run") is not None


@contextlib.contextmanager
def _folder(reference: str, tracking_uri: str | None, root: str | Path) -> Iterator[Path]:
    """The folder of the one model that a reference names."""
    if reference.startswith(SCHEME):
        with registered_folder(reference, tracking_uri, root) as folder:
            yield folder
        return
    named = named_folder(reference, "--run")
    assert named is not None
    yield named
