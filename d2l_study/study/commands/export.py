"""`export`: a model of a study as a folder that travels, or in the formats of WSInfer, QuPath and ONNX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from d2l_study.atomic_files import write_whole
from d2l_study.data import DATASETS
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed
from d2l_study.inference.model_card import NO_LICENCE
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.model_folder import (
    CARD,
    MODEL,
    README,
    edited_page,
    folder_name,
    is_model_folder,
    read_model_folder,
    same_weights,
)
from d2l_study.inference.onnx_export import FILE as ONNX_FILE
from d2l_study.inference.onnx_export import export_onnx
from d2l_study.inference.output_folder import make_with_parents, unused_folders_removed
from d2l_study.inference.wsinfer_export import CONFIG, check_wsinfer, export_wsinfer
from d2l_study.inference.wsinfer_export import MODEL as WSINFER_FILE
from d2l_study.study.commands.found_model import whole_record, write_found_model
from d2l_study.study.trial.model_reference import find_models

FORMATS = ("wsinfer", "onnx")


@dataclass(frozen=True)
class ExportOptions:
    """The options of `export`, by their names on the command line."""

    run: str
    to: str
    out: str | None = None
    root: str = "runs"
    replicate: int | None = None
    tracking_uri: str | None = None
    mpp: float | None = None
    classes: tuple[str, str] | None = None
    licence: str = NO_LICENCE


@unused_folders_removed()
def run_export(options: ExportOptions) -> int:
    """Write the model, and print what was written. `UserError` for what is wrong with the options or the model."""
    kind = options.to.lower() if options.to.lower() in FORMATS else "folder"
    folder = _target(options, kind)
    if kind != "wsinfer":
        for name, value in (("--mpp", options.mpp), ("--classes", options.classes)):
            if value is not None:
                raise UserError(f"{name}: is for --to wsinfer; the model's folder says it by itself")
    found = find_models(options.run, options.root, options.replicate, options.tracking_uri)[0]
    stored = found.loaded.stored
    print(f"model:    {found.loaded.name} of study {stored.card.study}"
          + (f", {found.choice}" if found.choice else ""), flush=True)  # fmt: skip
    if kind == "wsinfer":
        classes = options.classes or _classes(stored)
        check_wsinfer(stored, classes)  # first whether it can be done at all
        mpp = _resolution(options, stored)
        _make(folder, "--out")
        worst = export_wsinfer(stored, folder, mpp, classes)
        side = stored.model.patch_shape[1]
        print(f"wsinfer:  {folder}: {WSINFER_FILE}, {CONFIG}: patches of {side} pixels at {mpp:g} µm, classes "
              f"{classes[0]}, {classes[1]}")  # fmt: skip
        print(f"checked:  logits of random patches are the model's to {worst:.1g}")
    elif kind == "onnx":
        _make(folder, "--out")
        worst = export_onnx(stored, folder)
        print(f"onnx:     {folder / ONNX_FILE}: instances of one bag in, instance_logits and bag_logit out")
        print(f"checked:  logits of random bags, by onnxruntime, are the model's to {worst:.1g}")
    else:
        record = whole_record(found)
        edited = _edited_page(folder, stored)
        _make(folder, "--to")
        write_found_model(folder, found, record, folder_name(folder), options.licence)
        if edited is not None:
            write_whole(folder / README, edited)
        print(f"folder:   {folder}: {MODEL}, {CARD}, {README}" + " (kept, since it was edited)" * (edited is not None))
        if record.trained_on is None:
            print("note:     its data set is not here as it was trained on: the folder does not say which bags it saw")
        print(f'load:     d2l_study.load("{folder}")')
    return 0


def _target(options: ExportOptions, kind: str) -> Path:
    """The folder to write to. `UserError` for one that holds something else."""
    if kind == "folder":
        if options.out is not None:
            raise UserError(f"--out {options.out}: --to {options.to} is the folder already; --out is for --to "
                            f"{' and '.join(FORMATS)}")  # fmt: skip
        folder = user_path(options.to, "--to")
    else:
        if options.out is None:
            raise UserError(f"--to {kind}: needs --out DIR, the folder to write to")
        folder = user_path(options.out, "--out")
    name = "--to" if kind == "folder" else "--out"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{name} {folder}: is a file; expected a folder")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    # A README.md or config.json says nothing of whose folder it is: many others have one.
    marks = {"folder": {CARD, MODEL}, "wsinfer": {WSINFER_FILE}, "onnx": {ONNX_FILE}}[kind]
    if there and not marks <= there:
        if kind == "folder" and there & marks:
            raise UserError(f"{name} {folder}: holds something else than a model's folder; name a new folder")
        others = listed(sorted(there), 3)
        raise UserError(f"{name} {folder}: holds other files ({others}); name a new folder, or an empty one")
    return folder


def _edited_page(folder: Path, stored: StoredModel) -> bytes | None:
    """The page of a model that is there already, if a person has edited it. `UserError` if it is another model."""
    if not is_model_folder(folder):
        return None
    before, _ = read_model_folder(folder, "--to")
    if same_weights(before, stored):
        return edited_page(folder)
    card = before.card
    raise UserError(f"--to {folder}: holds another model, {card.stage} {card.config_id[:10]} replicate {card.replicate}"
                    "; name a new folder, or remove it")  # fmt: skip


def _make(folder: Path, option: str) -> None:
    """option: that named the folder."""
    try:
        make_with_parents(folder)
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be made: {error.strerror or error}") from None


def _resolution(options: ExportOptions, stored: StoredModel) -> float:
    own = stored.card.sections.get("data", {}).get("mpp")
    if own is not None and options.mpp is not None and abs(own - options.mpp) > 1e-9:
        raise UserError(f"--mpp {options.mpp:g}: the model was trained at {own:g} µm per pixel; leave --mpp out")
    mpp = own if own is not None else options.mpp
    if mpp is None:
        raise UserError("--mpp: the model's data do not say the resolution of its patches; name it in µm per pixel, "
                        "for example --mpp 0.5 for 20×")  # fmt: skip
    return float(mpp)


def _classes(stored: StoredModel) -> tuple[str, str]:
    kind = DATASETS.get(stored.card.sections.get("data", {}).get("dataset", ""))
    positive, negative = getattr(kind, "INSTANCE_CLASSES", ("positive", "negative"))
    return negative, positive
