"""A stored model: safetensors bytes that say by themselves how the model is used. Nothing in a file is executed.

    data = to_bytes(model, fitted.params, ModelCard("student", sections, mean, std, "distill_grid", config_id, 3, 1.7))
    stored = from_bytes(data, "weights.safetensors")

Format: https://github.com/huggingface/safetensors (8 bytes length, a JSON header, the tensors). Everything that is not
a tensor is one JSON text in the header's metadata, under `METADATA`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from d2l_study.errors import UserError, first_line, listed
from d2l_study.models import EXTRACTORS, POOLINGS, VECTOR_EXTRACTORS, MilModel, Params

METADATA = "d2l_study.model"
FORMAT = 1
LEAST_STD, MOST_NUMBER = 1e-6, 1e6
"""Of std and mean, of patches, which are those of numbers in [0, 1]."""
LEAST_STD_OF_VECTORS, MOST_NUMBER_OF_VECTORS = 1e-18, 1e18
"""The same of vectors, whose dimensions may hardly vary; beyond, float32 could not hold what is made of them."""
MOST_FLOAT = 1e300
MOST_TEXT = 200
"""Letters of what a reader says of a damaged file, which may hold the file's own."""
STAGES = ("teacher", "part_teacher", "student", "matched", "no_soft_labels", "no_teacher", "bag_label", "oracle")
MOST_CHANNELS, MOST_SIDE, MOST_FEATURES, MOST_ATTENTION = 64, 1024, 8192, 4096
_OF_VECTORS = ("encoder", "tiles")
"""Of a card what only models of vectors have, and not all of them."""
MOST_DIMENSIONS, MOST_LAYERS = 65_536, 20
"""Of vectors, and of the extractor `mlp`."""


