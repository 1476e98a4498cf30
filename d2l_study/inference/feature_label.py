"""Labelling feature files with a model of vectors: a logit for each vector, and one for each bag.

OUT/scores.parquet      a row for each vector, with the place of its tile
OUT/bags.csv            a row for each bag, which is a slide, or a patient where a table joins slides to patients

A vector's logit is that of the bag which holds it alone; a bag's is what the model makes of the whole bag: a teacher by
its pooling, a student by pooling the scores of its instances. Vectors are read and scored in pieces; of a bag only its
terms are held (`models.pooling`), two numbers for each vector.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.damaged_files import reading_errors
from d2l_study.data.features.feature_file import changed_said
from d2l_study.errors import UserError
from d2l_study.inference.feature_inputs import FeatureInput
from d2l_study.inference.feature_scores import BAGS, Known, PartScores, bags_are_ours, write_scores
from d2l_study.inference.label import (
    NOT_FINITE,
    SCORES,
    ProgressCallback,
    check_scores,
    scoring_settings,
)
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.output_folder import check_replaced, make_folder, output_folder, shown, writing
from d2l_study.inference.score_checkpoint import ScoreCheckpoint, kept_until_written
from d2l_study.inference.smoothing import check_places_of_inputs
from d2l_study.learning.prediction import Compute


@dataclass(frozen=True)
class FeatureSummary:
    """What was written: the files of scores and of bags; vectors in all, and those predicted positive, None if the
    model has no threshold; parts: how the scores agree with what is known, by the part of the model's data."""

    path: Path
    bags: Path
    count: int
    positive: int | None
    parts: tuple[PartScores, ...]


def check_outputs(folder: Path) -> None:
    """`UserError` if something else than files of ours has their names."""
    check_scores(folder)
    check_replaced(folder / BAGS, bags_are_ours)


def label_features(
    stored: StoredModel,
    inputs: Sequence[FeatureInput],
    out: str | Path,
    known: Known | None = None,
    compute: Compute | None = None,
    progress: ProgressCallback | None = None,
    smooth: int = 0,
) -> FeatureSummary:
    """Label everything that `open_feature_inputs` found, and write the files named above (`feature_scores`).

    known: what is known of a slide beside its file; smooth: neighbours in its slide over which, with its own, the logit
    of a vector is averaged. Files appear whole or not at all; older ones are replaced. If it is
    interrupted, the bags that are scored are kept, and the same call goes on from there.
    `UserError` if the folder cannot be written, a file has changed since it was opened, or one to be smoothed does not
    say where its vectors are.
    """
    if smooth:
        check_places_of_inputs(inputs)
    folder = output_folder(out)
    check_outputs(folder)
    make_folder(folder)
    sizes = [entry.count + len(entry.bags) for entry in inputs]
    count = sum(entry.count for entry in inputs)
    listing = [[entry.bags, entry.count] for entry in inputs]
    kept = ScoreCheckpoint.open(
        folder / "scores", {**scoring_settings(stored, compute), "bags": listing}, (sum(sizes),)
    )
    with kept_until_written(kept) as work:
        _score(stored, inputs, kept, count, compute, progress)
        work.scored = True
        with writing(folder):
            positive, parts = write_scores(folder, stored, inputs, kept.logits, known, smooth)
    return FeatureSummary(folder / SCORES, folder / BAGS, count, positive, parts)


def _score(
    stored: StoredModel, inputs: Sequence[FeatureInput], kept: ScoreCheckpoint, count: int, compute: Compute | None,
    progress: ProgressCallback | None,
) -> None:  # fmt: skip
    """Score what is not scored yet: the kept numbers are, input by input, the logits of its vectors and of its bags."""
    say = progress or (lambda what, done, of: None)
    ends = np.cumsum([entry.count + len(entry.bags) for entry in inputs]).tolist()
    there = [end <= kept.done for end in ends]
    seen = 0
    for entry, is_there in zip(inputs, there, strict=True):
        seen = _state(entry, seen) if is_there else seen
    if seen != kept.pixels:  # they were scored from other files
        kept.begin_again()
        there = [False] * len(inputs)
    done = sum(entry.count for entry, is_there in zip(inputs, there, strict=True) if is_there)
    say(SCORES, done, count)
    for entry, end, is_there in zip(inputs, ends, there, strict=True):
        if is_there:
            continue
        state = _state(entry, kept.pixels)  # before they are read
        kept.logits[end - len(entry.bags) - entry.count : end] = np.concatenate(score_input(stored, entry, compute))
        kept.pixels = state
        kept.reached(end)
        done += entry.count
        say(SCORES, done, count)


def score_input(
    stored: StoredModel, entry: FeatureInput, compute: Compute | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The logits of an input's vectors, (count,) float32 in the order of its files, and of its bags, (bags,) float32,
    NaN for a bag without vectors. `UserError` for a file that is not what it was when it was opened."""

    def parts() -> Iterator[np.ndarray]:
        for file in entry.files:
            count = 0
            for piece in file.pieces():
                yield piece
                count += len(piece)
            if count != file.count:
                raise UserError(changed_said(file, count))

    try:
        return LoadedModel(stored, compute=compute).score_bags(parts(), entry.bag_of, len(entry.bags))
    except UserError as error:
        raise UserError(f"{entry.files[0].path}: {error}" if str(error) == NOT_FINITE else str(error)) from None


def _state(entry: FeatureInput, before: int) -> int:
    """A checksum of the states of an input's files, by size and time of change, going on from that of others."""
    for path in (file.path for file in entry.files):
        with reading_errors(path):
            stat = path.stat()
        before = zlib.crc32(json.dumps([shown(path), stat.st_size, stat.st_mtime_ns]).encode(), before)
    return before
