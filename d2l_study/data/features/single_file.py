"""One file for a whole data set, as the classical MIL sets come: `.npz` or HDF5 with `features` (N, D), `bag_index`
(N,), `bag_label` (B,), and, if they are there, `instance_label` (N,), `test_fold` (R, B) or (B,), `bag_name` (B,)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.damaged_files import open_hdf5, reading_errors
from d2l_study.data.features import numpy_files
from d2l_study.data.features.feature_file import FeatureFile, truth_of
from d2l_study.data.features.opening import ENDINGS, kind_of, open_features
from d2l_study.data.manifest_checks import MOST_FOLDS
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.purpose import TRAINING, Purpose
from d2l_study.errors import UserError, counted, listed, nearest

NEEDED = ("features", "bag_index", "bag_label")
OPTIONAL = ("instance_label", "test_fold", "bag_name")


@dataclass(frozen=True)
class BagArrays:
    """The arrays of such a file beside the features. index: (N,) int64 bag of each vector; label: (B,) int8; truth:
    (N,) int8, −1 unknown; fold: (R, B) or (B,) int64, or None; names: (B,)."""

    index: np.ndarray
    label: np.ndarray
    truth: np.ndarray
    fold: np.ndarray | None
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def is_single_file(path: Path) -> bool:
    """Whether a file holds a whole data set: it says which bag each vector is in. `UserError` if it is no such file,
    nor any other of features."""
    if not path.name.lower().endswith(ENDINGS) or kind_of(path) not in ("npz", "hdf5"):
        return False
    return "bag_index" in _names(path)


def _names(path: Path) -> list[str]:
    if kind_of(path) == "npz":
        return numpy_files.member_names(path)
    with reading_errors(path, "as HDF5"), open_hdf5(path) as file:
        return list(file)


def _array(path: Path, name: str) -> np.ndarray:
    if kind_of(path) == "npz":
        return numpy_files.load_array(path, name)
    with reading_errors(path, "as HDF5"), open_hdf5(path) as file:
        return np.asarray(file[name][()])


def describe_set(path: Path, index: np.ndarray) -> FeatureFile:
    """The vectors of all bags, in the order of the file."""
    return dataclasses.replace(open_features(path), slide_of=index, has_truth=False, has_places=False)


def read_arrays(path: Path, truth: str | None = None, purpose: Purpose = TRAINING) -> BagArrays:
    """All but the features. truth: the array with the instances' labels, where the user names one. Where given splits
    are not used, folds that cannot be trained by are left out. `UserError` says all that is wrong with them."""
    names = _names(path)
    problems = Problems(path)
    for name in NEEDED:
        if name not in names:
            problems.add("arrays", f"no {name}{nearest(name, names)} (found: {listed(names)})")
    labels = truth if truth is not None else "instance_label"
    if truth is not None and truth not in names:
        problems.add("data.truth", f"no array {truth!r}{nearest(truth, names)} (found: {listed(names)})")
    problems.stop_if_any()
    index, label = (_whole_numbers(path, name, problems) for name in ("bag_index", "bag_label"))
    problems.stop_if_any()
    index = _bag_of_vector(path, index)
    notes: tuple[str, ...] = ()
    if len(index) and (index.min() < 0 or index.max() >= len(label)):
        problems.add("bag_index", f"numbers from {index.min()} to {index.max()}; bag_label has {len(label)} bags, 0 to "
                     f"{len(label) - 1}")  # fmt: skip
        problems.stop_if_any()
    if set(np.unique(label).tolist()) == {-1, 1}:
        label, notes = (label + 1) // 2, ("labels: bags of label -1 are taken as negative, 0",)
    if wrong := sorted(set(np.unique(label).tolist()) - {0, 1}):
        problems.add("bag_label", f"{listed(wrong)}; expected 0 and 1")
    elif purpose.both_classes and len(np.unique(label)) == 1:
        problems.add("bag_label", f"all {counted(len(label), 'bag')} have label {label[0]}; both classes are needed")
    known = np.full(len(index), -1, np.int8)
    if labels in names:
        known = truth_of(path, labels, _array(path, labels), len(index))
        wrong_bags = np.unique(index[(known == 1) & (label[index] == 0)])
        if len(wrong_bags):
            problems.add(labels, f"1 in bags of label 0: {listed(wrong_bags)}; a bag is positive if any of its "
                         "instances is")  # fmt: skip
    fold, of_folds = None, problems if purpose.given_split else Problems(path)
    if "test_fold" in names:
        fold = _folds(_array(path, "test_fold"), len(label), of_folds)
    if not purpose.given_split and of_folds.found:
        fold = None
    said = _bag_names(path, names, len(label), problems)
    problems.stop_if_any()
    return BagArrays(index, label.astype(np.int8), known, fold, said, notes)


def read_bags(path: Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """Of such a file, with labels of bags or without: (N,) the bag of each vector, (B,) the bags' names, and (N,) int8
    the labels of the vectors, −1 unknown. `UserError` says what is wrong with them."""
    names, problems = _names(path), Problems(path)
    index = _whole_numbers(path, "bag_index", problems)
    problems.stop_if_any()
    index = _bag_of_vector(path, index)
    said = next((name for name in ("bag_label", "bag_name") if name in names), None)
    count = int(index.max()) + 1 if said is None else np.size(_array(path, said))
    if index.min() < 0 or index.max() >= count:
        problems.add("bag_index", f"numbers from {index.min()} to {index.max()}; {said or 'numbers'} has {count} bags")
    bag_names = _bag_names(path, names, count, problems)
    problems.stop_if_any()
    truth = np.full(len(index), -1, np.int8)
    if "instance_label" in names:
        truth = truth_of(path, "instance_label", _array(path, "instance_label"), len(index))
    return index, bag_names, truth


def _whole_numbers(path: Path, name: str, problems: Problems) -> np.ndarray:
    array = np.ravel(_array(path, name))
    if array.dtype.kind not in "biuf":
        example = f", such as {array[0]}" if array.size else ""
        problems.add(name, f"values of type {array.dtype}{example}; expected whole numbers")
    elif len(wrong := array[~np.isfinite(array) | (array != np.floor(array))]):
        problems.add(name, f"values of type {array.dtype}, such as {wrong[0]}; expected whole numbers")
    return array


def _bag_of_vector(path: Path, index: np.ndarray) -> np.ndarray:
    """(N,) int64 from the array bag_index; `UserError` if it has not one number for each vector, or there are none."""
    if (count := open_features(path).count) != len(index):
        raise UserError(f"{path}: {len(index):,} numbers in bag_index, but {count:,} vectors")
    if not count:
        raise UserError(f"{path}: no vectors")
    return index.astype(np.int64)


def _bag_names(path: Path, names: list[str], count: int, problems: Problems) -> tuple[str, ...]:
    if "bag_name" not in names:
        return tuple(str(i) for i in range(count))
    values = np.ravel(_array(path, "bag_name")).tolist()
    said = tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values)
    if len(said) != count or len(set(said)) != len(said):
        problems.add("bag_name", f"{len(set(said))} different names for {count} bags")
    return said


def _folds(values: np.ndarray, bags: int, problems: Problems) -> np.ndarray | None:
    if values.ndim not in (1, 2) or values.shape[-1] != bags or values.dtype.kind not in "iu":
        problems.add("test_fold", f"the shape {values.shape} and type {values.dtype}; expected (repeats, {bags}) whole "
                     "numbers")  # fmt: skip
        return None
    rows = np.atleast_2d(values).astype(np.int64)
    count = int(rows.max()) + 1
    if rows.min() < 0 or not 3 <= count <= MOST_FOLDS:
        problems.add("test_fold", f"folds from {rows.min()} to {rows.max()}; expected 0 to the number of folds less "
                     "one, at least 3 folds")  # fmt: skip
        return None
    for number, row in enumerate(rows):
        if missing := sorted(set(range(count)) - set(row.tolist())):
            problems.add("test_fold", f"no bag is in fold {listed(missing)} of repeat {number}")
    return values.astype(np.int64)
