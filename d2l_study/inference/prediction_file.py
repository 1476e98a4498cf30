"""Scores of bags and of their instances as one table: what `predict` writes, and others who score bags give.

level      `bag` or `instance`; a bag's row stands directly before those of its instances
bag        its name
index      of an instance its position in the bag, from 0; null of a bag
source     the file that it comes from; null of a bag of several files
x, y       the place of the instance as its data have it: of a patch its middle, in 0-based pixels of the image, or of
           level 0 of the slide; null where it has none, and of a bag
logit      float32; null of a bag without instances
score      its probability, in [0, 1]
predicted  1 if the logit lies above the model's threshold for instances, or for bags, else 0; null where the model has
           no such threshold

    with PredictionFile(Path("scores.parquet"), about, thresholds) as out:
        out.add(PredictedBag("S-001", ("S-001.h5",), source_of, xy, logits, 0.7))

The metadata of a Parquet file, `d2l_study.predict`, say in JSON which model it was; a CSV file has none.
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from d2l_study.atomic_files import PART
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.inference.label import origin
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.output_folder import check_replaced, make_folder, shown, writing
from d2l_study.learning.metrics import probability
from d2l_study.parquet_files import has_metadata, native_file
from d2l_study.slides.score_files import BLOCK

METADATA = "d2l_study.predict"
COLUMNS = ("level", "bag", "index", "source", "x", "y", "logit", "score", "predicted")
ENDINGS = (".parquet", ".csv")


@dataclass(frozen=True)
class Thresholds:
    """The logits above which a bag, and an instance, is predicted positive; None: no prediction."""

    bag: float | None = None
    instance: float | None = None

    @classmethod
    def of(cls, model: LoadedModel) -> Self:
        return cls(model.bag_threshold, model.instance_threshold)


@dataclass(frozen=True)
class PredictedBag:
    """A bag of n instances with its scores.

    sources: the files of the instances, none where they have none; source_of: (n,) int64 which of them each is from;
    xy: (n, 2) float64 places, NaN where there is none; instance_logits: (n,) float32; bag_logit: NaN without instances.
    """

    name: str
    sources: tuple[str, ...]
    source_of: np.ndarray
    xy: np.ndarray
    instance_logits: np.ndarray
    bag_logit: float

    def __len__(self) -> int:
        return len(self.instance_logits)

    def positive(self, thresholds: Thresholds) -> tuple[int, int]:
        """How many bags (0 or 1) and instances lie above the thresholds; 0 without one."""
        return (
            int(thresholds.bag is not None and np.float32(self.bag_logit) > thresholds.bag),
            0 if thresholds.instance is None else int((self.instance_logits > thresholds.instance).sum()),
        )


def prediction_schema(about: Mapping[str, Any] | None = None) -> Any:
    """The Arrow schema of the rows. about: plain values for a file's metadata."""
    import pyarrow as pa

    kinds = {"index": pa.int64(), "x": pa.float64(), "y": pa.float64(), "logit": pa.float32(), "score": pa.float64(),
             "predicted": pa.int8()}  # fmt: skip
    return pa.schema(
        [(name, kinds.get(name, pa.string())) for name in COLUMNS],
        metadata=None if about is None else {METADATA: json.dumps(about)},
    )


def prediction_rows(bag: PredictedBag, thresholds: Thresholds) -> Any:
    """The rows of one bag, as an Arrow table: its own, then those of its instances."""
    import pyarrow as pa

    count, whole = len(bag), np.float32(bag.bag_logit)
    logit = np.concatenate([[whole], bag.instance_logits]).astype(np.float32)
    empty = np.isnan(logit)
    score = np.full(count + 1, math.nan)
    score[~empty] = probability(logit[~empty])
    above = np.zeros(count + 1, np.int8)
    unknown = empty.copy()
    for threshold, rows in ((thresholds.bag, slice(0, 1)), (thresholds.instance, slice(1, None))):
        if threshold is None:
            unknown[rows] = True
        else:
            above[rows] = logit[rows] > threshold
    names = pa.array([shown(name) for name in bag.sources], pa.string())
    own = names[0].as_py() if len(bag.sources) == 1 else None
    of_instances = names.take(pa.array(bag.source_of, pa.int64())) if bag.sources else pa.nulls(count, pa.string())
    places = np.concatenate([np.full((1, 2), math.nan), bag.xy])
    columns = [
        pa.concat_arrays([pa.array(["bag"]), pa.repeat("instance", count)]), pa.repeat(shown(bag.name), count + 1),
        pa.array(np.arange(-1, count), mask=np.arange(-1, count) < 0),
        pa.concat_arrays([pa.array([own], pa.string()), of_instances]),
        *(pa.array(places[:, i], mask=np.isnan(places[:, i])) for i in range(2)),
        pa.array(logit, mask=empty), pa.array(score, mask=empty), pa.array(above, mask=unknown),
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=prediction_schema())


