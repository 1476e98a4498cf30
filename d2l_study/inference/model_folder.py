"""A model as a folder that travels: `model.safetensors`, `card.json`, and a page for people, `README.md`.

    write_model_folder(Path("models/colon-student"), stored, record, readme)
    stored, record = read_model_folder(Path("models/colon-student"))

`model.safetensors` says by itself how the model is used (`model_file`). `card.json` repeats that for readers, and says
what is known of its training: thresholds, metrics, the bags it has seen (as digests), and the packages that it needs.
It holds the checksum of the model's file, and its own, so that a file altered after saving is refused. `README.md` is
for people, who may change it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from d2l_study.atomic_files import write_whole
from d2l_study.command_line import command_text
from d2l_study.data.fingerprint import TrainingMarks
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.inference.model_file import METADATA, StoredModel, from_bytes, to_bytes
from d2l_study.inference.output_folder import shown
from d2l_study.nearest_path import path_hint

MODEL, CARD, README = "model.safetensors", "card.json", "README.md"
FORMAT = 1
DIGEST, MODEL_DIGEST, PAGE_DIGEST = "card_sha256", "model_sha256", "readme_sha256"
MOST_BYTES = 2**30
"""Of a card: beyond, it is none of ours."""


@dataclass(frozen=True)
class MetricRecord:
    """A metric on the test bags. value: of this model; mean, lower, upper: over the `count` replicates (or folds) of
    its configuration, with a 95 % interval, NaN where there is none."""

    value: float
    mean: float = math.nan
    lower: float = math.nan
    upper: float = math.nan
    count: int = 1


@dataclass(frozen=True)
class ModelRecord:
    """What is known of a model's training beside its file; everything may be missing.

    bag_threshold: the logit above which a bag is called positive, set on the validation bags; temperature: the T that
    makes σ(logit / T) of the validation bags most likely (Guo et al. 2017); metrics: by their names in tables; counts:
    of training, validation and test bags and instances, by the names of their columns; facts: further columns of its
    row, as text; trained_on: the bags that it has seen; choice: why this replicate was taken.
    """

    bag_threshold: float | None = None
    temperature: float | None = None
    metrics: Mapping[str, MetricRecord] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    trained_on: TrainingMarks | None = None
    choice: str = ""


def write_model_folder(
    folder: Path, stored: StoredModel, record: ModelRecord, readme: str, requirements: Mapping[str, str]
) -> None:
    """Write the three files into a folder that exists. requirements: package -> version that it was made with."""
    readme = shown(readme)
    data = to_bytes(stored.model, stored.params, stored.card)
    size = int.from_bytes(data[:8], "little")
    about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][METADATA])
    content = {
        "format": FORMAT, MODEL_DIGEST: hashlib.sha256(data).hexdigest(), "model": about,
        PAGE_DIGEST: hashlib.sha256(readme.encode()).hexdigest(),
        "bag_threshold": record.bag_threshold, "temperature": record.temperature,
        "metrics": {name: _without_nan(asdict(metric)) for name, metric in record.metrics.items()},
        "counts": dict(record.counts), "facts": dict(record.facts), "choice": record.choice,
        "trained_on": None if record.trained_on is None else record.trained_on.to_dict(),
        "requirements": dict(requirements),
    }  # fmt: skip
    write_whole(folder / MODEL, data)
    write_whole(folder / README, readme.encode())
    write_whole(folder / CARD, _with_digest(content))  # last: with it the folder is a model


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model, altered or not."""
    return (folder / CARD).is_file() and (folder / MODEL).is_file()


def named_folder(reference: str, what: str = "model") -> Path | None:
    """The folder that a name of a model means, whether it is there or not; None for what is no path, but an id.

    A path has a slash, or is a folder, or one of the files in it. what: as of `read_model_folder`.
    """
    path = user_path(reference, what)
    if path.name in (CARD, MODEL):
        return path.parent
    return path if path.is_dir() or "/" in reference or "\\" in reference else None


