"""Feature files that are to be labelled by a model of vectors: found, described, and checked before anything is scored.

    inputs = open_feature_inputs(["cohort/features_uni_v1/", "more.csv", "one.npy"], stored)

An input is a file of one slide in any layout that `data.features` reads, a folder of such files, a table of slides, or
a file of a whole data set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.damaged_files import reading_errors
from d2l_study.data.features import numpy_files
from d2l_study.data.features.checks import check_encoders_alike, check_places_alike, check_vectors, describe_files
from d2l_study.data.features.embedded import EMBEDDED, embedded_file
from d2l_study.data.features.encoder_names import are_other_encoders
from d2l_study.data.features.feature_file import FeatureFile, truth_of
from d2l_study.data.features.finding import (
    PLACE_FOLDERS,
    TRUTH_FOLDERS,
    feature_folder,
    parallel_files,
    parallel_folder,
)
from d2l_study.data.features.named_arrays import TRUTHS
from d2l_study.data.features.opening import load_values, stem_of
from d2l_study.data.features.single_file import describe_set, is_single_file, read_bags
from d2l_study.data.features.tables import TABLES, list_slides
from d2l_study.data.manifest_problems import Problems
from d2l_study.environment import user_path
from d2l_study.errors import UserError, counted, listed
from d2l_study.inference.inputs import array_in_file, missing, stop_if_any
from d2l_study.inference.model_file import StoredModel

KINDS = "a feature file (.h5, .pt, .npy, .npz), a folder of such files, or a table of slides"

CheckedCallback = Callable[[int, int], None]
"""Called while files are checked: (files that are checked, files in all)."""


@dataclass(frozen=True)
class FeatureInput:
    """What is scored at a time: a slide, the slides of a patient, or a file of a whole data set.

    files: described; slides: one name for each file, or for each bag of a file that has several; bags: their names,
    one unless it is such a file; truth: of each file the one with the labels of its vectors, None where that is the
    file itself, or there are none; set_truth: (N,) int8 the labels of a file of a whole data set.
    """

    files: tuple[FeatureFile, ...]
    slides: tuple[str, ...]
    bags: tuple[str, ...]
    truth: tuple[Path | None, ...]
    set_truth: np.ndarray | None = None
    is_named: bool = False

    @property
    def count(self) -> int:
        """How many vectors it holds."""
        return sum(file.count for file in self.files)

    @property
    def bag_of(self) -> np.ndarray:
        """(count,) int64 which of its bags each vector is in."""
        found = self.files[0].slide_of
        return np.zeros(self.count, np.int64) if found is None else found

    def slide_positions(self) -> Iterator[tuple[int, np.ndarray]]:
        """Of each slide the number of its file, and the positions of its vectors in that file, in order."""
        index = self.files[0].slide_of
        if index is None:
            yield from ((f, np.arange(file.count)) for f, file in enumerate(self.files))
            return
        order = np.argsort(index, kind="stable")
        ends = np.cumsum(np.bincount(index, minlength=len(self.slides)))
        yield from ((0, positions) for positions in np.split(order, ends[:-1]))

    def truth_in(self, file: int) -> np.ndarray:
        """(n,) int8 the labels of a file's vectors, −1 unknown. `UserError` for what are no labels."""
        if self.set_truth is not None:
            return self.set_truth
        beside = self.truth[file]
        if beside is None:
            return self.files[file].truth()
        return truth_of(beside, "it", load_values(beside, TRUTHS), self.files[file].count)


@dataclass(frozen=True)
class _Found:
    """Paths of an input's files, each with the array meant in it if the name says so; as of a `FeatureInput`."""

    paths: list[tuple[Path, str | None]]
    slides: list[str]
    bag: str
    truth: list[Path | None] = dataclasses.field(default_factory=list)
    is_named: bool = False


