"""MLflow's registry of models: versions of a name, aliases, and the references `models:/NAME@ALIAS` to them.

    with registered_folder("models:/colon@champion", tracking_uri, root) as folder:
        stored, record = read_model_folder(folder)

Nothing of a registered model is executed: its folder is read, as it is from any other place.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from d2l_study.command_line import command_text
from d2l_study.errors import UserError, listed, nearest
from d2l_study.inference.model_folder import CARD, is_model_folder
from d2l_study.study.mlflow.address import existing_store, one_line
from d2l_study.study.mlflow.limits import TAG_LENGTH, short_texts
from d2l_study.study.mlflow.logged_models import local_place
from d2l_study.study.mlflow.model_files import ARTIFACT
from d2l_study.study.mlflow.tags import WEIGHTS_DIGEST

SCHEME = "models:/"
FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION or models:/m-ID"
MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
ALIAS = re.compile(r"[\w-]{1,255}")
MISSING = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


@dataclass(frozen=True)
class Registration:
    """A version of a registered model. existed: whether it was there; before: the version that the alias was on, None
    if on none."""

    version: str
    existed: bool
    before: str | None


def check_name(name: str, alias: str | None) -> None:
    """`UserError` for what can be no name or alias in a registry."""
    if not name.strip() or any(letter in name for letter in "/:@") or not name.isprintable() or len(name) > 250:
        raise UserError(f"--name {name!r}: not allowed; expected a name without '/', ':' and '@'")
    if alias is not None and (not ALIAS.fullmatch(alias) or alias.lower() == "latest" or re.match(r"[vV]\d+$", alias)):
        raise UserError(f"--alias {alias!r}: not allowed; expected letters, digits, '_' and '-', and neither 'latest' "
                        "nor 'v1', which MLflow keeps for versions")  # fmt: skip


def register_version(
    store: Any, name: str, model: Any, tags: Mapping[str, object], alias: str | None
) -> Registration:  # fmt: skip
    """Make a logged model a version of a name, which is made if it is new, and set an alias on it. A name that has the
    model already keeps its version. tags: of a new version. Raises what MLflow raises."""
    known = _registered(store, name)
    if known is None:
        store.create_registered_model(name)
    before = dict(known.aliases).get(alias) if known is not None and alias is not None else None
    version = find_version(store, name, model.tags[WEIGHTS_DIGEST]) if known is not None else None
    existed = version is not None
    if version is None:
        with _as_own_store(store.tracking_uri):
            made = store.create_model_version(
                name, source=f"{SCHEME}{model.model_id}", run_id=model.source_run_id, model_id=model.model_id,
                tags={**short_texts(tags, TAG_LENGTH), WEIGHTS_DIGEST: model.tags[WEIGHTS_DIGEST]},
            )  # fmt: skip
        version = str(made.version)
    if alias is not None:
        store.set_registered_model_alias(name, alias, version)
    return Registration(version, existed, None if before is None else str(before))


@contextlib.contextmanager
def _as_own_store(uri: str) -> Iterator[None]:
    """The store as that of the whole process, while the block runs: MLflow's registry in a database looks a model up
    there, whatever store its client is for (seen in 3.17)."""
    import mlflow

    variable = os.environ.get("MLFLOW_TRACKING_URI")
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None if before == variable else before)  # type: ignore[arg-type]
        if variable is not None:
            os.environ["MLFLOW_TRACKING_URI"] = variable


def find_version(store: Any, name: str, digest: str) -> str | None:
    """The newest version of a name that has these parameters; None if there is none."""
    found = [int(v.version) for v in _versions(store, name) if v.tags.get(WEIGHTS_DIGEST) == digest]
    return str(max(found)) if found else None


@contextlib.contextmanager
def registered_folder(reference: str, tracking_uri: str | None, root: str | Path) -> Iterator[Path]:
    """The folder of the model that a reference means, as long as the block runs; read where it is if that is this
    machine, else fetched.

    reference: one of `FORMS`; tracking_uri, root: as of `resolve_uri`. `UserError` for a name, version or alias that is
    not there, with those that are, and for a model that is none of ours.
    """
    where = f"--run {reference}"
    target = reference.removeprefix(SCHEME)
    name, version, alias = _parsed(target, where)
    uri, store = existing_store(tracking_uri, root, f"{where}: a model in MLflow")
    try:
        location = _location(store, where, name, version, alias, target)
    except UserError:
        raise
    except Exception as error:  # MLflow's own, or its database driver's
        raise UserError(f"{where}: {one_line(error)} ({uri})") from None
    place = local_place(location)
    with TemporaryDirectory(prefix="d2l-registered-") as scratch:
        folder = place / ARTIFACT if place is not None else _fetched(store, location, scratch, where)
        if not is_model_folder(folder):
            raise UserError(f"{where}: no model of this program: it has no {ARTIFACT}/{CARD} in {location}")
        yield folder


def _parsed(target: str, where: str) -> tuple[str, str | None, str | None]:
    """Name, version and alias; of the id of a logged model, an empty name."""
    if MODEL_ID.fullmatch(target):
        return "", None, None
    if "@" in target:
        name, _, alias = target.rpartition("@")
        if name and alias and "/" not in target:
            return name, None, alias
    name, _, version = target.partition("/")
    if name and version.isascii() and version.isdigit():
        return name, version, None
    raise UserError(f"{where}: expected {FORMS}")


def _location(store: Any, where: str, name: str, version: str | None, alias: str | None, target: str) -> str:
    """Where the files of a model are, as MLflow says."""
    if not name:
        try:
            return store.get_logged_model(target).artifact_location
        except Exception as error:
            if getattr(error, "error_code", None) in MISSING:
                raise UserError(f"{where}: there is no such model in the MLflow store") from None
            raise
    known = _registered(store, name)
    if known is None:
        names = [model.name for model in store.search_registered_models(max_results=200)]
        there = (
            f"registered are {listed(names)}"
            if names
            else f"no model is registered there; `{command_text('register')}` does it"
        )
        raise UserError(f"{where}: no registered model {name!r}{nearest(name, names)}; {there}")
    if alias is not None:
        aliases = dict(known.aliases)
        if alias not in aliases:
            there = f"its aliases are {listed(sorted(aliases))}" if aliases else "it has no aliases"
            raise UserError(f"{where}: {name!r} has no alias {alias!r}{nearest(alias, aliases)}; {there}")
        version = str(aliases[alias])
    found = next((v for v in _versions(store, name) if str(v.version) == str(int(version or 0))), None)
    if found is None:
        numbers = sorted(int(v.version) for v in _versions(store, name))
        there = f"its versions are {listed(numbers)}" if numbers else "it has no versions"
        raise UserError(f"{where}: {name!r} has no version {version}; {there}")
    model_id = found.model_id or (found.source or "").removeprefix(SCHEME)
    if MODEL_ID.fullmatch(model_id):
        return store.get_logged_model(model_id).artifact_location
    return str(store.get_model_version_download_uri(name, found.version))


def _registered(store: Any, name: str) -> Any:
    """The registered model of that name; None if there is none."""
    try:
        return store.get_registered_model(name)
    except Exception as error:
        if getattr(error, "error_code", None) in MISSING:
            return None
        raise


def _versions(store: Any, name: str) -> Iterator[Any]:
    sign = '"' if "'" in name else "'"
    token = None
    while True:
        page = store.search_model_versions(f"name = {sign}{name}{sign}", max_results=200, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _fetched(store: Any, location: str, scratch: str, where: str) -> Path:
    """The model's folder, downloaded. An empty folder if there is none."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        files = get_artifact_repository(location, tracking_uri=store.tracking_uri)
        if not list(files.list_artifacts(ARTIFACT)):
            return Path(scratch)
        return Path(files.download_artifacts(ARTIFACT, dst_path=scratch))
    except Exception as error:
        raise UserError(f"{where}: its files cannot be fetched from {location}: {one_line(error)}") from None
