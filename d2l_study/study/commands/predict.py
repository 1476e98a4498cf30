"""`predict`: scores of bags and of their instances, by a trained model, for any data that it reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.device_errors import gpu_errors_in_a_line
from d2l_study.errors import UserError, counted
from d2l_study.inference.feature_inputs import notes_on_inputs, open_feature_inputs
from d2l_study.inference.feature_predictions import predict_features
from d2l_study.inference.image_colour import colourless_text
from d2l_study.inference.image_cutting import AskedCut, Cutting
from d2l_study.inference.loaded_model import LoadedModel
from d2l_study.inference.output_folder import unused_folders_removed
from d2l_study.inference.patch_bags import BagReading, UnreadBag, predict_patches
from d2l_study.inference.patch_inputs import check_used, cut_text, open_patch_bags
from d2l_study.inference.prediction_file import (
    PredictedBag,
    PredictionFile,
    Thresholds,
    about_model,
    check_prediction_file,
)
from d2l_study.inference.slide_inputs import unused_resolution
from d2l_study.inference.smoothing import (
    about_smoothing,
    check_places_of_inputs,
    check_places_of_patches,
    smoothed_bag,
    smoothed_text,
)
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import Compute
from d2l_study.study.commands.label import threshold_text
from d2l_study.study.commands.label_progress import LabelProgress
from d2l_study.study.commands.progress_display import stdout
from d2l_study.study.commands.scoring_device import AUTO, scoring_compute, show_scoring_device
from d2l_study.study.commands.seen_bags import SeenBags
from d2l_study.study.trial.model_reference import FoundModel, find_models


@dataclass(frozen=True)
class PredictOptions:
    """The options of `predict`, by their names on the command line."""

    run: str
    data: tuple[str, ...]
    out: str
    root: str = "runs"
    replicate: int | None = None
    tracking_uri: str | None = None
    stride: int | None = None
    mpp: float | None = None
    slide_mpp: float | None = None
    tissue: bool = True
    smooth: int = 0
    device: str = AUTO

    def of_images(self) -> list[str]:
        """The options given that only images have."""
        given = {"--stride": self.stride, "--mpp": self.mpp, "--slide-mpp": self.slide_mpp,
                 "--no-tissue": None if self.tissue else True}  # fmt: skip
        return [name for name, value in given.items() if value is not None]


@gpu_errors_in_a_line()
@unused_folders_removed()
def run_predict(options: PredictOptions) -> int:
    """Score the bags, write the file, and print what was made. Returns the exit code: 0, or 1 if a bag could not be
    read.

    `UserError` for what is wrong with the options, the model or the data. `MachineError` where a GPU fails.
    """
    out = check_prediction_file(options.out)
    compute = scoring_compute(options.device)
    (found,) = find_models(options.run, options.root, options.replicate, options.tracking_uri, device=compute.device)
    model = found.loaded
    print("\n".join(model_lines(found)), flush=True)
    show_scoring_device(compute)
    noun = "vectors" if len(model.shape) == 1 else "patches"
    failed, reading, seen = 0, BagReading(), SeenBags.of_model(found)
    with LabelProgress(stdout(), noun) as progress:
        if noun == "vectors":
            bags: Iterator[PredictedBag | UnreadBag] = _vector_bags(model, options, progress, compute)
        else:
            bags = _patch_bags(model, options, progress, reading)
        thresholds = Thresholds.of(model)
        about = about_model(model) | about_smoothing(options.smooth)
        with PredictionFile(out, about, thresholds) as file:
            for bag in bags:
                if isinstance(bag, UnreadBag):
                    failed += 1
                    progress.say(f"{bag.name}: not scored: {bag.problem}")
                else:
                    file.add(smoothed_bag(bag, options.smooth) if options.smooth else bag)
                    seen.add(bag)
                while reading.notes:
                    progress.say(reading.notes.pop(0))
    print("\n".join(_made_lines(out, file, thresholds, noun, options.smooth)))
    for note in (seen.note(), unused_resolution(reading.opened)):
        if note:
            print(f"note:     {note}")
    if reading.colourless:
        print(f"note:     {colourless_text(reading.colourless)}")
    if failed:
        print(f"          {counted(failed, 'bag')} could not be scored, as said above")
    return 1 if failed else 0


def model_lines(found: FoundModel) -> list[str]:
    """Which model it is, and what it predicts positive, for people."""
    card, model = found.loaded.stored.card, found.loaded
    choice = f", {found.choice}" if found.choice else ""
    bag = "are not predicted: no threshold of bags is known of this model"
    if model.bag_threshold is not None:
        score = float(probability(np.array(model.bag_threshold)))
        bag = f"above logit {model.bag_threshold:.3f}, score {score:.3f}, set on the validation bags"
    return [
        f"model:    {card.stage} {found.config_id[:10]} of study {card.study}, replicate {found.replicate}{choice}",
        f"          predicted positive {threshold_text(model.instance_threshold)}",
        f"          bags {bag}",
    ]


def _patch_bags(
    model: LoadedModel, options: PredictOptions, progress: LabelProgress, reading: BagReading
) -> Iterator[PredictedBag | UnreadBag]:
    asked = AskedCut(options.stride, options.mpp, options.slide_mpp, options.tissue)
    cutting = Cutting.of(model.stored, asked)
    bags, notes = open_patch_bags(options.data, cutting)
    check_used(bags, asked)
    if options.smooth:
        check_places_of_patches(bags)
    for note in notes:
        progress.say(note)
    if text := cut_text(bags, cutting):
        print(f"cut:      {text}", flush=True)
    return predict_patches(model, bags, cutting.white_above, progress, reading)


def _vector_bags(
    model: LoadedModel, options: PredictOptions, progress: LabelProgress, compute: Compute
) -> Iterator[PredictedBag]:
    for name in options.of_images():
        raise UserError(f"{name}: this model scores feature vectors; no image is there to cut")
    inputs = open_feature_inputs(options.data, model.stored, progress.checked)
    if options.smooth:
        check_places_of_inputs(inputs)
    for note in notes_on_inputs(inputs, model.stored):
        progress.say(note)
    return predict_features(model, inputs, compute, progress)


def _made_lines(out: Path, file: PredictionFile, thresholds: Thresholds, noun: str, smooth: int) -> list[str]:
    lines = [f"scored:   {counted(file.bags, 'bag')}, {file.instances:,} {noun}"]
    if not file.bags:
        return [*lines, "scores:   nothing was written"]
    positive = []
    if thresholds.bag is not None:
        positive.append(f"{counted(file.positive_bags, 'bag')} ({file.positive_bags / file.bags:.1%})")
    if thresholds.instance is not None:
        share = file.positive_instances / max(1, file.instances)
        positive.append(f"{file.positive_instances:,} {noun} ({share:.1%})")
    if positive:
        lines.append(f"positive: {', '.join(positive)} predicted positive")
    if smooth and thresholds.instance is not None:
        lines.append(f"          {smoothed_text(smooth)}")
    return [*lines, f"scores:   {out}"]
