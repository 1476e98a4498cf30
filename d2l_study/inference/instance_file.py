"""`instances.csv`: the scores of true instances, such as nuclei, of all images of a command.

source, x, y (pixels, 0-based), truth (empty: not known), logit, score, predicted (empty without a threshold); nine
digits hold a float32 exactly.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from d2l_study.atomic_files import PART
from d2l_study.inference.output_folder import shown, writing
from d2l_study.learning.metrics import probability

NAME = "instances.csv"
COLUMNS = ("source", "x", "y", "truth", "logit", "score", "predicted")


def is_ours(path: Path) -> bool:
    """Whether `label` wrote it, of this version or an earlier one."""
    with path.open("rb") as file:
        return file.read(11) == b"source,x,y,"


@contextlib.contextmanager
def one_file(given: InstanceFile | None, folder: Path, threshold: float | None) -> Iterator[InstanceFile]:
    """The file that a command writes all its instances to, or a new one, which is whole when the block ends well."""
    if given is not None:
        yield given
        return
    with InstanceFile(folder, threshold) as own:
        yield own
        own.finish()


class InstanceFile:
    """Written as it goes; it appears whole with `finish`, if there was anything to write."""

    def __init__(self, folder: Path, threshold: float | None) -> None:
        self.path, self.threshold = folder / NAME, threshold
        self._part = self.path.with_name(f"{NAME}{PART}")
        self._file: IO[str] | None = None
        self._writer: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            if self._file is not None:
                self._file.close()
            self._part.unlink(missing_ok=True)

    def add(self, source: str, xy: np.ndarray, label: np.ndarray, logit: np.ndarray) -> None:
        """Instances of one image. xy: (k, 2) pixels; label: (k,) 1, 0, or −1 where it is not known; logit: (k,)."""
        with writing(self.path.parent):
            if self._file is None:
                self._file = self._part.open("w", newline="", encoding="utf-8")
                self._writer = csv.writer(self._file, lineterminator="\n")
                self._writer.writerow(COLUMNS)
            for (x, y), truth, at, score in zip(xy.tolist(), label, logit.tolist(), probability(logit), strict=True):
                predicted = "" if self.threshold is None else int(at > self.threshold)
                known = "" if truth < 0 else int(truth)
                scored = f"{at:.9g}", f"{score:.9g}", predicted
                self._writer.writerow([shown(source), f"{x:.10g}", f"{y:.10g}", known, *scored])

    def finish(self) -> None:
        if self._file is not None:
            with writing(self.path.parent):
                self._file.close()
                self._part.replace(self.path)
