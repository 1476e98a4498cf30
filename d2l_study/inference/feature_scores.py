"""The files that labelled vectors are written to, and how their scores agree with what is known.

scores.parquet   slide, index (of the vector in its slide, from 0), x, y (the place of its tile as its file has it, null
                 where it has none), logit, score, predicted (null without a threshold), truth (null where not known)
bags.csv         bag, slides (how many), instances, logit, score (both empty of a bag without vectors), label (0, 1, or
                 empty, as it is of some slides only of a known bag), part (one of `PARTS`: what the bag was to the
                 model, empty if it is not of the model's data)

The metadata of scores.parquet, `d2l_study.label`, say in JSON which model it was, its threshold, what the places are,
and of each slide the file and the side of its tiles.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import atomic_write
from d2l_study.data.features.checks import common_metadata
from d2l_study.data.features.opening import places
from d2l_study.data.pool import UNKNOWN
from d2l_study.inference.feature_inputs import FeatureInput
from d2l_study.inference.label import SCORES, origin
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.output_folder import shown
from d2l_study.inference.smoothing import about_smoothing, smoothed_vectors
from d2l_study.learning.metrics import auc, probability
from d2l_study.parquet_files import parquet_writer
from d2l_study.slides.score_files import ScoreRows, TileScores, score_schema

BAGS = "bags.csv"
COLUMNS = ("bag", "slides", "instances", "logit", "score", "label", "part")
UNUSED = "unused"
"""Of the model's data, but neither trained, selected nor tested on: left over by `data.num_bags`."""
PARTS = ("training", "unlabelled", "validation", "test", UNUSED, "")
"""Of the model's data; unlabelled: trained on without their labels; the last is what is not of them."""
MOST_RANKED = 10_000_000
"""Known vectors of a part up to which one area over all of them is computed: it needs 40 bytes for each."""


@dataclass(frozen=True)
class KnownSlide:
    """What is known of a slide of the model's own data. part: one of `PARTS`; label: of its bag, −1 unknown; truth:
    (n,) int8 of its vectors, None or −1 unknown; slides: how many its bag has."""

    part: str = ""
    label: int = UNKNOWN
    truth: np.ndarray | None = None
    slides: int = 1


Known = Callable[[Path, int | None], KnownSlide | None]
"""(a feature file, the bag in it where it holds a whole data set) -> what is known of the slide."""


@dataclass
class PartScores:
    """How scores agree with what is known, in the bags of one of `PARTS`.

    bags: how many; known: of how many vectors the label is known; instance_auc: of all these, NaN where it is not
    defined, or they are more than `MOST_RANKED`; instance_auc_within: the mean of the areas within bags; bag_auc.
    """

    part: str
    bags: int = 0
    known: int = 0
    within: list[float] = field(default_factory=list)
    truth: list[np.ndarray] = field(default_factory=list)
    logits: list[np.ndarray] = field(default_factory=list)
    bag_label: list[int] = field(default_factory=list)
    bag_logits: list[float] = field(default_factory=list)

    def add(self, truth: np.ndarray, logits: np.ndarray, label: int, logit: float) -> None:
        """One bag. truth, logits: (n,) of its vectors, −1 unknown."""
        mine = truth != UNKNOWN
        self.bags += 1
        self.known += int(mine.sum())
        if mine.any():
            area = auc(truth[mine], logits[mine])
            self.within += [] if math.isnan(area) else [area]
            self.truth.append(truth[mine])
            self.logits.append(logits[mine])
        if self.known > MOST_RANKED:
            self.truth, self.logits = [], []
        if label != UNKNOWN and not math.isnan(logit):
            self.bag_label.append(label)
            self.bag_logits.append(logit)

    @property
    def instance_auc(self) -> float:
        if not self.truth or self.known > MOST_RANKED:
            return math.nan
        return auc(np.concatenate(self.truth), np.concatenate(self.logits))

    @property
    def instance_auc_within(self) -> float:
        return float(np.mean(self.within)) if self.within else math.nan

    @property
    def bag_auc(self) -> float:
        return auc(np.array(self.bag_label), np.array(self.bag_logits)) if self.bag_label else math.nan


def bags_are_ours(path: Path) -> bool:
    """Whether `label` wrote the file of bags."""
    with path.open("rb") as file:
        return file.readline().strip() == ",".join(COLUMNS).encode()


