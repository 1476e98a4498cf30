"""From a space file to a checked study: every key is read, named and bounded before anything runs.

A space is YAML: common sections (`data`, `teacher`, `student`), named arms (`methods`) that set or vary any key of
any section, and the study's own keys. A list is an axis; each arm is the product of its axes. `{low, high, log}` is a
distribution, from which `search` draws points. With a `student`
section it is a space of students: `teachers` names the arms of the teacher, `methods` those of the student, and every
method learns from every teacher. Sections take their
keys, types and bounds from the option classes of `data` and `learning`, so there is one definition of each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import re
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import d2l_study
from d2l_study.data import DATASETS
from d2l_study.data.given_bags import GivenBags
from d2l_study.errors import UserError, listed, nearest
from d2l_study.learning.config import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.options import Options, check_value, field_of
from d2l_study.study.distributions import Distribution, SearchOptions, read_distribution
from d2l_study.study.resources import Resources
from d2l_study.study.search_checks import check_schedule, check_search
from d2l_study.study.space_keys import (
    CLASS_MAPS,
    GROUPS,
    METHOD_NAME,
    MOST_BYTES,
    MOST_CONFIGURATIONS,
    REFERENCES,
    SECTIONS,
    Arms,
    Key,
    StudyOptions,
    Written,
    arm_sections,
    datasets_of,
    did_you_mean,
    has_key,
    home_of,
    plain,
    scientific,
    section_class,
)
from d2l_study.study.space_overrides import override, settings_of
from d2l_study.study.space_yaml import parse_yaml, short


@dataclass(frozen=True)
class Space:
    """A checked space. A tuple as a value is an axis; other values are fixed.

    overrides: as given, "key=value"; settings: those of them that name another study (see `study_name`), by
    full dotted key; sections: section -> key -> value, as written and typed; methods: arm -> section -> key -> value.
    In a space of students an arm is "teacher's arm → student's arm"; pairs: arm -> (teacher's arm, student's arm).
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
        for name in self.section_names:
            given = {place[1]: value for place, value in values.items() if place[0] == name}
            mark = (name, *sorted(given.items()))
            if mark not in built:
                built[mark] = _resolve(section_class(name, given.get("dataset"))(**given))
            sections[name] = built[mark]
        return sections

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `resolved.json`."""
        return {
            "name": self.name, "file": str(self.path), "description": self.description, "stage": self.stage,
            "overrides": list(self.overrides), "replicates": self.replicates, "base_seed": self.base_seed,
            **{name: plain(keys) for name, keys in self.sections.items()}, "methods": plain(self.methods),
            "resources": self.resources.to_dict(), "keep_weights": self.keep_weights,
            "metric": self.metric, "references": list(self.references),
            "search": self.search and self.search.to_dict(), "schedule": self.schedule,
            "log_images": self.log_images,
        }  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """One point of a study: what is trained, with all replicates alike.

    sections: resolved; values: flat scientific values of all sections; varied: the flat names of the keys that
    vary in the study, common axes first; label: the method and what tells it from the others of its method; teachers:
    config_ids of the teachers it learns from; teaches: a student of the study needs its weights.
    """

    config_id: str
    stage: str
    method: str
    sections: dict[str, Options]
    varied: tuple[str, ...]
    values: dict[str, Any]
    label: str
    data_checksum: str = ""
    base_seed: int = 0
    teachers: tuple[str, ...] = ()
    teacher_method: str | None = None
    student_method: str | None = None
    teaches: bool = False

    def to_dict(self) -> dict[str, Any]:
        """What the id stands for, from which the run can be made again (`Ledger.write_config`)."""
        sections = {name: scientific(section) for name, section in self.sections.items()}
        return {
            "config_id": self.config_id, "stage": self.stage, "sections": sections, "values": self.values,
            "data_checksum": self.data_checksum, "base_seed": self.base_seed,
            "science_version": d2l_study.SCIENCE_VERSION,
        }  # fmt: skip


def study_name(space: Space) -> str:
    """The space's name, and 6 hex digits of the overrides if there are any.

    Overrides that are in no id (replicates, resources, the folder of the data …) name no other study.
    """
    stem = re.sub(r"[^A-Za-z0-9_.+-]+", "-", space.name).strip("-.") or "study"
    if not space.settings:
        return stem
    text = json.dumps(plain(space.settings), sort_keys=True)
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


# ---- finding


def space_folders() -> list[Path]:
    """Where named spaces are looked up: the checkout's `search_spaces`, then those inside the package."""
    package = Path(d2l_study.__file__).parent
    folders = [package / "search_spaces"]
    if (package.parent / "pyproject.toml").is_file():
        folders.insert(0, package.parent / "search_spaces")
    return [f for f in folders if f.is_dir()]