def folder_name(folder: Path) -> str:
    """What a folder is called, also where it is given as `.` or `..`."""
    return folder.name if folder.name not in ("", "..") else folder.resolve().name


def edited_page(folder: Path) -> bytes | None:
    """The content of a model's `README.md` if it is not what was written with the model, None if it is, or is gone."""
    try:
        page = (folder / README).read_bytes()
    except OSError:
        return None
    written = _read_card(folder / CARD).get(PAGE_DIGEST)
    return page if written is not None and hashlib.sha256(page).hexdigest() != written else None


def same_weights(first: StoredModel, second: StoredModel) -> bool:
    """Whether two models are one: the same network and parameters, trained by the same run."""
    return to_bytes(first.model, first.params, first.card) == to_bytes(second.model, second.params, second.card)


def read_model_folder(folder: Path, what: str = "model") -> tuple[StoredModel, ModelRecord]:
    """The model of a folder, and what is known of it. what: the option it was named by, for messages.

    `UserError` for a folder that is no model, and for files that were altered after saving.
    """
    if not folder.exists():
        near = path_hint(folder)
        raise UserError(f"{what}: {folder}: no such folder{near}; expected a model's, with {MODEL} and {CARD}")
    missing = [name for name in (MODEL, CARD) if not (folder / name).is_file()]
    if missing:
        kind = "a file" if folder.is_file() else f"has no {' and no '.join(missing)}"
        raise UserError(f"{what}: {folder}: {kind}; expected the folder of a model, as `{command_text('export')}` "
                        "writes it")  # fmt: skip
    content = _read_card(folder / CARD)
    try:
        data = (folder / MODEL).read_bytes()
    except OSError as error:
        raise UserError(f"{what}: {folder / MODEL}: cannot be read: {error.strerror or error}") from None
    if hashlib.sha256(data).hexdigest() != content.get(MODEL_DIGEST):
        raise UserError(f"{what}: {folder / MODEL}: is not the file that was saved ({len(data):,} bytes; its checksum "
                        f"is not that of {CARD}); get the folder anew from where it comes")  # fmt: skip
    stored = from_bytes(data, str(folder / MODEL))
    return stored, _record(content, folder / CARD)


def _with_digest(content: Mapping[str, Any]) -> bytes:
    body = json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()
    return b'{"%s": "%s",' % (DIGEST.encode(), hashlib.sha256(body[1:]).hexdigest().encode()) + body[1:]


def _read_card(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    head = b'{"%s": "' % DIGEST.encode()
    end = len(head) + hashlib.sha256().digest_size * 2
    if not data.startswith(head):
        raise UserError(f"{path}: not the card of a model of this program (it does not begin with {head.decode()!r})")
    if data[end : end + 2] != b'",' or hashlib.sha256(data[end + 2 :]).hexdigest().encode() != data[len(head) : end]:
        raise UserError(f"{path}: was altered after saving: its checksum is another one; get the folder anew from "
                        "where it comes (notes belong in README.md, which may be changed)")  # fmt: skip
    content: dict[str, Any] = json.loads(data)
    if not isinstance(content.get("format"), int) or content["format"] > FORMAT:
        raise UserError(f"{path}: format {content.get('format')!r} is of a newer version of this program; expected "
                        f"{FORMAT} or less")  # fmt: skip
    return content


def _record(content: Mapping[str, Any], path: Path) -> ModelRecord:
    try:
        marks = content["trained_on"]
        return ModelRecord(
            _optional(content["bag_threshold"]), _optional(content["temperature"]),
            {name: _metric(metric) for name, metric in content["metrics"].items()},
            content["counts"], content["facts"],
            None if marks is None else TrainingMarks.from_dict(marks, str(path)), content["choice"],
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: incomplete: {error}") from None


def _metric(content: Mapping[str, Any]) -> MetricRecord:
    value, mean, lower, upper = (
        math.nan if content[key] is None else float(content[key]) for key in ("value", "mean", "lower", "upper")
    )
    return MetricRecord(value, mean, lower, upper, int(content["count"]))


def _optional(value: Any) -> float | None:
    return None if value is None else float(value)


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}
