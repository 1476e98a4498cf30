"""The commands about one trial: `trial`, `reproduce`, `label`."""

from __future__ import annotations

import argparse
from typing import Any

from d2l_study.cli.arguments import (
    add_command,
    add_device,
    add_root,
    not_negative,
    positive,
    replicate_number,
    resolution,
    share,
)


def add_trial_commands(commands: Any) -> None:
    """Add `trial` and `reproduce` to a parser's `commands`."""
    trial = add_command(commands, "trial", _trial, "run one trial in this process, under a debugger if wished")
    trial.add_argument("--id", required=True, metavar="ID", help="a trial's id, as status STUDY lists it")
    trial.add_argument("--replicate", type=replicate_number, action="append", metavar="R", help="only this replicate")
    trial.add_argument("--weights", action="store_true",
                       help="train again the runs whose weights were not kept, and keep them, for `label`")  # fmt: skip
    add_root(trial)

    again = add_command(commands, "reproduce", _reproduce, "train a trial again from its record, and compare")
    again.add_argument("trial", metavar="TRIAL", help="a trial's id, as status STUDY lists it")
    again.add_argument("--replicate", type=replicate_number, action="append", metavar="R", help="only this replicate")
    add_root(again)


def add_label(commands: Any) -> None:
    """Add `label` to a parser's `commands`."""
    label = add_command(commands, "label", _label, "label instances with a stored model of a study")
    label.add_argument("--run", required=True, metavar="MODEL",
                       help="a trial's id, as status STUDY lists it, or its first digits, the id of its MLflow run, a "
                            "model's folder, or models:/NAME@ALIAS")  # fmt: skip
    label.add_argument("inputs", nargs="+", metavar="INPUT",
                       help=".npy or .npz (FILE.npz:NAME) arrays, IDX files, images, or folders of images; over an "
                            "image larger than a patch the model is slid. For a model of feature vectors: feature "
                            "files of any kind, folders of them, tables of slides")  # fmt: skip
    label.add_argument("--out", required=True, metavar="DIR",
                       help="folder for scores.parquet (and bags.csv of features), or the maps of images")  # fmt: skip
    label.add_argument("--stride", type=positive, metavar="S",
                       help="pixels between patches in a large image; default: a quarter of a patch")  # fmt: skip
    label.add_argument("--data", metavar="DIR",
                       help="folder of the model's data set, for true instances; default: as trained")  # fmt: skip
    label.add_argument("--smooth", type=positive, metavar="K",
                       help="average the score of an instance over its K nearest neighbours in the image and its own; "
                            "needs their places. The threshold stays, set on scores that are not averaged")  # fmt: skip
    add_device(label)
    _add_slide_arguments(label)
    label.add_argument("--replicate", type=replicate_number, metavar="R", help="default: the best on validation")
    label.add_argument("--tracking-uri", metavar="URI", help="where the MLflow run is; default as for run")
    add_root(label)


def _add_slide_arguments(label: argparse.ArgumentParser) -> None:
    """The arguments of `label` that are about whole-slide images."""
    slides = label.add_argument_group("whole-slide images")
    slides.add_argument("--mpp", type=resolution, metavar="X",
                        help="µm per pixel of the model's patches; default: as it was trained")  # fmt: skip
    slides.add_argument("--slide-mpp", type=resolution, metavar="X",
                        help="µm per pixel of slides that do not say it themselves")  # fmt: skip
    slides.add_argument("--overlap", type=not_negative, metavar="N",
                        help="pixels that neighbouring tiles share; default: as the model was trained")  # fmt: skip
    slides.add_argument("--no-tissue", action="store_true",
                        help="label all tiles, also where the model was trained on those of tissue")  # fmt: skip
    slides.add_argument("--formats", metavar="LIST",
                        help="of parquet,h5,geojson,regions,map,overlay; default: all but h5")  # fmt: skip
    slides.add_argument("--truth", metavar="FILE|DIR",
                        help="annotations named as the slides: QuPath GeoJSON, ASAP XML, masks")  # fmt: skip
    slides.add_argument("--positive", action="append", metavar="CLASS",
                        help="the annotation class that is positive; may be repeated")  # fmt: skip
    slides.add_argument("--coverage", type=share, metavar="SHARE",
                        help="share of a tile to be annotated for it to be positive; default: 0.5")  # fmt: skip


def _trial(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.trial import run_recorded_trial

    return run_recorded_trial(arguments.id, arguments.replicate, arguments.root, arguments.weights)


def _reproduce(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.reproduce import reproduce

    return reproduce(arguments.trial, arguments.replicate, arguments.root)


def _label(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.label import LabelOptions, run_label

    return run_label(LabelOptions(
        arguments.run, tuple(arguments.inputs), arguments.out, arguments.root, arguments.stride, arguments.data,
        arguments.replicate, arguments.tracking_uri, arguments.mpp, arguments.slide_mpp, arguments.overlap,
        not arguments.no_tissue, arguments.formats, arguments.truth, tuple(arguments.positive or ()),
        arguments.coverage, arguments.smooth or 0, arguments.device,
    ))  # fmt: skip
