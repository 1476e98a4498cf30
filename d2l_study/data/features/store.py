"""The vectors of a data set, copied once per machine into one memory-mapped array.

    store = open_store(files)       # from the cache folder, where it holds what these files say; else copied there

An entry of the cache is addressed by its content. Which entry the files make is known by their paths, sizes and times
of change, so that later trials read none of them. Copying holds a few megabytes at a time: it reads each file once, in
order, and computes on the way what is kept of it (SHA-256, means and scatters of each slide, whether all is finite).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from d2l_study.data.decoded_cache import (
    ADVICE,
    UNUSABLE,
    AlteredError,
    check_may_decode,
    check_once,
    index_of,
    new_entry,
    one_at_a_time,
    read_index,
    read_meta,
    warn_if_altered,
    write_index,
    write_meta,
)
from d2l_study.data.features.feature_file import FeatureFile, changed_said, not_finite_said
from d2l_study.data.features.moments import Moments
from d2l_study.data.features.opening import places
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.memory_maps import check_room, disk_full_as_user_error, new_array, npy_header
from d2l_study.environment import cache_dir
from d2l_study.errors import UserError

NAME = "features"
_VERSION = 1
"""Of what is kept; part of the checksum, and so of ids."""

ARRAY, MOMENTS, PLACES, TRUTH = "instances.npy", "moments.npy", "places.npy", "truth.npy"


@dataclass(frozen=True)
class Store:
    """The vectors of S slides, N in all, as they lie in the cache.

    instances: (N, D) memory-mapped; counts: (S,) of each slide; moments: (S, 2, D) as of a `FeatureCollection`; places:
    (N, 2) float64 memory-mapped, None where no file has any; truth: (N,) int8, None where no file has any; about: what
    `checks.common_metadata` says of all files; side: (S,) float64; checksum: of all of it.
    """

    instances: np.ndarray
    counts: np.ndarray
    moments: np.ndarray
    places: np.ndarray | None
    truth: np.ndarray | None
    side: np.ndarray
    about: dict[str, Any]
    checksum: str

    @property
    def begins(self) -> np.ndarray:
        """(S + 1,) int64, where each slide's vectors begin."""
        return np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int64)


Describe = Callable[[], tuple[Sequence[FeatureFile], dict[str, Any]]]
"""Opens and checks the files: what they hold, and what is said of all of them (plain values)."""


def open_store(paths: Sequence[Path], settings: Mapping[str, Any], describe: Describe) -> Store:
    """The store of these files, in this order, from the cache, or copied there.

    paths: all files that it depends on; settings: what else it depends on (plain values). `UserError` from `describe`,
    or says which slides hold what is no number.
    """
    about = json.dumps([_VERSION, NAME, dict(settings)], sort_keys=True)
    index = index_of(NAME, about, paths)
    with suppress(*UNUSABLE):
        return _indexed(index)
    check_may_decode(NAME)
    with disk_full_as_user_error(cache_dir(), ADVICE):
        index.parent.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(index.with_suffix(".lock")) as alone:
        try:
            return _indexed(index)
        except UNUSABLE as error:
            with suppress(*UNUSABLE):
                warn_if_altered(cache_dir() / str(read_index(index)["entry"]), error)
        files, common = describe()
        checksum: list[str] = []
        with new_entry(cache_dir() / f"{NAME}-{index.stem}", alone, lambda: f"{NAME}-{checksum[0]}") as place:
            checksum.append(_copy(files, common, place))
        write_index(index, {"entry": f"{NAME}-{checksum[0]}"})
    return _indexed(index)


def _indexed(index: Path) -> Store:
    return _open(cache_dir() / str(read_index(index)["entry"]))


def _open(folder: Path) -> Store:
    meta = read_meta(folder)
    check_once(folder, meta)

    def mapped(name: str) -> np.ndarray | None:
        return np.load(folder / name, mmap_mode="r") if name in meta["files"] else None

    instances, moments = mapped(ARRAY), mapped(MOMENTS)
    counts, side = np.array(meta["counts"], np.int64), np.array(meta["side"], np.float64)
    if instances is None or moments is None or len(instances) != counts.sum():
        raise AlteredError("its arrays do not fit together")
    return Store(instances, counts, moments, mapped(PLACES), mapped(TRUTH), side, meta["about"], meta["checksum"])


