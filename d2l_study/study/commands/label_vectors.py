"""`label` with a model of vectors: feature files of slides, of which it writes and prints scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from d2l_study.errors import counted
from d2l_study.inference.feature_inputs import notes_on_inputs, open_feature_inputs
from d2l_study.inference.feature_label import check_outputs, label_features
from d2l_study.inference.feature_scores import UNUSED, PartScores
from d2l_study.inference.feature_slides import check_slide_files, write_slide_files
from d2l_study.inference.slide_outputs import ENDINGS
from d2l_study.inference.smoothing import smoothed_text
from d2l_study.learning.prediction import Compute
from d2l_study.study.commands.label_progress import LabelProgress
from d2l_study.study.commands.label_truth import PART_TEXT, KnownSlides
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.root import open_storage
from d2l_study.study.trial.stored_models import SelectedModel


def label_vectors(
    selected: SelectedModel, names: Sequence[str], out: Path, root: str, data: str | None, progress: LabelProgress,
    formats: Sequence[str] = (), slide_mpp: float | None = None, smooth: int = 0,
    compute: Compute | None = None,
) -> None:  # fmt: skip
    """Label the inputs, and print what was made.

    root: of the results; data: the folder of the model's data set, None for that of its training; formats: files of
    each slide (`feature_slides.FORMATS`); slide_mpp: µm of a level-0 pixel, where places are in µm; smooth: neighbours
    that scores are averaged over. `UserError` for what is wrong with them.
    """
    stored = selected.stored
    check_outputs(out)
    with progress:
        inputs = open_feature_inputs(names, stored, progress.checked)
        if formats:
            check_slide_files(inputs, out, formats, slide_mpp)
        for note in notes_on_inputs(inputs, stored):
            progress.say(note)
        known = KnownSlides.of_model(Ledger(open_storage(root)), selected.config_id, selected.replicate, data)
        summary = label_features(stored, inputs, out, known, compute, progress, smooth)
        made = write_slide_files(out, formats, stored.card.instance_threshold, slide_mpp) if formats else 0
    slides = counted(sum(len(entry.slides) for entry in inputs), "slide")
    print(f"labelled: {summary.count:,} vectors of {stored.model.shape[0]:,} dimensions of {slides}")
    if summary.positive is not None and summary.count:
        print(f"positive: {summary.positive:,} ({summary.positive / summary.count:.1%}) predicted positive")
        if smooth:
            print(f"          {smoothed_text(smooth)}")
    for part in summary.parts:
        if text := _part_text(part):
            print(text)
    if known.reason:
        print(f"          the model's own data are not known here: {known.reason.splitlines()[0]}")
    elif not known.part_of:
        print("          the model's data set is no longer what it was trained on: which slides it saw is not known")
    elif all(part.part in ("", UNUSED) for part in summary.parts):
        print("          the model saw none of these files; only evaluate recognises copies of those it saw")
    print(f"scores:   {summary.path}\nbags:     {summary.bags}")
    if formats:
        files = ", ".join(f"NAME{ENDINGS[name]}" for name in formats)
        print(f"slides:   {counted(made, 'slide')} in {out}: {files}")


def _part_text(part: PartScores) -> str:
    """How scores agree with what is known in a part of the model's data; "" for other slides without labels."""
    of_instances = [f"instance AUC {part.instance_auc:.3f}"] * (not math.isnan(part.instance_auc))
    of_instances += [f"within bags {part.instance_auc_within:.3f}"] * (not math.isnan(part.instance_auc_within))
    said = [f"{', '.join(of_instances)} ({part.known:,} known vectors)"] if of_instances else (
        [f"{part.known:,} known vectors, of one class"] * bool(part.known))  # fmt: skip
    said += [f"bag AUC {part.bag_auc:.3f}"] * (not math.isnan(part.bag_auc))
    if not part.part and not said:
        return ""
    place = f"{part.part or 'others'}: ".ljust(10)
    whose = PART_TEXT.get(part.part, "that are not of this model's data")
    return f"{place}{counted(part.bags, 'bag')} {whose}" + (f": {', '.join(said)}" if said else "")