def open_feature_inputs(
    names: Sequence[str | Path], stored: StoredModel, checked: CheckedCallback | None = None
) -> list[FeatureInput]:
    """Find, describe and check every input. All vectors are read once, to be sure that they are numbers.

    `UserError` names the files that cannot be used, with the reason: no feature files, vectors of another length or
    encoder than the model's, places in several units, files that are damaged, NaN and infinity, a slide given twice.
    """
    found: list[_Found] = []
    problems: list[str] = []
    of_patients = _has_patients(stored)
    for name in names:
        try:
            with reading_errors(Path(str(name))):
                found += _found(str(name), of_patients)
        except UserError as error:
            problems.append(str(error))
    stop_if_any([*problems, *_twice(found)])
    inputs, problems = _described(found)
    files = [file for entry in inputs for file in entry.files]
    problems += _unlike(files, stored)
    problems += _wrong_labels(inputs)
    stop_if_any(problems + _same_names(inputs))
    for number, text in enumerate(check_vectors(files), 1):
        problems += [text] * bool(text)
        if checked is not None:
            checked(number, len(files))
    stop_if_any(problems)
    return inputs


def notes_on_inputs(inputs: Sequence[FeatureInput], stored: StoredModel) -> list[str]:
    """Sentences that a user should read: slides without vectors, slides as bags of a model of patients, tiles of
    another size than the model's."""
    files = [(file, slide) for entry in inputs if entry.set_truth is None
             for file, slide in zip(entry.files, entry.slides, strict=True)]  # fmt: skip
    notes = []
    if empty := [slide for file, slide in files if not file.count]:
        notes.append(f"{counted(len(empty), 'slide')} without vectors: {listed(empty, 5)}")
    single = [entry.slides[0] for entry in inputs if not entry.is_named]
    if single and _has_patients(stored):
        notes.append(f"{counted(len(single), 'slide')} scored as a bag each: {listed(single, 5)}; the bags of this "
                     "model are patients, and a table of slides with a column patient joins theirs")  # fmt: skip
    trained, other = stored.card.tiles, sorted({file.tiles.scale for file, _ in files if file.tiles.scale})
    if trained and any(scale != trained for scale in other):
        notes.append(f"tiles of {listed(other, 5)}; the model was trained on tiles of {trained}: its scores may mean "
                     "less here")  # fmt: skip
    elif len(other) > 1:
        notes.append(f"tiles of several sizes: {listed(other, 5)}")
    return notes


def _has_patients(stored: StoredModel) -> bool:
    """Whether the bags of a model's training were patients."""
    return bool(stored.card.sections.get("data", {}).get("bag") == "patient")


# ---- finding
def _found(name: str, of_patients: bool) -> list[_Found]:
    path = user_path(name, "input")
    if name in EMBEDDED and not path.exists():
        path = embedded_file(name)
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        if path.suffix.lower() in TABLES:
            return _in_table(path, of_patients)
        return [_Found([(path, None)], [stem_of(path.name)], stem_of(path.name))]
    if (inside := array_in_file(name)) is not None:
        slide = f"{stem_of(inside[0].name)}:{inside[1]}"
        return [_Found([inside], [slide], slide)]
    raise missing(path, KINDS)


def _in_folder(path: Path) -> list[_Found]:
    folder = feature_folder(path, "input", "as an input")
    if folder.doubt:
        raise UserError(folder.doubt)
    both = next((names for names in folder.names.values() if len(names) > 1), None)
    if both is not None:
        raise UserError(f"{folder.path}: {listed(both)} are files of one slide; leave one, or name the files")
    return [_Found([(folder.path / names[0], None)], [stem], stem) for stem, names in folder.names.items()]


def _in_table(path: Path, of_patients: bool) -> list[_Found]:
    rows = list_slides(path, feature_folder(path.parent, "input", "in a column path"), of_patients)
    found: dict[str, _Found] = {}
    named = list(rows.bags) != list(rows.slides)  # else it has no column of patients
    for bag, slide, file, truth in zip(rows.bags, rows.slides, rows.files, rows.truth, strict=True):
        entry = found.setdefault(bag, _Found([], [], bag, is_named=named))
        entry.paths.append((file, None))
        entry.slides.append(slide)
        entry.truth.append(truth)
    return list(found.values())


def _beside(paths: Sequence[Path], names: Sequence[str]) -> list[Path | None]:
    """Of each file the one of the same name in a folder beside it that has one of the names."""
    found: dict[Path, Path | None] = {}
    for parent in dict.fromkeys(path.parent for path in paths):
        folder = parallel_folder(parent, names)
        if folder is not None and folder != parent:
            mine = [path for path in paths if path.parent == parent]
            found.update(zip(mine, parallel_files(folder, mine), strict=True))
    return [found.get(path) for path in paths]