def _copy(files: Sequence[FeatureFile], common: dict[str, Any], place: Path) -> str:
    """Copy everything into files in the folder `place`; returns the checksum."""
    counts = [int(n) for file in files for n in _sizes(file)]
    width = max(file.width for file in files)
    kind = np.result_type(*(file.dtype for file in files if file.count)).newbyteorder("=")
    shape = (sum(file.count for file in files), width)
    digest, moments = _copy_vectors(files, place / ARRAY, shape, kind)
    checksum = hashlib.sha256(json.dumps([_VERSION, NAME, counts, str(kind), width]).encode() + digest.encode())
    np.save(place / MOMENTS, moments)
    side = [file.tiles.side for file in files for _ in _sizes(file)]
    for name, wanted, dims, dtype in (
        (PLACES, [file.has_places for file in files], (shape[0], 2), np.float64),
        (TRUTH, [file.has_truth for file in files], (shape[0],), np.int8),
    ):
        if not any(wanted):
            continue
        array, begin = new_array(place / name, dims, np.dtype(dtype), ADVICE), 0
        problems = Problems(files[0].path.parent)
        for file in files:
            with _noted(problems):
                array[begin : begin + file.count] = places(file) if name == PLACES else file.truth()
            begin += file.count
        problems.stop_if_any()
        array.flush()
        checksum.update(name.encode())
        checksum.update(np.ascontiguousarray(array).data)
    checksum.update(json.dumps([common, side]).encode())
    found = checksum.hexdigest()[:16]
    write_meta(place, {"checksum": found, "counts": counts, "side": side, "about": common}, {ARRAY: digest})
    return found


def _copy_vectors(
    files: Sequence[FeatureFile], path: Path, shape: tuple[int, int], kind: np.dtype
) -> tuple[str, np.ndarray]:
    """Copy all vectors into one `.npy` file; returns its SHA-256 and the (S, 2, D) moments.

    Reading and writing, hashing, and summing are done at the same time by three threads, which all release the
    interpreter while they work.
    """
    check_room(path.parent, math.prod(shape) * kind.itemsize, ADVICE)
    problems = Problems(files[0].path.parent)
    digest, moments = hashlib.sha256(), []
    with path.open("wb", buffering=0) as out, ThreadPoolExecutor(1) as hashing, ThreadPoolExecutor(1) as summing:
        out.write(header := npy_header(shape, kind))
        digest.update(header)
        waiting: deque[tuple[Future[Any], Future[Any]]] = deque()
        for file in files:
            sums, copied = [Moments(shape[1]) for _ in _sizes(file)], 0
            with _noted(problems):
                for piece in file.pieces():
                    values = piece if piece.dtype == kind else piece.astype(kind)
                    while len(waiting) > 1:  # a file's pieces take turns in two buffers
                        for done in waiting.popleft():
                            done.result()
                    summed = summing.submit(_add, sums, values, file, copied)
                    waiting.append((hashing.submit(digest.update, values.data), summed))
                    _write(out, values)
                    copied += len(values)
                if copied != file.count:
                    raise UserError(changed_said(file, copied))
            while waiting:
                for done in waiting.popleft():
                    done.result()
            moments += [(one.mean, one.scatter) for one in sums]
            for number, one in enumerate(sums):
                if one.strange:
                    where = file.path.name if file.slide_of is None else f"{file.path.name}, bag {number}"
                    problems.add(where, not_finite_said(one.strange, one.count, one.first_strange))
    problems.stop_if_any()
    return digest.hexdigest(), np.array(moments)


@contextmanager
def _noted(problems: Problems) -> Iterator[None]:
    """Notes what is wrong with a file, so that the others are looked at, too."""
    try:
        yield
    except UserError as error:
        problems.add_text(str(error).removeprefix(f"{problems.file}{os.sep}"))


def _sizes(file: FeatureFile) -> np.ndarray:
    """The number of vectors of each slide of a file."""
    return np.array([file.count]) if file.slide_of is None else np.bincount(file.slide_of)


def _add(sums: Sequence[Moments], values: np.ndarray, file: FeatureFile, first: int) -> None:
    """Add vectors, of which the file's number `first` is the first, to the moments of their slides."""
    if file.slide_of is None:
        sums[0].add(values)
        return
    slide = file.slide_of[first : first + len(values)]
    order = np.argsort(slide, kind="stable")
    begins = np.flatnonzero(np.diff(slide[order], prepend=-1))
    for begin, end in zip(begins.tolist(), [*begins[1:].tolist(), len(order)], strict=True):
        sums[slide[order[begin]]].add(values[order[begin:end]])


def _write(out: IO[bytes], values: np.ndarray) -> None:
    left = values.reshape(-1).view(np.uint8).data
    while left:
        left = left[os.write(out.fileno(), left) :]


__all__ = ["Store", "open_store"]
