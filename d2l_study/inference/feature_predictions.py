"""Scores of the bags of feature files: the numbers of `label`, as rows of bags and instances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from d2l_study.data.features.opening import places
from d2l_study.inference.feature_inputs import FeatureInput
from d2l_study.inference.feature_label import score_input
from d2l_study.inference.label import ProgressCallback
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.prediction_file import PredictedBag
from d2l_study.learning.prediction import Compute


def predict_features(
    model: LoadedModel, inputs: Sequence[FeatureInput], compute: Compute | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[PredictedBag]:  # fmt: skip
    """The bags of everything that `open_feature_inputs` found, in its order. An instance's index counts the vectors of
    all files of its bag. `UserError` for a file that has changed since it was opened."""
    count, done = sum(entry.count for entry in inputs), 0
    say = progress or (lambda name, done, count: None)
    say("scoring", 0, count)
    for entry in inputs:
        logits, pooled = score_input(model.stored, entry, compute)
        xy = np.concatenate([places(file) for file in entry.files])
        file_of = np.repeat(np.arange(len(entry.files)), [file.count for file in entry.files])
        sources = tuple(str(file.path) for file in entry.files)
        bag_of = entry.bag_of
        order = np.argsort(bag_of, kind="stable")
        ends = np.cumsum(np.bincount(bag_of, minlength=len(entry.bags)))
        for b, mine in enumerate(np.split(order, ends[:-1])):
            yield PredictedBag(entry.bags[b], sources, file_of[mine], xy[mine], logits[mine], float(pooled[b]))
        done += entry.count
        say("scoring", done, count)
