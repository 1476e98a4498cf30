"""Where the data of a study are: the keys of `data` that are in no id, such as paths.

`config.json` keeps them as the first study had them that planned the configuration. Data move, and the last `run` of a
study knows where they are now: its `resolved.json` has their absolute paths.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any

from d2l_study.data import DATASETS, PATH_KEYS, WORDS_FOR_PATHS
from d2l_study.study.space.keys import dataset_defaults

LOCATION_KEYS = frozenset(
    f.name for cls in DATASETS.values() for f in dataclasses.fields(cls) if not f.metadata["scientific"]
)
"""The keys of `data` that are in no id: paths, and how what is there is read."""


def with_absolute_paths(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `data` section with absolute paths, which begin at the current folder where they are relative.
    Words that stand for a path, and paths that begin at a home (`~`), stay."""
    return {key: _absolute(key, value) if key in PATH_KEYS else value for key, value in data.items()}


def without_location(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `data` section that ids depend on."""
    return {key: value for key, value in data.items() if key not in LOCATION_KEYS}


def located_data(data: Mapping[str, Any], space: Mapping[str, Any], method: str) -> dict[str, Any]:
    """The `data` section of a configuration, where a study has its data.

    data: as `config.json` has it; space: as `resolved.json` of the study has it, empty if that is lost; method: the arm
    of the configuration."""
    if not ({"data", "methods"} & space.keys()):  # lost, or no whole space
        return {**data}
    own = (space.get("methods") or {}).get(method) or {}
    given = dataset_defaults("data", data["dataset"]) | (space.get("data") or {}) | (own.get("data") or {})
    defaults = {field.name: field.default for field in dataclasses.fields(DATASETS[data["dataset"]])}
    found = {**data}
    for key in LOCATION_KEYS & data.keys():
        value = given.get(key, defaults[key])
        value = value[0] if isinstance(value, (list, tuple)) else value  # an axis of one value
        if value == _absolute(key, value):  # an earlier version wrote paths of `--set` as they were given
            found[key] = value
    return found


def located_content(
    content: Mapping[str, Any], config: str, space: Mapping[str, Any], plan: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """The content of a configuration's `config.json` with its data where a study has them. space: as of `located_data`;
    plan: the entries of the study's plan; content stays as it is if they do not have the configuration."""
    method = next((entry["method"] for entry in plan if entry["config_id"] == config), None)
    if method is None:
        return {**content}
    sections = content["sections"]
    return {**content, "sections": {**sections, "data": located_data(sections["data"], space, method)}}


def at_places(written: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a `data` section as a space gives them, with the paths of `known`, the same section as
    `resolved.json` has it."""
    places = {key: known[key] for key in PATH_KEYS & written.keys() & known.keys()}
    return {**written, **{key: tuple(v) if isinstance(v, list) else v for key, v in places.items()}}


def _absolute(key: str, value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_absolute(key, one) for one in value)
    if not isinstance(value, str) or not value.strip() or value.startswith("~"):
        return value
    if key not in PATH_KEYS or value in WORDS_FOR_PATHS.get(key, ()):
        return value
    return os.path.abspath(value)  # noqa: PTH100 -- it never raises, whatever the text
