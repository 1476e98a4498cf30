"""A checked space: its sections, arms and axes, and the points that they span."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from d2l_study.credentials import masked_values
from d2l_study.errors import UserError
from d2l_study.options import Options
from d2l_study.study.space.data_location import at_places, with_absolute_paths
from d2l_study.study.space.distributions import Distribution
from d2l_study.study.space.keys import (
    SECTIONS,
    Key,
    dataset_defaults,
    plain,
    section_class,
)
from d2l_study.study.space.recipes import recipe_values
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.search_options import SearchOptions


@dataclass(frozen=True)
class Space:
    """A checked space. A value is fixed, or a tuple (an axis), or a `Distribution`.

    overrides: as given, "key=value"; scientific_overrides: full dotted key -> value, of the overrides that can change a
    result; sections: section -> key -> value, common to all arms; methods: arm -> section -> key -> value. In a space
    of students an arm is "teacher's arm → student's arm"; pairs: arm -> (teacher's arm, student's arm). labels: arm,
    reference or key -> its name in print; folder: the folder that relative paths of the data begin at; recipe: gives
    values to keys that are not given.
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
    scientific_overrides: dict[str, Any] = field(default_factory=dict)
    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    search: SearchOptions | None = None
    schedule: str = "none"
    log_images: bool | None = None
    labels: dict[str, str] = field(default_factory=dict)
    folder: str = ""
    recipe: str = "defaults"
    names_recipe: bool = False
    """Whether the file or `--set` gives `recipe`; spaces of version 1 do not."""
    given_resources: frozenset[str] = frozenset()
    """The keys of `resources` that the file or `--set` gives; the others may depend on the machine."""

    @property
    def stage(self) -> str:
        """What the arms train: `teacher` or `student`."""
        return "student" if self.pairs else "teacher"

    @property
    def section_names(self) -> tuple[str, ...]:
        """The sections that a point has, in their order."""
        return tuple(name for name in SECTIONS if name != "student" or self.pairs)

    def arm_keys(self, method: str) -> dict[str, dict[str, Any]]:
        """The keys of an arm, section -> key -> value: the common ones, and over them those that it sets itself."""
        own = self.methods[method]
        return {name: {**self.sections.get(name, {}), **own.get(name, {})} for name in self.section_names}

    def count(self) -> int:
        """The number of points of all arms; some of them may turn out to be the same configuration."""
        return sum(
            math.prod(len(v) for keys in self.arm_keys(method).values() for v in keys.values() if isinstance(v, tuple))
            * self.draws(method)
            for method in self.methods
        )

    def draws(self, method: str) -> int:
        """How many points are drawn from an arm's distributions, at each point of its axes; 1 if it has none."""
        values = [v for keys in self.arm_keys(method).values() for v in keys.values()]
        found = any(isinstance(v, Distribution) for v in values)
        return self.search.trials if found and self.search is not None else 1

    @property
    def adaptive(self) -> bool:
        """Whether a sampler chooses the points. They are not known beforehand then, and `points` gives random draws."""
        return self.search is not None and self.search.adaptive

    def grid(self, method: str) -> Iterator[dict[Key, Any]]:
        """The points of an arm's axes: (section, key) -> value or distribution. The last axis moves fastest."""
        keys = [((s, k), v) for s, keys in self.arm_keys(method).items() for k, v in keys.items()]
        for chosen in itertools.product(*(v if isinstance(v, tuple) else (v,) for _, v in keys)):
            yield dict(zip((place for place, _ in keys), chosen, strict=True))

    def points(self) -> Iterator[tuple[str, dict[str, Options]]]:
        """Every point of every arm: the arm, and section -> its resolved options."""
        built: dict[tuple[Any, ...], Options] = {}
        for method in self.methods:
            for values, number in itertools.product(self.grid(method), range(self.draws(method))):
                yield method, self.resolve(self.drawn(values, number), built)

    def drawn(self, values: Mapping[Key, Any], number: int) -> dict[Key, Any]:
        """The point number 0, 1, … of an arm whose keys have these values or distributions, as (section, key) -> value:
        draws, and of a start point (`search.enqueue`) the values that it names."""
        enqueued = self.search.enqueue if self.search is not None else ()
        named = enqueued[number] if number < len(enqueued) else {}
        return {
            place: v if not isinstance(v, Distribution)
            else named[name] if (name := ".".join(place)) in named
            else v.draw(name, self.base_seed, number)
            for place, v in values.items()
        }  # fmt: skip

    def resolve(self, values: Mapping[Key, Any], built: dict[tuple[Any, ...], Options]) -> dict[str, Options]:
        """The options of each section at a point, which is (section, key) -> value. built: sections made so far, which
        are shared between points."""
        sections = {}
        dataset = values.get(("data", "dataset"))
        for name in self.section_names:
            own = {place[1]: value for place, value in values.items() if place[0] == name}
            given = self.defaults(name, dataset, own) | own
            section_values = (name, *sorted(given.items()))
            if section_values not in built:
                try:
                    built[section_values] = _resolve(section_class(name, given.get("dataset"))(**given))
                except UserError as error:
                    raise UserError(f"{name}.{str(error).removeprefix(f'{name}.')}") from None
            sections[name] = built[section_values]
        return sections

    def defaults(self, section: str, dataset: str | None, own: Mapping[str, Any]) -> dict[str, Any]:
        """The values that data set and recipe give to keys of a section. own: the keys that the space gives."""
        return dataset_defaults(section, dataset) | recipe_values(self.recipe, section, dataset, own)

    def with_places_of(self, known: Mapping[str, Any]) -> Space:
        """The space with its data where an earlier reading of it found them. known: that one, as of `to_dict`."""
        arms = known.get("methods") or {}
        return replace(
            self,
            sections=_sections_at(self.sections, known),
            methods={method: _sections_at(own, arms.get(method) or {}) for method, own in self.methods.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of `resolved.json`, in plain values; secrets are masked."""
        return masked_values({
            "name": self.name, "file": str(self.path), "description": self.description, "stage": self.stage,
            "overrides": list(self.overrides), "replicates": self.replicates, "base_seed": self.base_seed,
            **_plain_sections(self.sections),
            "methods": {method: _plain_sections(own) for method, own in self.methods.items()},
            "resources": self.resources.to_dict(), "keep_weights": self.keep_weights,
            "metric": self.metric, "references": list(self.references),
            "search": self.search and self.search.to_dict(), "schedule": self.schedule,
            "log_images": self.log_images, "labels": self.labels, "folder": self.folder,
            "recipe": self.recipe,
        })  # fmt: skip


def study_name(space: Space) -> str:
    """The space's name, followed by 6 hex digits of its scientific overrides if it has any.

    Overrides that are in no id (replicates, resources, the folder of the data …) do not change the name.
    """
    stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", space.name).strip("-.") or "study"
    if not space.scientific_overrides:
        return stem
    text = json.dumps(plain(space.scientific_overrides), sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _plain_sections(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Sections as plain values. Paths of data are absolute, so that they are found from any folder."""
    return {name: plain(with_absolute_paths(keys) if name == "data" else keys) for name, keys in sections.items()}


def _sections_at(sections: dict[str, dict[str, Any]], known: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Sections with the data where `known` has them."""
    if "data" not in sections or not known.get("data"):
        return sections
    return {**sections, "data": at_places(sections["data"], known["data"])}


def _resolve(section: Options) -> Options:
    """A section whose defaults depend on other keys, with these defaults written out; any other section as it is."""
    return section.resolved() if hasattr(section, "resolved") else section
