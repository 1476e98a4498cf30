"""`label`: score instances, or whole images, with a stored model of a study."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.environment import user_path
from d2l_study.errors import UserError, counted
from d2l_study.inference import instance_file
from d2l_study.inference.image_labelling import MAP, label_images, plan_images, split_inputs
from d2l_study.inference.inputs import Input, open_inputs
from d2l_study.inference.label import check_scores, label_inputs
from d2l_study.inference.output_folder import output_folder, shown
from d2l_study.learning.metrics import probability
from d2l_study.study.commands.label_progress import LabelProgress
from d2l_study.study.commands.label_truth import KnownImages
from d2l_study.study.commands.label_vectors import label_vectors
from d2l_study.study.commands.progress_display import stdout
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.trial.stored_models import SelectedModel, find_model


@dataclass(frozen=True)
class LabelOptions:
    """The options of `label`, by their names on the command line."""

    run: str
    inputs: tuple[str, ...]
    out: str
    root: str = "runs"
    stride: int | None = None
    data: str | None = None
    replicate: int | None = None
    tracking_uri: str | None = None


def run_label(options: LabelOptions) -> int:
    """Label the inputs, and print what was made. Returns the exit code: 0, or 130 if it was interrupted.

    `UserError` for what is wrong with the options, the model or the inputs.
    """
    out = output_folder(options.out)
    selected = find_model(options.root, options.run, options.replicate, options.tracking_uri)
    card = selected.stored.card
    print(f"model:    {card.stage} {selected.config_id[:10]} of study {card.study}, replicate {selected.replicate}, "
          f"{selected.choice}")  # fmt: skip
    print(f"          predicted positive {threshold_text(card.instance_threshold)}", flush=True)
    of_vectors = len(selected.stored.model.shape) == 1
    _check_not_an_input(out, options.inputs, of_vectors)
    progress = LabelProgress(stdout(), "vectors" if of_vectors else "patches")
    try:
        if of_vectors:
            if options.stride is not None:
                raise UserError("--stride: this model labels feature vectors; no image is there to slide it over")
            label_vectors(selected, options.inputs, out, options.root, options.data, progress)
        else:
            _label_images_and_patches(options, selected, out, progress)
    except KeyboardInterrupt:
        print(f"\nStopped; {_kept(progress, options.out)}.", file=sys.stderr)
        return 130
    return 0


def threshold_text(threshold: float | None) -> str:
    """The threshold above which a model calls an instance positive, in words."""
    if threshold is None:
        return "is nothing: this model's threshold could not be set (its scores stand all the same)"
    score = float(probability(np.array(threshold)))
    return f"is what lies above the model's threshold: logit {threshold:.3f}, score {score:.3f}"


def _check_not_an_input(out: Path, inputs: Sequence[str], of_vectors: bool) -> None:
    """`UserError` if the folder that is written to lies in one that is labelled."""
    for name in inputs:
        with contextlib.suppress(OSError):
            folder = user_path(name, "input").resolve()
            if folder.is_dir() and out.resolve().is_relative_to(folder):
                why = ("whose feature files are labelled, and would lie among them" if of_vectors else
                       "all images of which are labelled: the next time those drawn here, too")  # fmt: skip
                raise UserError(f"--out {out}: lies in the folder {name}, {why}; name a folder outside of it")


def _kept(progress: LabelProgress, out: str) -> str:
    """What an interrupted command has kept, in words."""
    there = [f"{counted(progress.files, 'image')} done"] * bool(progress.files)
    if progress.done > 0:
        there.append(f"{progress.done:,} of {progress.count:,} {progress.noun} of {progress.name} scored")
    if not there:
        return "nothing had been scored yet"
    return f"{' and '.join(there)} are kept in {out}, and the same command goes on from there"


def _label_images_and_patches(
    options: LabelOptions, selected: SelectedModel, out: Path, progress: LabelProgress
) -> None:
    shape = selected.stored.model.patch_shape
    images, others = split_inputs(options.inputs, shape)
    inputs = open_inputs(others, shape) if others else []
    if not images and (options.stride is not None or options.data is not None):
        option = "--stride" if options.stride is not None else "--data"
        raise UserError(f"{option}: no input is an image larger than a patch of {shape[2]}×{shape[1]}")
    if inputs:
        check_scores(out)
    if images:  # checked here too, so that nothing is looked up of a data set for what cannot be labelled
        plan_images(selected.stored, images, out, options.stride)
    with progress:
        if images:
            _label_images(options, selected, images, progress)
        if inputs:
            _label_patches(options, selected, inputs, progress)


def _label_images(options: LabelOptions, selected: SelectedModel, images: list[Path], progress: LabelProgress) -> None:
    ledger = Ledger(open_storage(options.root))
    truth = KnownImages.of_model(ledger, selected.config_id, selected.replicate, options.data)
    known = 0
    for image in label_images(selected.stored, images, options.out, options.stride, truth, progress=progress):
        progress.files, progress.done = progress.files + 1, 0
        grid, name = image.grid, shown(image.path.name.removesuffix(MAP))
        line = f"{name}: {grid.rows}×{grid.columns} patches at stride {grid.stride}"
        line += "" if image.share is None else f", {image.share:.1%} predicted positive"
        if image.instances:
            known += image.instances
            area = "" if math.isnan(image.area) else f", AUC {image.area:.3f}"
            line += f"; {image.instances} true instances{area}"
        line += f" ({image.note})" if image.note else ""
        progress.say(line + ("; its scores were there" if image.again else ""))
    print(f"maps:     {options.out}: NAME{MAP}, NAME.json (geometry), NAME.overlay.png"
          + (f"; {instance_file.NAME}: scores of {known:,} true instances" if known else ""))  # fmt: skip
    if not known:
        print(f"          no true instances are known here{': ' + truth.reason if truth.reason else ''}")


def _label_patches(
    options: LabelOptions, selected: SelectedModel, inputs: Sequence[Input], progress: LabelProgress
) -> None:
    shape = selected.stored.model.patch_shape
    summary = label_inputs(selected.stored, inputs, options.out, progress=progress)
    sources = counted(len(inputs), "file")
    print(f"labelled: {summary.count:,} instances of {'×'.join(map(str, shape))} from {sources}")
    if summary.positive is not None:
        print(f"positive: {summary.positive:,} ({summary.positive / summary.count:.1%}) predicted positive")
    print(f"scores:   {summary.path}")