def write_scores(
    folder: Path,
    stored: StoredModel,
    inputs: Sequence[FeatureInput],
    logits: np.ndarray,
    known: Known | None,
    smooth: int = 0,
) -> tuple[int | None, tuple[PartScores, ...]]:
    """Write both files.

    logits: input by input those of its vectors, then those of its bags; smooth: as of `label_features`. Returns how
    many vectors are predicted positive, None without a threshold, and the scores of each part that there is.
    """
    parts = {part: PartScores(part) for part in PARTS}
    positive = 0
    threshold = stored.card.instance_threshold
    schema = _schema(stored, inputs, smooth)
    with (
        atomic_write(folder / SCORES) as scores, atomic_write(folder / BAGS) as bags,
        parquet_writer(scores, schema) as writer,
        bags.open("w", newline="", encoding="utf-8") as bag_file,
    ):  # fmt: skip
        bag_rows = csv.writer(bag_file, lineterminator="\n")
        bag_rows.writerow(COLUMNS)
        rows = ScoreRows(writer, schema, threshold)
        first = 0
        for entry in inputs:
            mine = np.array(logits[first : first + entry.count])
            mine = smoothed_vectors(entry, mine, smooth) if smooth else mine
            first += entry.count
            pooled = np.array(logits[first : first + len(entry.bags)])
            first += len(entry.bags)
            positive += 0 if threshold is None else int((mine > threshold).sum())
            for bag in _write_input(entry, mine, pooled, known, rows):
                parts[bag.part].add(bag.truth, bag.logits, bag.label, bag.logit)
                bag_rows.writerow(bag.row())
        rows.write()
    return None if threshold is None else positive, tuple(part for part in parts.values() if part.bags)


def _schema(stored: StoredModel, inputs: Sequence[FeatureInput], smooth: int) -> Any:
    files = [file for entry in inputs for file in entry.files]
    said = common_metadata(files)
    slides = [
        {"slide": shown(slide), "file": shown(entry.files[f].path), "instances": len(positions),
         "tile": None if math.isnan(entry.files[f].tiles.side) else entry.files[f].tiles.side}
        for entry in inputs for slide, (f, positions) in zip(entry.slides, entry.slide_positions(), strict=True)
    ]  # fmt: skip
    about = {
        **origin(stored), **about_smoothing(smooth), "dimensions": stored.model.shape[0],
        "encoder": said["extractor"] or stored.card.encoder,
        "coordinates": {"unit": said["unit"], "of_tile": said["anchor"], "tiles": said["scale"]}, "slides": slides,
    }  # fmt: skip
    return score_schema(about)


@dataclass(frozen=True)
class _Bag:
    """One bag as it was scored. truth, logits: (n,) of its vectors."""

    name: str
    slides: int
    truth: np.ndarray
    logits: np.ndarray
    label: int
    part: str
    logit: float

    def row(self) -> list[object]:
        """Nine digits hold a float32 exactly."""
        scored = ["", ""]
        if not math.isnan(self.logit):
            scored = [f"{self.logit:.9g}", f"{float(probability(np.array(self.logit))):.9g}"]
        label = "" if self.label == UNKNOWN else self.label
        return [shown(self.name), self.slides, len(self.logits), *scored, label, self.part]


def _write_input(
    entry: FeatureInput, logits: np.ndarray, pooled: np.ndarray, known: Known | None, out: ScoreRows
) -> Iterator[_Bag]:
    """Write the rows of an input's slides, and give its bags."""
    begins = np.concatenate([[0], np.cumsum([file.count for file in entry.files])])
    xy = [places(file) for file in entry.files]
    truth_of_file = [entry.truth_in(f) for f in range(len(entry.files))]
    several = entry.set_truth is not None
    found = []
    for slide, (name, (f, positions)) in enumerate(zip(entry.slides, entry.slide_positions(), strict=True)):
        told = known(entry.files[f].path, slide if several else None) if known is not None else None
        told, truth = told or KnownSlide(), truth_of_file[f][positions]
        if told.truth is not None and len(told.truth) == len(truth):
            truth = np.where(truth == UNKNOWN, told.truth, truth)
        mine = logits[begins[f] + positions]
        out.add(shown(name), TileScores(xy[f][positions], mine, probability(mine), truth))
        found.append((told, truth, mine))
    groups = [[one] for one in found] if several else [found]
    for number, (bag, group) in enumerate(zip(entry.bags, groups, strict=True)):
        # The label of a patient is that of all slides together, not of some of them.
        labels = {told.label if told.slides <= len(group) else UNKNOWN for told, _, _ in group}
        parts = {told.part for told, _, _ in group}
        yield _Bag(
            bag, len(group), np.concatenate([truth for _, truth, _ in group]),
            np.concatenate([mine for _, _, mine in group]), labels.pop() if len(labels) == 1 else UNKNOWN,
            parts.pop() if len(parts) == 1 else "", float(pooled[number]),
        )  # fmt: skip
