"""`register`: make a trained model a version of a name in MLflow's registry, and set an alias on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from d2l_study.credentials import masked
from d2l_study.errors import UserError
from d2l_study.inference.model_folder import MODEL, ModelRecord
from d2l_study.study.commands.found_model import whole_record, write_found_model
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.mlflow.address import artifact_location, check_uri, client, one_line, resolve_uri
from d2l_study.study.mlflow.logged_models import (
    KNOWN,
    ModelContent,
    delete_model,
    file_digest,
    find_logged_models,
    is_ready,
    log_model,
    metric_tags,
    versions_of,
)
from d2l_study.study.mlflow.registry import SCHEME, Registration, check_name, register_version
from d2l_study.study.mlflow.tags import (
    ARMS,
    CONFIG,
    MADE_FROM,
    REPLICATE,
    SEEN,
    STUDY,
    TRIAL,
    WEIGHTS_DIGEST,
    tag_filter,
)
from d2l_study.study.trial.model_reference import FoundModel, find_models

EXPERIMENT = "d2l models"
"""Where models are whose configuration has no run in the store, such as those of a folder."""


@dataclass(frozen=True)
class RegisterOptions:
    """The options of `register`, by their names on the command line."""

    run: str
    name: str
    alias: str | None = None
    root: str = "runs"
    replicate: int | None = None
    tracking_uri: str | None = None


def run_register(options: RegisterOptions) -> int:
    """Register the model, and print its version and how to load it. Returns the exit code. `UserError` for what is
    wrong with the options or the model, and for a store that does not take it."""
    check_name(options.name, options.alias)
    (found,) = find_models(options.run, options.root, options.replicate, options.tracking_uri)
    card = found.loaded.stored.card
    uri = resolve_uri(options.tracking_uri, options.root)
    check_uri(uri)
    print(f"model:    {card.stage} {found.config_id[:10]} of study {card.study}, replicate {found.replicate}"
          + (f", {found.choice}" if found.choice else ""), flush=True)  # fmt: skip
    record = whole_record(found)
    store = client(uri)
    try:
        model, where = _logged(store, uri, found, record)
        print(f"logged:   {model.model_id}, {where}", flush=True)
        done = register_version(store, options.name, model, _version_tags(found, record), options.alias)
    except UserError:
        raise
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"tracking URI {masked(uri)!r}: {masked(one_line(error))}") from None
    _show(options, uri, done, record)
    return 0


def _show(options: RegisterOptions, uri: str, done: Registration, record: ModelRecord) -> None:
    print(f"version:  {options.name} {done.version}" + (", which was this model already" if done.existed else ", new"))
    if options.alias is not None:
        before = "" if done.before is None else f", was on version {done.before}"
        there = done.before == done.version
        print(f"alias:    {options.alias}" + (", as before" if there else before))
    if record.trained_on is None:
        print("note:     its data set is not here as it was trained on: the model does not say which bags it saw")
    reference = f"{SCHEME}{options.name}" + (f"/{done.version}" if options.alias is None else f"@{options.alias}")
    print(f"uri:      {reference}")
    print(f'load:     import mlflow; mlflow.set_tracking_uri("{masked(uri)}")')
    print(f'          model = mlflow.pyfunc.load_model("{reference}")')


def _version_tags(found: FoundModel, record: ModelRecord) -> dict[str, object]:
    card = found.loaded.stored.card
    return {
        STUDY: card.study, TRIAL: trial_id(found.config_id), CONFIG: found.config_id, REPLICATE: found.replicate,
        "d2l.stage": card.stage, **metric_tags(record),
    }  # fmt: skip


def _logged(store: Any, uri: str, found: FoundModel, record: ModelRecord) -> tuple[Any, str]:
    """The model in MLflow, and where it is, in words. It is logged unless it is there; also where the one that is there
    does not say which bags it has seen, and this one does."""
    experiments = [e.experiment_id for e in store.search_experiments(max_results=1000)]
    card = found.loaded.stored.card
    with TemporaryDirectory(prefix="d2l-register-") as scratch:
        write_found_model(Path(scratch), found, record, "model")
        digest = file_digest(Path(scratch) / MODEL)
    there = [m for m in find_logged_models(store, experiments, WEIGHTS_DIGEST, digest) if is_ready(m)]
    knowing = [m for m in there if m.tags.get(SEEN) == KNOWN]
    if knowing or (there and record.trained_on is None):
        return (knowing or there)[-1], "which was there"
    run = _run_of(store, experiments, card.study, found.config_id)
    experiment = _own_experiment(store, uri) if run is None else run.info.experiment_id
    replaced = [m for m in there if m.experiment_id == experiment and not versions_of(store, m)]
    kept = replaced[-1].tags if replaced else {}
    content = ModelContent(
        f"{card.stage} {trial_id(found.config_id)} r{found.replicate:03d}", card.study, found.config_id,
        found.replicate, partial(write_found_model, found=found, record=record, name="model"),
        tuple(json.loads(kept.get(ARMS, "[]"))), kept.get(MADE_FROM, ""),
    )  # fmt: skip
    made = log_model(store, experiment, content, None if run is None else run.info.run_id)
    for model in replaced:
        delete_model(store, model)
    if run is None:
        return made, f"in the experiment {EXPERIMENT!r}, since the store has no run of its configuration"
    return made, f"as an output of the run {run.info.run_name!r}"


def _run_of(store: Any, experiments: Sequence[str], study: str, config: str) -> Any:
    """The run of a configuration, if there is one; of those of several studies that of the one which trained it."""
    runs = store.search_runs(list(experiments), tag_filter(CONFIG, config), max_results=100)
    mine = [run for run in runs if run.data.tags.get(CONFIG) == config]
    return min(mine, key=lambda run: (run.data.tags.get(STUDY) != study, run.info.start_time), default=None)


def _own_experiment(store: Any, uri: str) -> str:
    found = store.get_experiment_by_name(EXPERIMENT)
    if found is None:
        return store.create_experiment(EXPERIMENT, artifact_location=artifact_location(uri, EXPERIMENT))
    if found.lifecycle_stage == "deleted":
        store.restore_experiment(found.experiment_id)
    return found.experiment_id