# ---- describing
def _described(found: Sequence[_Found]) -> tuple[list[FeatureInput], list[str]]:
    """The inputs, and what is wrong with those that cannot be described."""
    plain = [path for entry in found for path, member in entry.paths if member is None]
    places, labels = (dict(zip(plain, _beside(plain, names), strict=True)) for names in (PLACE_FOLDERS, TRUTH_FOLDERS))
    described = dict(zip(plain, describe_files(plain, None, [places[path] for path in plain]), strict=True))
    inputs, problems = [], []
    for entry in found:
        files, truth = [], []
        try:
            if len(entry.paths) == 1 and entry.paths[0][1] is None and is_single_file(entry.paths[0][0]):
                inputs.append(_whole_set(entry.paths[0][0]))
                continue
            for number, (path, member) in enumerate(entry.paths):
                file = described[path] if member is None else numpy_files.describe_npz(path, None, member)
                if isinstance(file, str):
                    raise UserError(file)
                files.append(file)
                named = entry.truth[number] if entry.truth else None
                truth.append(named or (None if member is not None else labels[path]))
        except UserError as error:
            problems.append(str(error))
            continue
        inputs.append(FeatureInput(tuple(files), tuple(entry.slides), (entry.bag,), tuple(truth), None, entry.is_named))
    return inputs, problems


def _whole_set(path: Path) -> FeatureInput:
    index, bags, truth = read_bags(path)
    return FeatureInput((describe_set(path, index),), bags, bags, (None,), truth, is_named=True)


# ---- checks
def _twice(found: Sequence[_Found]) -> list[str]:
    seen: set[tuple[Path, str | None]] = set()
    problems = []
    for path, member in (one for entry in found for one in entry.paths):
        mark = path.resolve(), member
        if mark in seen:
            problems.append(f"{path}{'' if member is None else f':{member}'}: given twice")
        seen.add(mark)
    return problems


def _same_names(inputs: Sequence[FeatureInput]) -> list[str]:
    """Scores name slides and bags, so that no two may have the same name."""
    problems, slides, bags = [], dict[str, Path](), dict[str, Path]()
    clashes: set[str] = set()
    for entry in inputs:
        where = [entry.files[0].path] * len(entry.slides) if entry.set_truth is not None else (
            [file.path for file in entry.files])  # fmt: skip
        for slide, path in zip(entry.slides, where, strict=True):
            if (other := slides.setdefault(slide, path)) is not path:
                clashes.add(slide)
                problems.append(f"{path}: a slide {slide!r} is {other}, too; label them one after the other, or list "
                                "them in a table with names of their own")  # fmt: skip
        for bag in entry.bags:
            other = bags.setdefault(bag, where[0])
            if other is not where[0] and bag not in clashes:
                problems.append(f"{where[0]}: a bag {bag!r} is {other}, too; label them one after the other, or give "
                                "them names of their own in one table")  # fmt: skip
    return problems


def _unlike(files: Sequence[FeatureFile], stored: StoredModel) -> list[str]:
    """What differs from the vectors that the model was trained on; and files whose places cannot stand in one table."""
    (width,), encoder = stored.model.shape, stored.card.encoder
    full = [file for file in files if file.count]
    found = []
    for file in full:
        if file.width != width:
            found.append(f"{file.path}: vectors of {file.width:,} dimensions; the model takes {width:,}"
                         + (f", of encoder {encoder!r}" if encoder else ""))  # fmt: skip
        elif are_other_encoders(file.extractor, encoder):
            found.append(f"{file.path}: encoder {file.extractor!r}; the model was trained on vectors of encoder "
                         f"{encoder!r}, and its scores of others mean nothing")  # fmt: skip
    problems = Problems(Path())
    if not encoder:
        check_encoders_alike(problems, full)
    check_places_alike(problems, full)
    return found + [text for _, text in problems.found]


def _wrong_labels(inputs: Sequence[FeatureInput]) -> list[str]:
    """What is wrong with the labels of vectors, where there are any."""
    problems = []
    for entry in inputs:
        for number, file in enumerate(entry.files):
            if file.has_truth or entry.truth[number] is not None:
                try:
                    entry.truth_in(number)
                except UserError as error:
                    problems.append(str(error))
    return problems
