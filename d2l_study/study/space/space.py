"""A checked space: its sections, arms and axes, and the points that they span."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from d2l_study.credentials import masked_values
from d2l_study.errors import UserError
from d2l_study.options import Options
from d2l_study.study.space.distributions import Distribution, SearchOptions
from d2l_study.study.space.keys import (
    SECTIONS,
    Key,
    dataset_defaults,
    plain,
    section_class,
)
from d2l_study.study.space.resources import Resources


@dataclass(frozen=True)
class Space:
    """A checked space. A tuple as a value is an axis; other values are fixed.

    overrides: as given, "key=value"; settings: those of them that name another study (see `study_name`), by
    full dotted key; sections: section -> key -> value, as written and typed; methods: arm -> section -> key -> value.
    In a space of students an arm is "teacher's arm → student's arm"; pairs: arm -> (teacher's arm, student's arm).
    labels: arm, reference or key -> its name in print; folder: where relative paths of the data begin.
    """

    name: str
    path: Path
    text: str
    description: str
    overrides: tuple[str, ...]
    replicates: int
    base_seed: int
    resources: Resources
    keep_weights: str
    metric: str | None
    sections: dict[str, dict[str, Any]]
    methods: dict[str, dict[str, dict[str, Any]]]
    settings: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    search: SearchOptions | None = None
    schedule: str = "none"
    log_images: bool | None = None
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = ""

    @property
    def stage(self) -> str:
        return "student" if self.pairs else "teacher"

    @property
    def section_names(self) -> tuple[str, ...]:
        return tuple(name for name in SECTIONS if name != "student" or self.pairs)

    def written(self, method: str) -> dict[str, dict[str, Any]]:
        """The keys an arm has, section -> key -> value: the common ones, over them its own."""
        own = self.methods[method]
        return {name: {**self.sections.get(name, {}), **own.get(name, {})} for name in self.section_names}

    def count(self) -> int:
        """The number of configurations, before any that turn out the same are dropped."""
        return sum(
            math.prod(len(v) for keys in self.written(method).values() for v in keys.values() if isinstance(v, tuple))
            * self.draws(method)
            for method in self.methods
        )

    def draws(self, method: str) -> int:
        """How many points are drawn from the arm's distributions, at each point of its axes; 1 if it has none."""
        values = [v for keys in self.written(method).values() for v in keys.values()]
        found = any(isinstance(v, Distribution) for v in values)
        return self.search.trials if found and self.search is not None else 1

    @property
    def adaptive(self) -> bool:
        """Whether a sampler chooses the points, so that they are not known beforehand (`points` are then draws)."""
        return self.search is not None and self.search.adaptive

    def grid(self, method: str) -> Iterator[dict[Key, Any]]:
        """The points of an arm's axes: (section, key) -> value, or the distribution. The last axis moves fastest."""
        keys = [((s, k), v) for s, keys in self.written(method).items() for k, v in keys.items()]
        for chosen in itertools.product(*(v if isinstance(v, tuple) else (v,) for _, v in keys)):
            yield dict(zip((place for place, _ in keys), chosen, strict=True))

    def points(self) -> Iterator[tuple[str, dict[str, Options]]]:
        """Every point of every arm: the arm's name and its sections, resolved."""
        built: dict[tuple[Any, ...], Options] = {}
        for method in self.methods:
            for values, number in itertools.product(self.grid(method), range(self.draws(method))):
                drawn = {
                    place: v.draw(".".join(place), self.base_seed, number) if isinstance(v, Distribution) else v
                    for place, v in values.items()
                }
                yield method, self.resolve(drawn, built)

    def resolve(self, values: Mapping[Key, Any], built: dict[tuple[Any, ...], Options]) -> dict[str, Options]:
        """The sections of a point, (section, key) -> value; `built` remembers those that were made already."""
        sections = {}
        dataset = values.get(("data", "dataset"))
        for name in self.section_names:
            given = dataset_defaults(name, dataset)
            given |= {place[1]: value for place, value in values.items() if place[0] == name}
            mark = (name, *sorted(given.items()))
            if mark not in built:
                try:
                    built[mark] = _resolve(section_class(name, given.get("dataset"))(**given))
                except UserError as error:
                    raise UserError(f"{name}.{str(error).removeprefix(f'{name}.')}") from None
            sections[name] = built[mark]
        return sections

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `resolved.json`, what is secret in them masked."""
        return masked_values({
            "name": self.name, "file": str(self.path), "description": self.description, "stage": self.stage,
            "overrides": list(self.overrides), "replicates": self.replicates, "base_seed": self.base_seed,
            **{name: plain(keys) for name, keys in self.sections.items()}, "methods": plain(self.methods),
            "resources": self.resources.to_dict(), "keep_weights": self.keep_weights,
            "metric": self.metric, "references": list(self.references),
            "search": self.search and self.search.to_dict(), "schedule": self.schedule,
            "log_images": self.log_images, "labels": self.labels, "folder": self.folder,
        })  # fmt: skip


def study_name(space: Space) -> str:
    """The space's name, and 6 hex digits of the overrides if there are any.

    Overrides that are in no id (replicates, resources, the folder of the data …) name no other study.
    """
    stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", space.name).strip("-.") or "study"
    if not space.settings:
        return stem
    text = json.dumps(plain(space.settings), sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _resolve(section: Options) -> Options:
    """With defaults that depend on other keys made explicit, for sections that have such."""
    return section.resolved() if hasattr(section, "resolved") else section