def find_space(name_or_file: str | os.PathLike[str]) -> Path:
    """The file of a space given by name or as a file; `UserError` with the nearest name if there is none."""
    given = os.fspath(name_or_file)
    path = Path(given)
    named = {p.stem: p for folder in reversed(space_folders()) for p in folder.glob("*.yaml")}
    is_file = path.suffix in (".yaml", ".yml") or os.sep in given or "/" in given
    if not is_file and given in named:
        return named[given]
    if "\0" not in given and given.strip() and os.path.exists(given):  # noqa: PTH110 -- Path.exists may raise
        return path
    if is_file:
        hint = f"; there is a space named {path.stem!r}" if path.stem in named else nearest(path.stem, named)
        raise UserError(f"--space {short(given, 200)}: no such file{hint}")
    raise UserError(f"--space {short(given)}: unknown space{nearest(given, named)} (spaces: {listed(sorted(named))})")


def list_spaces() -> list[tuple[str, str, Path]]:
    """(name, description, file) of every space that can be named. One that cannot be read says why."""
    found: dict[str, tuple[str, str, Path]] = {}
    for folder in space_folders():
        for path in sorted(folder.glob("*.yaml")):
            try:
                document = _document(_read_text(path, path.name), path.name)
                description = str(document.get("description", "")).strip()
            except UserError as error:
                description = f"cannot be read: {error}"
            found.setdefault(path.stem, (path.stem, description, path))
    return [found[name] for name in sorted(found)]


# ---- loading


def load_space(
    name_or_file: str | os.PathLike[str], overrides: Sequence[str] = (), replicates: int | None = None
) -> Space:
    """Read and check a space. overrides: "key=value" each, as `--set` takes them; replicates: as `--replicates`.

    `UserError` names the file (or `--set`), the dotted key, the value found and what is allowed.
    """
    path = find_space(name_or_file)
    shown = _shown(path)
    text = _read_text(path, shown)
    document = _document(text, shown)
    students = "student" in document or "teachers" in document
    if not students and "references" in document:
        raise UserError(f"{shown}: references: only a space of students has them (it has a section student)")
    if students:
        document = {"teachers": {"teacher": {}}, **document}
    references = _references(document.pop("references", []), shown)
    leaves, groups = _leaves(document, shown, students)
    changed = override(leaves, groups, overrides, students)
    if replicates is not None:
        leaves["replicates",] = Written(replicates, "--replicates")

    study = {k[0]: _checked(StudyOptions, k[0], written, axis=False) for k, written in leaves.items() if len(k) == 1}
    study["description"] = _one_line(study.get("description"), shown)
    options = StudyOptions(**study)

    resources = _one_of_a_kind(Resources, "resources", leaves, shown)
    search = _one_of_a_kind(SearchOptions, "search", leaves, shown) if any(k[0] == "search" for k in leaves) else None

    sections, arms = _typed(leaves, groups)
    pairs = {f"{t} → {m}": (t, m) for t in arms.get("teachers", {}) for m in arms["methods"]}
    methods = {p: arms["teachers"][t] | arms["methods"][m] for p, (t, m) in pairs.items()} or arms["methods"]
    space = Space(
        path.stem, path, text, options.description, tuple(overrides), options.replicates,
        options.base_seed, resources, options.keep_weights, options.metric, sections, methods,
        settings_of(changed, options, sections, arms, search), pairs, references, search, options.schedule,
        options.log_images,
    )  # fmt: skip
    check_search(space, ("search", "trials") in leaves, shown)
    if (count := space.count()) > MOST_CONFIGURATIONS:
        raise UserError(
            f"{shown}: methods: the axes multiply to {count:,} configurations; at most {MOST_CONFIGURATIONS:,} allowed"
        )
    for method, point in _points(space, shown):
        try:
            _check_references(space.references, point["data"])
        except UserError as error:
            raise UserError(f"{shown}: references: {error}") from None
        try:
            _check_together(point)
            check_schedule(space.schedule, point)
        except UserError as error:
            raise _placed(f"{error} (method {method})", leaves, shown) from None
    return space


_Kind = TypeVar("_Kind", bound=Options)


def _one_of_a_kind(cls: type[_Kind], section: str, leaves: Mapping[Key, Written], shown: str) -> _Kind:
    """A section that has no axes, such as `resources`."""
    asked = {place[1]: _checked(cls, place[1], w, axis=False) for place, w in leaves.items() if place[0] == section}
    try:
        return cls(**asked)
    except UserError as error:
        raise _placed(f"{section}.{error}", leaves, shown) from None