@dataclass(frozen=True)
class ModelCard:
    """What a model is, beside its network.

    sections: the configuration it was trained with, section (data, teacher, student) -> key -> plain value; mean, std:
    one number per channel of patches, the input being (x/255 − mean)/std, or one per dimension of vectors, the input
    being (x − mean)/std; instance_threshold: the logit above which an instance is called positive, set without
    instance labels, None (or NaN) where it could not be set. encoder, tiles: what made the vectors that it was trained
    on, and of which tiles, in words (`FeatureFile.extractor`, `Tiles.scale`); empty where that is not known.
    """

    stage: str
    sections: Mapping[str, Mapping[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    study: str
    config_id: str
    replicate: int
    instance_threshold: float | None = None
    encoder: str = ""
    tiles: str = ""

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise UserError(f"stage: {self.stage!r} has no model; expected one of {', '.join(STAGES)}")
        for name in ("mean", "std"):  # arrays and lists are welcome
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        threshold = self.instance_threshold
        if threshold is not None:
            object.__setattr__(self, "instance_threshold", None if math.isnan(threshold) else float(threshold))


@dataclass(frozen=True)
class StoredModel:
    """A model as it was stored: the network, its parameters (float32, on the CPU) and its card."""

    model: MilModel
    params: Params
    card: ModelCard


def to_bytes(model: MilModel, params: Params, card: ModelCard) -> bytes:
    """The file `weights.safetensors`; the same model gives the same bytes."""
    from safetensors.torch import save

    network = asdict(model) | {"shape": list(model.shape)}
    if model.layers == 1:
        del network["layers"]  # as files were before the network had it
    about = {key: value for key, value in asdict(card).items() if key not in _OF_VECTORS or value}
    content = {"format": FORMAT, "network": network, **about}
    text = json.dumps(content, sort_keys=True, allow_nan=False)
    tensors = {name: value.detach().to("cpu", torch.float32).contiguous() for name, value in params.items()}
    return save(tensors, metadata={METADATA: text})


def from_bytes(data: bytes, where: str = "model file") -> StoredModel:
    """The model in `to_bytes`' bytes, with bit-equal predictions.

    where: the file's name for messages. `UserError` for a damaged, truncated or foreign file, missing or additional
    tensors, and tensors of another shape or type than the network's.
    """
    from safetensors.torch import load

    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    except Exception as error:  # SafetensorError, and of a header that torch cannot follow whatever it raises
        raise UserError(
            f"{where}: not a readable safetensors file ({len(data)} bytes; {first_line(error)[:MOST_TEXT]}); expected "
            "a stored model, whole"
        ) from None
    if METADATA not in metadata:
        raise UserError(
            f"{where}: a safetensors file without the metadata {METADATA!r}; expected a model that a study stored"
        )
    model, card = _read_card(metadata[METADATA], where)
    _check_tensors(model, tensors, where)
    # Convolutions of the same numbers in another memory layout differ in the last bit: this is the layout of training.
    params = {
        name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in tensors.items()
    }
    return StoredModel(model, params, card)


def _read_card(text: str, where: str) -> tuple[MilModel, ModelCard]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: damaged metadata {METADATA!r}: {first_line(error)[:MOST_TEXT]}") from None
    fields = _Fields(content, where)
    version = fields.whole("format", 1, 1_000_000)
    if version > FORMAT:
        raise UserError(f"{where}: format {version} is of a newer version of this program; expected {FORMAT} or less")
    network = _Fields(content.get("network"), where, "network.")
    extractor = network.text("extractor", tuple(EXTRACTORS))
    vectors = extractor in VECTOR_EXTRACTORS
    shape = network.numbers("shape", 1 if vectors else 3)
    limits = (MOST_DIMENSIONS,) if vectors else (MOST_CHANNELS, MOST_SIDE, MOST_SIDE)
    if not all(v == int(v) and 1 <= v <= most for v, most in zip(shape, limits, strict=True)):
        expected = f"(D,) from 1 to {MOST_DIMENSIONS}" if vectors else f"(C, H, W) from 1 to {limits}"
        raise UserError(f"{where}: network.shape: {shape} is not allowed; expected {expected}")
    model = MilModel(
        tuple(int(v) for v in shape),
        network.text("pooling", (*POOLINGS, "noisy_or")),
        network.whole("feature_width", 1, MOST_DIMENSIONS if extractor == "none" else MOST_FEATURES),
        network.whole("attention_width", 1, MOST_ATTENTION),
        extractor,
        network.whole("layers", 1, MOST_LAYERS) if "layers" in network.content else 1,
    )
    channels = model.shape[0]
    mean, std = fields.numbers("mean", channels), fields.numbers("std", channels)
    least, most = (LEAST_STD_OF_VECTORS, MOST_NUMBER_OF_VECTORS) if vectors else (LEAST_STD, MOST_NUMBER)
    if wrong := [value for value in std if not least <= value <= most]:
        raise UserError(f"{where}: std: {listed(wrong)} is not allowed; expected numbers > 0, from {least} to {most:g}")
    if wrong := [value for value in mean if not abs(value) <= most]:
        raise UserError(f"{where}: mean: {listed(wrong)} is not allowed; expected numbers up to {most:g}")
    sections = content.get("sections")
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise UserError(f"{where}: sections: expected the configuration by section; found {type(sections).__name__}")
    threshold = None if content.get("instance_threshold") is None else fields.number("instance_threshold")
    card = ModelCard(
        fields.text("stage", STAGES), sections, mean, std, fields.text("study"), fields.text("config_id"),
        fields.whole("replicate", 0, 1_000_000), threshold,
        *(fields.text(key) if key in content else "" for key in _OF_VECTORS),
    )  # fmt: skip
    return model, card


class _Fields:
    """Typed access to a JSON object that somebody else may have written."""

    def __init__(self, content: object, where: str, prefix: str = "") -> None:
        if not isinstance(content, dict):
            raise UserError(
                f"{where}: {prefix.removesuffix('.') or METADATA}: expected an object; found {type(content).__name__}"
            )
        self.content, self.where, self.prefix = content, where, prefix

    def text(self, key: str, choices: tuple[str, ...] | None = None) -> str:
        value = self.content.get(key)
        if not isinstance(value, str) or (choices is not None and value not in choices):
            raise self._wrong(key, f"one of {', '.join(choices)}" if choices else "a text")
        return value

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.content.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise self._wrong(key, f"a whole number from {least} to {most}")
        return value

    def number(self, key: str) -> float:
        value = self.content.get(key)
        # not <=: NaN, too, and integers that no float holds
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= MOST_FLOAT:
            raise self._wrong(key, "a number")
        return float(value)

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values = self.content.get(key)
        if not isinstance(values, list) or len(values) != count:
            raise self._wrong(key, f"{count} numbers")
        return tuple(_Fields({key: value}, self.where, self.prefix).number(key) for value in values)

    def _wrong(self, key: str, expected: str) -> UserError:
        found = repr(self.content[key])[:80] if key in self.content else "nothing"
        return UserError(f"{self.where}: {self.prefix}{key}: found {found}; expected {expected}")


def _check_tensors(model: MilModel, tensors: Params, where: str) -> None:
    """`UserError` unless the tensors are exactly the network's. What the network wants is asked of its `init`; first
    at width 1, so that a file which claims a huge network without holding it costs no memory."""
    thin = MilModel(model.shape, model.pooling, 1, 1, model.extractor, model.layers)
    try:
        expected = _shapes(thin)
    except UserError as error:  # patches too small for the network
        raise UserError(f"{where}: network: {error}") from None
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        found = [f"lacks {listed(missing)}"] * bool(missing) + [
            f"has {listed(name[:60] for name in unknown)} too"
        ] * bool(unknown)
        raise UserError(
            f"{where}: {' and '.join(found)}; expected the tensors of {model.extractor} with {model.pooling} "
            f"pooling: {listed(sorted(expected), 40)}"
        )
    # The first tensor that the width enters; with the extractor `none` the width is that of the vectors.
    wide = next((name for name in ("fc1.weight", "hidden1.weight", "fc.weight") if name in expected), None)
    if wide is not None:
        wanted = (model.feature_width, *expected[wide][1:])
        held = tuple(tensors[wide].shape) == wanted
        expected = _shapes(model) if held else {wide: wanted}
    else:
        expected = _shapes(model)
    for name, shape in expected.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != torch.float32:
            raise UserError(
                f"{where}: tensor {name}: found {_text(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}; "
                f"expected {_text(shape)} float32 for {_kind(model)} of {_text(model.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise UserError(f"{where}: tensor {name}: holds values that are not finite; expected finite numbers")


def _shapes(model: MilModel) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.init(np.random.default_rng(0)).items()}


def _kind(model: MilModel) -> str:
    return "vectors" if model.extractor in VECTOR_EXTRACTORS else "patches"


def _text(shape: tuple[int, ...]) -> str:
    return "×".join(str(n) for n in shape) or "one number"
