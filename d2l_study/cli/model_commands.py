"""The commands about trained models: `predict`, `evaluate`, `export`, `register`."""

from __future__ import annotations

import argparse
from typing import Any

from d2l_study.cli.arguments import add_command, add_device, add_root, positive, replicate_number, resolution

MODEL_EXPORT = "write a model as a folder that travels, or for other programs (rows of a study: analysis export)"
MODELS = "a trial's id (status STUDY lists them), an MLflow run, a model's folder, or models:/NAME@ALIAS"


def add_model_commands(commands: Any) -> None:
    """Add the commands to a parser's `commands`."""
    _add_predict(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_register(commands)


def add_model(parser: argparse.ArgumentParser) -> None:
    """The arguments that say which model: --run, --replicate, --tracking-uri, --root."""
    parser.add_argument("--run", required=True, metavar="MODEL", help=MODELS)
    parser.add_argument("--replicate", type=replicate_number, metavar="R", help="default: the best on validation")
    parser.add_argument("--tracking-uri", metavar="URI", help="where the MLflow run or model is; default as for run")
    add_root(parser)


def _add_predict(commands: Any) -> None:
    predict = add_command(commands, "predict", _predict, "score bags and their instances with a trained model")
    add_model(predict)
    predict.add_argument("data", nargs="+", metavar="DATA",
                         help="what the model reads: feature files, folders or tables of them; of a model of patches a "
                              "manifest, images, slides, folders of them, or arrays of patches")  # fmt: skip
    predict.add_argument("--out", required=True, metavar="FILE", help="the scores, a .parquet or .csv file")
    add_device(predict)
    predict.add_argument("--smooth", type=positive, metavar="K",
                         help="average the score of an instance over its K nearest neighbours in the image and its "
                              "own; needs their places. Scores of bags stay, and so does the threshold, set on "
                              "scores that are not averaged")  # fmt: skip
    images = predict.add_argument_group("images and slides")
    images.add_argument("--stride", type=positive, metavar="S",
                        help="pixels from patch to patch of a grid; default: as it was trained")  # fmt: skip
    images.add_argument("--mpp", type=resolution, metavar="X",
                        help="µm per pixel of the model's patches; default: as it was trained")  # fmt: skip
    images.add_argument("--slide-mpp", type=resolution, metavar="X",
                        help="µm per pixel of slides that do not say it themselves")  # fmt: skip
    images.add_argument("--no-tissue", action="store_true", help="score all tiles of slides, not those of tissue only")


def _predict(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.predict import PredictOptions, run_predict

    return run_predict(PredictOptions(
        arguments.run, tuple(arguments.data), arguments.out, arguments.root, arguments.replicate,
        arguments.tracking_uri, arguments.stride, arguments.mpp, arguments.slide_mpp, not arguments.no_tissue,
        arguments.smooth or 0, arguments.device,
    ))  # fmt: skip


def _add_evaluate(commands: Any) -> None:
    evaluate = add_command(commands, "evaluate", _evaluate, "validate one or two trained models on data with labels")
    add_model(evaluate)
    evaluate.add_argument("--data", required=True, metavar="OTHER",
                          help="what the model reads, with labels: a table of slides, a folder, a file of a whole data "
                               "set; of a model of patches a manifest, or the name of a data set")  # fmt: skip
    evaluate.add_argument("--set", action="append", default=[], metavar="data.KEY=VALUE",
                          help="how the data are read, where that is not as in training; may be repeated")  # fmt: skip
    evaluate.add_argument("--ensemble", action="store_true",
                          help="all stored replicates of the trial together, beside each alone")  # fmt: skip
    add_device(evaluate)
    evaluate.add_argument("--out", metavar="DIR", help="folder for evaluation.html, metrics.csv and scores.parquet")
    evaluate.add_argument("--leave-out-shared", action="store_true",
                          help="leave out bags that training has seen, instead of refusing the data")  # fmt: skip
    evaluate.add_argument("--allow-shared", action="store_true", help="evaluate them too")


def _evaluate(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.evaluate import EvaluateOptions, run_evaluate

    return run_evaluate(EvaluateOptions(
        arguments.run, arguments.data, tuple(arguments.set), arguments.ensemble, arguments.out,
        arguments.allow_shared, arguments.leave_out_shared, arguments.root, arguments.replicate,
        arguments.tracking_uri, arguments.device,
    ))  # fmt: skip


def _add_export(commands: Any) -> None:
    export = add_command(commands, "export", _export, MODEL_EXPORT)
    add_model(export)
    export.add_argument("--to", required=True, metavar="DIR|wsinfer|onnx",
                        help="a folder (weights, card, a page for people); for WSInfer, QuPath; or ONNX")  # fmt: skip
    export.add_argument("--out", metavar="DIR", help="where to write wsinfer and onnx")
    export.add_argument("--mpp", type=resolution, metavar="X",
                        help="wsinfer: µm per pixel of the model's patches, where its data do not say it")  # fmt: skip
    export.add_argument("--classes", nargs=2, metavar=("NEGATIVE", "POSITIVE"),
                        help="wsinfer: names of the classes; default: those of the data set")  # fmt: skip
    export.add_argument("--licence", metavar="TEXT", help="licence of the model, for its page")


def _export(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.export import ExportOptions, run_export

    more = {} if arguments.licence is None else {"licence": arguments.licence}
    classes = tuple(arguments.classes) if arguments.classes else None
    return run_export(ExportOptions(
        arguments.run, arguments.to, arguments.out, arguments.root, arguments.replicate, arguments.tracking_uri,
        arguments.mpp, classes, **more,
    ))  # fmt: skip


def _add_register(commands: Any) -> None:
    register = add_command(commands, "register", _register, "make a model a version of a name in MLflow's registry")
    add_model(register)
    register.add_argument("--name", required=True, metavar="NAME", help="of the registered model; made if it is new")
    register.add_argument("--alias", metavar="ALIAS", help="set on the version, as champion in models:/NAME@champion")


def _register(arguments: argparse.Namespace) -> int:
    from d2l_study.study.commands.register import RegisterOptions, run_register

    return run_register(RegisterOptions(
        arguments.run, arguments.name, arguments.alias, arguments.root, arguments.replicate, arguments.tracking_uri,
    ))  # fmt: skip
