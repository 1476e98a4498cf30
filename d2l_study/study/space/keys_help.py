"""What `d2l keys` prints: the keys of a space with their defaults, bounds and meaning."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from d2l_study.data import DATASETS
from d2l_study.errors import UserError, listed, nearest
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import Options, allowed_values, field_of
from d2l_study.study.space.keys import REFERENCES, StudyOptions, did_you_mean, has_key
from d2l_study.study.space.recipes import recipe_text
from d2l_study.study.space.resources import Resources
from d2l_study.study.space.search_options import SearchOptions
from d2l_study.terminal import screen_width

PLACES: dict[str, dict[str, type[Options]]] = {
    "study": {"the top level of a space": StudyOptions},
    "data": {f"section data, dataset: {name}": cls for name, cls in DATASETS.items()},
    "teacher": {"section teacher": TeacherConfig},
    "student": {"section student, of a space of students": StudentConfig},
    "search": {"section search": SearchOptions},
    "resources": {"section resources": Resources},
}
"""What may be asked for: a name, and under it headings with the keys they hold."""

OTHERS = {
    "methods": "the arms by name, each with the keys of sections that it sets; in a space of students those of the "
    "student (required). Each must differ from the others: two that come out as one configuration are refused. A key "
    "that only some arms set is overridden in one of them, --set methods.NAME.SECTION.KEY=VALUE",
    "teachers": "the arms of the teacher, by name; with them a space is one of students",
    "labels": "names in print of arms, reference rows and keys, as in {none: Attention MIL, epsilon: ε}; they change "
    "nothing else",
    "references": f"a list of {', '.join(REFERENCES)}: rows without distillation, in a space of students. matched: the "
    "teacher with the student's augmentation and noise, trained for as many instance visits as teacher and student "
    "together; no_soft_labels: the student from its teacher's weights, on known negatives and bag labels alone; "
    "pooled: the teacher's bags by their highest instance score; smoothed: the teacher's instance scores averaged over "
    "the student's neighbours; no_teacher: the student from new weights, without soft labels; bag_label: trained on "
    "bag labels; attention: the teacher's, as a score; cam, peak: class maps of whole images; oracle: "
    "trained on true instance labels",
}
"""What stands at the top level of a space besides the keys of `study` and the sections."""

WIDTH = 110


def show_keys(wanted: Sequence[str]) -> str:
    """The help on sections (`teacher`), data sets (`colon`) and keys (`teacher.epsilon`, `epsilon`); on all keys if
    nothing is named. `UserError` for an unknown name."""
    pages: list[str] = []
    for name in wanted or (*PLACES, *OTHERS):
        pages += [page for page in _pages(name) if page not in pages]
    return "\n\n".join(pages)


def _pages(name: str) -> list[str]:
    if name in OTHERS:
        return [f"the top level of a space\n  {name}\n{_wrapped(OTHERS[name])}"]
    section, dot, key = name.partition(".")
    if name in PLACES or name in DATASETS:
        return [_page(heading, cls, "") for heading, cls in _places(name).items()]
    if dot:
        places = _places(section)
    else:  # a bare key, wherever it is
        key, places = name, {heading: cls for known in PLACES.values() for heading, cls in known.items()}
        section, _, rest = name.partition("_")
        if not any(has_key(cls, name) for cls in places.values()) and section in ("teacher", "student") and rest:
            key, places = rest, PLACES[section]  # a column of tables, where both sections have the key
    found = [_page(heading, cls, key) for heading, cls in places.items() if has_key(cls, key)]
    if not found:
        known = list(dict.fromkeys(itertools.chain.from_iterable(cls.keys() for cls in places.values())))
        if not dot and key == name:
            known += [*PLACES, *DATASETS, *OTHERS]
        raise UserError(f"{name!r}: unknown key{nearest(key, known) or f' (known: {listed(known, 60)})'}")
    if key == "recipe":
        found.append(_wrapped(recipe_text()))
    return found


def _places(section: str) -> dict[str, type[Options]]:
    if section in DATASETS:
        return {f"section data, dataset: {section}": DATASETS[section]}
    if section not in PLACES:
        raise UserError(f"{section!r}: unknown section{did_you_mean(section, (*PLACES, *DATASETS))}")
    return PLACES[section]


@dataclasses.dataclass(frozen=True)
class KeyHelp:
    """The help on one key: its default as YAML, what it means, and the values that it takes."""

    name: str
    default: str
    meaning: str
    allowed: str


def described_keys(cls: type[Options]) -> Iterator[KeyHelp]:
    """The help on every key of a section, in the section's order."""
    for field in dataclasses.fields(cls):
        hint, meta = field_of(cls, field.name)
        default = _yaml(field.default if meta["usual"] is None else meta["usual"])
        yield KeyHelp(field.name, default, meta["doc"], allowed_values(hint, meta))


def _page(heading: str, cls: type[Options], key: str) -> str:
    return "\n".join([heading, *_entries(cls, key)])


def _entries(cls: type[Options], only: str) -> Iterator[str]:
    for key in described_keys(cls):
        if only in ("", key.name):
            yield f"  {key.name}: {key.default}"
            yield _wrapped(f"{key.meaning} ({key.allowed})")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, screen_width(WIDTH), initial_indent=" " * 6, subsequent_indent=" " * 6)


def _yaml(value: Any) -> str:
    """A default as it would be written in a space."""
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, float):
        return f"{value:g}"  # 5e-4, not 0.0005000000000000001
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("...").strip()