def _placed(message: str, leaves: Mapping[Key, Written], shown: str) -> UserError:
    """An error about keys taken together, under the place where the one it names was written."""
    name, _, rest = message.partition(": ")
    written = leaves.get(tuple(name.split(".")))
    return UserError(f"{written.where if written else f'{shown}: {name}'}: {rest}")


def _points(space: Space, shown: str) -> Iterator[tuple[str, dict[str, Options]]]:
    try:
        yield from space.points()
    except UserError as error:
        raise UserError(f"{shown}: {error}") from None


def _references(value: Any, shown: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise UserError(f"{shown}: references: expected a list of {listed(REFERENCES)}")
    for name in value:
        if name not in REFERENCES:
            raise UserError(
                f"{shown}: references: unknown reference {short(repr(name))}{did_you_mean(name, REFERENCES)}"
            )
    return tuple(dict.fromkeys(value))


def _leaves(document: Mapping[str, Any], shown: str, students: bool) -> tuple[dict[Key, Written], dict[str, list[str]]]:
    """The document as leaves by full key, and the names of each group's arms; checks everything but the values."""
    leaves: dict[Key, Written] = {}
    top = (*StudyOptions.keys(), *SECTIONS, *GROUPS, "references", "resources", "search")
    for key, value in document.items():
        if has_key(StudyOptions, key):
            leaves[key,] = Written(value, f"{shown}: {key}")
        elif key in SECTIONS or key in ("resources", "search"):
            for name, inner in _mapping(value, f"{shown}: {key}").items():
                leaves[key, name] = Written(inner, f"{shown}: {key}.{name}")
        elif key not in GROUPS:
            raise UserError(f"{shown}: {short(key)}: unknown key{home_of(key) or did_you_mean(key, top)}")
    if "methods" not in document:
        raise UserError(f"{shown}: methods: missing; name at least one arm, for example  methods: {{none: {{}}}}")
    groups = {group: _arms(group, document[group], leaves, shown, students) for group in GROUPS if group in document}
    return leaves, groups


def _arms(group: str, value: Any, leaves: dict[Key, Written], shown: str, students: bool) -> list[str]:
    """Put the keys of a group's arms among the leaves; returns the names of the arms."""
    arms = _mapping(value, f"{shown}: {group}")
    if not arms:
        raise UserError(f"{shown}: {group}: empty; name at least one arm, for example  {group}: {{none: {{}}}}")
    allowed = arm_sections(group, students)
    for method, own in arms.items():
        where = f"{shown}: {group}.{short(method)}"
        if not METHOD_NAME.fullmatch(method):
            raise UserError(f"{where}: not a method's name; allowed are letters, digits and _ . + - (at most 60)")
        for section, keys in _mapping(own, where).items():
            if section not in allowed:
                if students and section in SECTIONS:
                    raise UserError(f"{where}.{section}: in a space of students, {group} set keys of {allowed[0]} only")
                hint = home_of(section, f"{group}.{method}.", allowed) or did_you_mean(section, allowed)
                raise UserError(f"{where}.{short(section)}: unknown section{hint}")
            for name, inner in _mapping(keys, f"{where}.{section}").items():
                leaves[group, method, section, name] = Written(inner, f"{where}.{section}.{name}")
    return list(arms)


def _typed(
    leaves: Mapping[Key, Written], groups: Mapping[str, Iterable[str]]
) -> tuple[dict[str, dict[str, Any]], dict[str, Arms]]:
    """Check every key of every section in its own type: the common sections, and those of each group's arms."""
    common = datasets_of(leaves.get(("data", "dataset")))
    arms: dict[str, Arms] = {group: {} for group in groups}
    used: dict[str, None] = {}
    for group, method in ((g, m) for g, methods in groups.items() for m in methods):
        written = leaves.get((group, method, "data", "dataset"))
        datasets = datasets_of(written) if written else common
        used |= dict.fromkeys(datasets)
        own: dict[str, dict[str, Any]] = {}
        for key, written in leaves.items():
            if key[:2] == (group, method):
                own.setdefault(key[2], {})[key[3]] = _checked_in(key[2], key[3], datasets, written)
        arms[group][method] = own
    sections: dict[str, dict[str, Any]] = {}
    for section in SECTIONS:
        keys = {k[1]: w for k, w in leaves.items() if k[0] == section}
        if keys:
            sections[section] = {k: _checked_in(section, k, used or common, w) for k, w in keys.items()}
    return sections, arms


def _checked_in(section: str, key: str, datasets: Iterable[str], written: Written) -> Any:
    """The typed value of a section's key; with several data sets it must suit each."""
    typed = None
    for cls in dict.fromkeys(section_class(section, name) for name in datasets):
        typed = _checked(cls, key, written, axis=True)
    return typed


def _checked(cls: type[Options], key: str, written: Written, axis: bool) -> Any:
    """A value, or the values of an axis as a tuple, in the key's type and bounds."""
    if not has_key(cls, key):
        raise UserError(f"{written.where}: unknown key{did_you_mean(key, cls.keys())}")
    hint, meta = field_of(cls, key)

    def check(where: str, value: Any) -> Any:
        try:
            return check_value(where, value, hint, meta)
        except UserError as error:
            raise UserError(str(error).replace(repr(value), short(repr(value)))) from None

    if axis and isinstance(written.value, dict):
        (kind,) = [k for k in (typing.get_args(hint) or (hint,)) if k is not type(None)]
        if not meta["scientific"]:
            raise UserError(f"{written.where}: this key changes no result, so it has no distribution; give one value")
        return read_distribution(written.value, written.where, kind, check)
    if not axis or not isinstance(written.value, list):
        return check(written.where, written.value)
    if not written.value:
        raise UserError(f"{written.where}: the axis is empty; give at least one value")
    if not meta["scientific"] and len(written.value) > 1:
        raise UserError(f"{written.where}: this key changes no result, so it cannot be an axis; give one value")
    values: list[Any] = []
    seen: set[Any] = set()
    for number, value in enumerate(written.value, start=1):
        typed = check(f"{written.where} (entry {number} of {len(written.value)})", value)
        if typed in seen:
            raise UserError(f"{written.where} (entry {number} of {len(written.value)}): {short(repr(typed))} "
                            "is in the axis twice")  # fmt: skip
        seen.add(typed)
        values.append(typed)
    return tuple(values)


def _one_line(description: Any, shown: str) -> str:
    text = (description or "").strip()
    if not text:
        raise UserError(f"{shown}: description: missing; say in one line what the study asks")
    if "\n" in text or len(text) > 300:
        raise UserError(f"{shown}: description: {len(text)} characters, {text.count(chr(10)) + 1} lines; "
                        "expected one line of at most 300 characters")  # fmt: skip
    return text


def _resolve(section: Options) -> Options:
    """With defaults that depend on other keys made explicit, for sections that have such."""
    return section.resolved() if hasattr(section, "resolved") else section


def _check_references(references: Iterable[str], data: Options) -> None:
    """Class maps are trained on whole images."""
    for reference in references:
        if reference not in CLASS_MAPS:
            continue
        if not isinstance(data, GivenBags):
            having = [name for name, cls in DATASETS.items() if issubclass(cls, GivenBags)]
            raise UserError(f"{reference} is trained on whole images, which data set {getattr(data, 'dataset', '')!r} "
                            f"has not (these have: {listed(having)})")  # fmt: skip
        if getattr(data, "cut", None) == "whole":
            raise UserError(f"{reference} reads instances at their place in a larger image, which data.cut: whole "
                            "does not say")  # fmt: skip


def _check_together(sections: Mapping[str, Options]) -> None:
    """What no single key can tell: each part of the data needs bags of both classes, and a student that starts from
    its teacher's weights the teacher's network."""
    teacher, student = sections["teacher"], sections.get("student")
    if isinstance(teacher, TeacherConfig) and isinstance(student, StudentConfig):
        try:
            student.check_teacher(teacher.extractor, teacher.feature_width)
        except UserError as error:
            raise UserError(f"student.{error}") from None
    data = sections["data"].to_dict()
    prevalence = data.get("prevalence")
    for key in ("num_bags", "val_bags", "test_bags") if prevalence is not None else ():
        positive = int(data[key] * prevalence + 1e-9)
        if not 0 < positive < data[key]:
            raise UserError(f"data.prevalence: {prevalence:g} makes {positive} of {data[key]} bags ({key}) positive; "
                            "each class needs at least one")  # fmt: skip


# ---- reading the file


def _document(text: str, shown: str) -> dict[str, Any]:
    document = parse_yaml(text, shown)
    if document is None:
        raise UserError(f"{shown}: the file is empty; a space needs at least description and methods")
    return _mapping(document, shown)


def _read_text(path: Path, shown: str) -> str:
    try:
        data = path.read_bytes()
    except IsADirectoryError:
        raise UserError(f"{shown}: a folder; expected a YAML file") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise UserError(f"{shown}: {len(data):,} bytes; a space has at most {MOST_BYTES:,}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{shown}: line {line}: not UTF-8 text (byte 0x{data[error.start]:02x})") from None


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """The value as a mapping; nothing at all (`teacher:`) is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "a single value"
        raise UserError(f"{where}: expected keys with values (key: value), found {kind} {short(repr(value))}")
    return value


def _shown(path: Path) -> str:
    """The path as a message names it: relative if it lies below the working folder."""
    with_cwd = os.path.relpath(path) if path.is_absolute() else str(path)
    return str(path) if with_cwd.startswith("..") else with_cwd
