"""The models that an MLflow store holds ("logged models"): made, found again by their tags, deleted.

A model belongs to an experiment, and to the run of its configuration if that is there. Nothing here uses MLflow's
global state, so that it works beside a user's own MLflow in the same process.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

from d2l_study.inference.model_card import SHOWN_METRICS
from d2l_study.inference.model_folder import MODEL, ModelRecord, read_model_folder
from d2l_study.study.ledger.ledger import trial_id
from d2l_study.study.mlflow.limits import PARAM_LENGTH, TAG_LENGTH, short_texts
from d2l_study.study.mlflow.model_files import save_mlflow_model
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
)  # fmt: skip

READY = "READY"
KNOWN = "known"
"""The value of the tag `SEEN` where it is known what a model has seen."""
MODEL_TYPE = "d2l"


@dataclass(frozen=True)
class ModelContent:
    """A model that MLflow is to hold.

    name: for people; study, config_id, replicate: of its run; write: writes its folder (`inference.model_folder`) into
    a folder that is there and empty; arms: of the study that it is the best of; made_from: the run and whatever else
    its folder shows, so that the same text is the same model, empty for a model that no study keeps; params: shown
    beside it.
    """

    name: str
    study: str
    config_id: str
    replicate: int
    write: Callable[[Path], object]
    arms: tuple[str, ...] = ()
    made_from: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


def log_model(store: Any, experiment: str, content: ModelContent, run_id: str | None) -> Any:
    """Make the model in an experiment, as an output of a run if one is given; returns MLflow's `LoggedModel`. What was
    begun is deleted if it fails."""
    from mlflow.entities import LoggedModelOutput

    with TemporaryDirectory(prefix="d2l-model-") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        content.write(folder)
        stored, record = read_model_folder(folder)
        tags = {
            STUDY: content.study, CONFIG: content.config_id, TRIAL: trial_id(content.config_id),
            REPLICATE: content.replicate, MADE_FROM: content.made_from, WEIGHTS_DIGEST: file_digest(folder / MODEL),
            SEEN: KNOWN if record.trained_on is not None else "",
            ARMS: json.dumps(content.arms, ensure_ascii=False) if content.arms else "",
            **metric_tags(record),
            "d2l.stage": stored.card.stage,
        }  # fmt: skip
        made = store.create_logged_model(
            experiment, name=_allowed_model_name(content.name), source_run_id=run_id, model_type=MODEL_TYPE,
            tags={key: value for key, value in short_texts(tags, TAG_LENGTH).items() if value},
            params=short_texts(content.params, PARAM_LENGTH),
        )  # fmt: skip
        try:
            saved = Path(scratch) / "saved"
            save_mlflow_model(saved, folder, stored, made.model_id, run_id)
            store.log_model_artifacts(made.model_id, str(saved))
            found = store.finalize_logged_model(made.model_id, READY)
        except BaseException:
            with contextlib.suppress(Exception):
                delete_model(store, made)
            raise
    if run_id is not None:
        store.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    return found


def metric_tags(record: ModelRecord) -> dict[str, str]:
    """The main metrics of a model, on the test bags and in validation, as tags."""
    shown = {name: record.metrics[name] for name in SHOWN_METRICS if name in record.metrics}
    return {f"d2l.{name}": f"{metric.value:.6g}" for name, metric in shown.items()}


def find_logged_models(store: Any, experiments: Iterable[str], tag: str, value: str) -> list[Any]:
    """The models of these experiments with that value of a tag, oldest first; also those that were not finished."""
    ids, wanted = list(experiments), tag_filter(tag, value)
    found = (model for part in _parts(ids) for model in _search(store, part, wanted or None))
    return sorted((m for m in found if m.tags.get(tag) == value), key=lambda m: (m.creation_timestamp, m.model_id))


def _search(store: Any, experiments: list[str], wanted: str | None) -> Iterator[Any]:
    token = None
    while True:
        page = store.search_logged_models(experiments, filter_string=wanted, max_results=50, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _parts(ids: list[str], most: int = 100) -> Iterator[list[str]]:
    yield from (ids[first : first + most] for first in range(0, len(ids), most))


def delete_model(store: Any, model: Any) -> None:
    """Delete a model and its files. MLflow keeps its row until `mlflow gc`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    store.delete_logged_model(model.model_id)
    place = model.artifact_location
    with contextlib.suppress(Exception):  # a store that lets nobody delete: then `mlflow gc` of its owner does
        get_artifact_repository(place, tracking_uri=store.tracking_uri).delete_artifacts()
    if (folder := local_place(place)) is not None:
        with contextlib.suppress(OSError):
            folder.parent.rmdir()


def versions_of(store: Any, model: Any) -> list[Any]:
    """The versions of registered models that a model is, by whatever address of it they were made."""
    found = list(store.search_model_versions(f"source_path = 'models:/{model.model_id}'"))
    if model.source_run_id:
        found += [
            version for version in store.search_model_versions(f"run_id = '{model.source_run_id}'")
            if version.model_id == model.model_id or str(version.source).startswith(model.artifact_location)
        ]  # fmt: skip
    return list({(version.name, version.version): version for version in found}.values())


def is_ready(model: Any) -> bool:
    """Whether a model is whole."""
    return str(getattr(model.status, "value", model.status)) == READY


def local_place(location: str) -> Path | None:
    """The folder that an address of artifacts means; None if it is not on this machine."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(location) if not parts.scheme else None


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _allowed_model_name(name: str) -> str:
    """A name of a model without the letters that MLflow refuses."""
    return re.sub(r"""[/:.%"']""", "_", name)[:200] or "model"