def about_model(model: LoadedModel) -> dict[str, Any]:
    """Which model it is, for a file's metadata."""
    return {**origin(model.stored), "bag_threshold": model.bag_threshold, "temperature": model.record.temperature,
            "instance_shape": list(model.shape)}  # fmt: skip


def check_prediction_file(out: str | Path) -> Path:
    """The file that `--out` names; nothing is written. `UserError` for another ending, what can be no place, and a file
    that is there and was not written by `predict`."""
    path = user_path(out, "--out")
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {path}: expected a file whose name ends in {' or '.join(ENDINGS)}")
    with writing(path.parent, path):
        if path.parent.exists() and not path.parent.is_dir():
            raise UserError(f"--out {path}: cannot write there: {path.parent} is a file; expected a folder")
    check_replaced(path, _is_ours, "predict", named=True)
    if len(os.fsencode(path.name)) > 255 - len(PART):
        raise UserError(f"--out {str(path)[:60]}…: the name is too long")
    return path


def _is_ours(path: Path) -> bool:
    if path.suffix.lower() == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            return next(csv.reader([file.readline(10_000)]), []) == list(COLUMNS)
    return has_metadata(path, METADATA)


class PredictionFile:
    """The file of predictions, written bag by bag. It takes its name, and the place of an older one, when the block
    ends well and something was written; else nothing stays of it."""

    def __init__(self, path: Path, about: Mapping[str, Any], thresholds: Thresholds) -> None:
        """path: as of `check_prediction_file`; about: plain values, as of `about_model`."""
        self.path, self.thresholds = path, thresholds
        self.bags = self.instances = self.positive_bags = self.positive_instances = 0
        self._part = path.with_name(f"{path.name}{PART}")
        self._schema = prediction_schema(about)
        self._waiting: list[Any] = []
        self._rows = 0
        self._writer: Any = None
        self._file: Any = None

    def __enter__(self) -> Self:
        make_folder(self.path.parent, self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self.bags:
                with writing(self.path.parent, self.path):
                    self._write()
                    self._close()
                    self._part.replace(self.path)
        finally:
            with contextlib.suppress(OSError):
                self._close()
            with contextlib.suppress(OSError):
                self._part.unlink(missing_ok=True)

    def add(self, bag: PredictedBag) -> None:
        """Write a bag and its instances. `UserError` if the disk takes no more."""
        bags, instances = bag.positive(self.thresholds)
        self.bags, self.instances = self.bags + 1, self.instances + len(bag)
        self.positive_bags, self.positive_instances = self.positive_bags + bags, self.positive_instances + instances
        self._waiting.append(prediction_rows(bag, self.thresholds))
        self._rows += len(bag) + 1
        if self._rows >= BLOCK:
            with writing(self.path.parent, self.path):
                self._write()

    def _write(self) -> None:
        import pyarrow as pa

        if self._writer is None:
            self._writer = self._opened()
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).cast(self._schema))
        self._waiting, self._rows = [], 0

    def _opened(self) -> Any:
        file = self._file = native_file(self._part, "wb")
        if self.path.suffix.lower() == ".csv":
            from pyarrow import csv as arrow_csv

            return arrow_csv.CSVWriter(file, self._schema, write_options=arrow_csv.WriteOptions(quoting_style="needed"))
        import pyarrow.parquet as pq

        return pq.ParquetWriter(file, self._schema, compression="zstd")

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._file is not None:
            self._file.close()
            self._file = None
