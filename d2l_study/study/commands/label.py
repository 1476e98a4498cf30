"""`label`: score instances, or whole images, with a stored model of a study."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.features.tables import TABLES
from d2l_study.device_errors import gpu_errors_in_a_line
from d2l_study.environment import user_path
from d2l_study.errors import UserError, counted
from d2l_study.inference import instance_file
from d2l_study.inference.image_colour import colourless_text, has_colour, trained_in_colour
from d2l_study.inference.image_cutting import AskedCut, Cutting
from d2l_study.inference.image_labelling import MAP, label_images, plan_images, split_inputs
from d2l_study.inference.inputs import IMAGE_SUFFIXES, Input, open_inputs
from d2l_study.inference.instance_file import InstanceFile
from d2l_study.inference.label import check_scores, label_inputs
from d2l_study.inference.output_folder import output_folder, shown, unused_folders_removed
from d2l_study.inference.slide_inputs import SlideInput
from d2l_study.inference.slide_label import SlideOptions, plan_slides
from d2l_study.inference.slide_outputs import formats_of
from d2l_study.inference.smoothing import smoothed_text
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import Compute
from d2l_study.slides.opening import is_slide
from d2l_study.study.commands.label_progress import LabelProgress
from d2l_study.study.commands.label_slides import Annotations, run_label_slides, split_slides
from d2l_study.study.commands.label_truth import KnownImages
from d2l_study.study.commands.label_vectors import label_vectors
from d2l_study.study.commands.progress_display import stdout
from d2l_study.study.commands.scoring_device import AUTO, scoring_compute, show_scoring_device
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.trial.model_reference import select_model
from d2l_study.study.trial.stored_models import SelectedModel


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
    mpp: float | None = None
    slide_mpp: float | None = None
    overlap: int | None = None
    tissue: bool = True
    formats: str | None = None
    truth: str | None = None
    positive: tuple[str, ...] = ()
    coverage: float | None = None
    smooth: int = 0
    device: str = AUTO

    def of_slides(self) -> list[str]:
        """The options given that only slides have."""
        given = {"--mpp": self.mpp, "--slide-mpp": self.slide_mpp, "--overlap": self.overlap,
                 "--no-tissue": None if self.tissue else True, "--formats": self.formats, "--truth": self.truth,
                 "--positive": self.positive or None, "--coverage": self.coverage}  # fmt: skip
        return [name for name, value in given.items() if value is not None]


@gpu_errors_in_a_line()
@unused_folders_removed()
def run_label(options: LabelOptions) -> int:
    """Label the inputs, and print what was made. Returns the exit code: 0, 1 if a slide could not be labelled, or 130
    if it was interrupted.

    `UserError` for what is wrong with the options, the model or the inputs. `MachineError` where a GPU fails.
    """
    out = output_folder(options.out)
    compute = scoring_compute(options.device)
    selected = select_model(options.run, options.root, options.replicate, options.tracking_uri)
    card = selected.stored.card
    print(f"model:    {card.stage} {selected.config_id[:10]} of study {card.study}, replicate {selected.replicate}, "
          f"{selected.choice}")  # fmt: skip
    print(f"          predicted positive {threshold_text(card.instance_threshold)}", flush=True)
    show_scoring_device(compute)
    of_vectors = len(selected.stored.model.shape) == 1
    _check_not_an_input(out, options.inputs, of_vectors)
    progress = LabelProgress(stdout(), "vectors" if of_vectors else "patches")
    try:
        if of_vectors:
            idle = [name for name in options.of_slides() if name not in ("--formats", "--slide-mpp")]
            for name in [*["--stride"] * (options.stride is not None), *idle]:
                raise UserError(f"{name}: this model labels feature vectors; no image is there to slide it over")
            formats = [] if options.formats is None else [f for f in formats_of(options.formats) if f != "parquet"]
            label_vectors(
                selected,
                options.inputs,
                out,
                options.root,
                options.data,
                progress,
                formats,
                options.slide_mpp,
                options.smooth,
                compute,
            )
        else:
            return _label_slides_images_and_patches(options, selected, out, progress, compute)
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
    """`UserError` if the folder that is written to lies in one that is labelled, or is that of a labelled file where
    the folder itself may be labelled another time: of an image, a slide or a feature file."""
    for name in inputs:
        with contextlib.suppress(OSError):
            given = user_path(name, "input")
            folder = given.resolve()
            beside = folder.is_file() and out.resolve() in (folder.parent, given.parent.resolve())
            if (
                beside
                and given.suffix.lower() not in TABLES
                and (of_vectors or given.suffix.lower() in IMAGE_SUFFIXES or is_slide(given))
            ):
                raise UserError(f"--out {out}: is the folder of the input {name}, and would mix what is written with "
                                "what is labelled; name another folder")  # fmt: skip
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


def _label_slides_images_and_patches(
    options: LabelOptions, selected: SelectedModel, out: Path, progress: LabelProgress, compute: Compute
) -> int:
    shape = selected.stored.model.patch_shape
    cutting = Cutting.of(selected.stored, AskedCut(mpp=options.mpp))
    slides, names = split_slides(options.inputs, shape, cutting.mpp is not None, options.slide_mpp)
    images, others = split_inputs(names, shape)
    inputs = open_inputs(others, shape) if others else []
    if not slides and options.of_slides():
        raise UserError(f"{options.of_slides()[0]}: no input is a whole-slide image")
    if not images:
        _check_idle(options, slides, shape)
    if inputs and options.smooth:
        raise UserError(f"--smooth: {inputs[0].source}: holds patches without places, which have no neighbours; it "
                        "goes with slides and with images larger than a patch")  # fmt: skip
    if inputs:
        check_scores(out)
    of_slides = _slide_options(options, cutting)
    taken = [one.stem.name for one in plan_slides(selected.stored, slides, out, of_slides)] if slides else []
    if images:  # checked here too, so that nothing is looked up of a data set for what cannot be labelled
        plan_images(selected.stored, images, out, options.stride, taken)
    truth = Annotations.of(options.truth, options.positive, slides) if options.truth is not None else None
    part_of = _parts(options, selected, bool(slides))
    failed = 0
    with progress:
        with InstanceFile(out, selected.stored.card.instance_threshold) as instances:
            if slides:
                failed = run_label_slides(
                    selected, slides, out, of_slides, truth, progress, part_of, compute, instances
                )
            if images:
                _label_images(options, selected, images, progress, compute, instances, taken)
            instances.finish()
        if inputs:
            _label_patches(options, selected, inputs, progress, compute)
    if options.smooth and selected.stored.card.instance_threshold is not None:
        print(f"note:     {smoothed_text(options.smooth)}")
    return 1 if failed else 0


def _parts(options: LabelOptions, selected: SelectedModel, wanted: bool) -> Callable[[Path], str]:
    """Which part of its data a slide was to the model: known where these are slides, and still where they were."""
    if not wanted or selected.stored.card.sections.get("data", {}).get("mpp") is None:
        return lambda _: ""
    known = KnownImages.of_model(Ledger(open_storage(options.root)), selected.config_id, selected.replicate, None)
    if not known.part_of:
        why = f": {known.reason.splitlines()[0]}" if known.reason else ", since its data have changed"
        print(f"          which slides this model was trained on is not known{why}", flush=True)
    return known.part


def _check_idle(options: LabelOptions, slides: Sequence[SlideInput], shape: tuple[int, ...]) -> None:
    for name, value in (("--stride", options.stride), ("--data", options.data)):
        if value is not None:
            hint = "; of tiles of slides --overlap is meant, and --truth" if slides else ""
            raise UserError(f"{name}: no input is an image larger than a patch of {shape[2]}×{shape[1]}{hint}")


def _slide_options(options: LabelOptions, cutting: Cutting) -> SlideOptions:
    """cutting: as the model was trained; --overlap and --no-tissue win over it."""
    default = SlideOptions()
    if options.truth is None:
        for name in ("--positive", "--coverage"):
            if name in options.of_slides():
                raise UserError(f"{name}: does nothing without --truth")
    return SlideOptions(
        cutting.mpp, cutting.overlap if options.overlap is None else options.overlap,
        cutting.tissue and options.tissue,
        default.formats if options.formats is None else formats_of(options.formats),
        default.coverage if options.coverage is None else options.coverage,
        cutting.least_tissue, options.smooth, cutting.white_above,
    )  # fmt: skip


def _label_images(
    options: LabelOptions,
    selected: SelectedModel,
    images: list[Path],
    progress: LabelProgress,
    compute: Compute,
    instances: InstanceFile,
    others: Sequence[str],
) -> None:
    ledger = Ledger(open_storage(options.root))
    truth = KnownImages.of_model(ledger, selected.config_id, selected.replicate, options.data)
    known, colourless = 0, []
    in_colour = trained_in_colour(selected.stored)
    for image in label_images(selected.stored, images, options.out, options.stride, truth, compute, progress,
                              options.smooth, instances, others):  # fmt: skip
        progress.files, progress.done = progress.files + 1, 0
        colourless += [image.source] * (in_colour and not has_colour(Path(image.source)))
        grid, name = image.grid, shown(image.path.name.removesuffix(MAP))
        line = f"{name}: {grid.rows}×{grid.columns} patches at stride {grid.stride}"
        line += "" if not image.white else f" ({image.white:.1%} of them white ground, which is not counted)"
        line += "" if image.share is None else f", {image.share:.1%} predicted positive"
        if image.instances:
            known += image.instances
            area = "" if math.isnan(image.area) else f", AUC {image.area:.3f}"
            line += f"; {image.instances} true instances{area}"
        line += f" ({image.note})" if image.note else ""
        progress.say(line + ("; its scores were there" if image.again else ""))
    print(f"maps:     {options.out}: NAME{MAP}, NAME.json (geometry), NAME.overlay.png"
          + (f"; {instance_file.NAME}: scores of {known:,} true instances" if known else ""))  # fmt: skip
    if colourless:
        print(f"note:     {colourless_text(colourless)}")
    if not known:
        print(f"          no true instances are known here{': ' + truth.reason if truth.reason else ''}")


def _label_patches(
    options: LabelOptions, selected: SelectedModel, inputs: Sequence[Input], progress: LabelProgress, compute: Compute
) -> None:
    shape = selected.stored.model.patch_shape
    summary = label_inputs(selected.stored, inputs, options.out, compute, progress)
    sources = counted(len(inputs), "file")
    print(f"labelled: {summary.count:,} instances of {'×'.join(map(str, shape))} from {sources}")
    if summary.positive is not None:
        print(f"positive: {summary.positive:,} ({summary.positive / summary.count:.1%}) predicted positive")
    print(f"scores:   {summary.path}")
