"""A cohort in each layout of feature files goes the whole way: planned, trained for a step, and labelled."""

from __future__ import annotations

from pathlib import Path

import feature_files as files
import numpy as np
import pandas as pd
import pytest
import torch
from make_trial_request import train_kept_model

from d2l_study.cli import main
from d2l_study.data import FeatureBags
from d2l_study.learning import TeacherConfig
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage

ID = "ab" * 10
OF_SLIDES = {
    "trident": files.trident, "clam_h5": files.clam_h5, "clam_pt": files.clam_pt, "stamp": files.stamp,
    "nnmil": files.nnmil, "slideflow": files.slideflow, "npy": files.npy, "npz": files.npz,
    "dictionary_pt": files.dictionary_pt,
}  # fmt: skip


def _write(layout: str, folder: Path, slides: list[tuple[files.Slide, int]]) -> tuple[Path, Path]:
    """The cohort in a layout; returns what `data.path` names, and what is labelled."""
    if layout == "torchmil":
        for slide, label in slides:
            files.torchmil(folder / "mil", slide, label)
        return folder / "mil", folder / "mil"
    if layout in ("whole.npz", "whole.h5"):
        path = files.whole_set(folder / layout, [slide for slide, _ in slides], [label for _, label in slides])
        return path, path
    for slide, _ in slides:
        OF_SLIDES[layout](folder / "features", slide)
    return files.table(folder / "slides.csv", slides), folder / "features"


@pytest.mark.parametrize("layout", [*OF_SLIDES, "torchmil", "whole.npz", "whole.h5"])
def test_a_cohort_is_planned_trained_and_labelled(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    slides = files.cohort(12)
    path, labelled = _write(layout, tmp_path, slides)
    space, root, out = tmp_path / "ours.yaml", tmp_path / "runs", tmp_path / "scores"
    space.write_text(
        f"description: ours\ndata: {{dataset: features, folds: 3, path: {path.name}}}\nmethods: {{plain: {{}}}}\n"
    )
    assert main(["plan", "--space", str(space), "--root", str(root)]) == 0
    instances = sum(len(slide.vectors) for slide, _ in slides)
    said = capsys.readouterr().out
    assert "12 bags (6 positive, 6 negative)" in said and f"{instances} instances" in said

    data, teacher = FeatureBags(path=str(path), folds=3), TeacherConfig(extractor="mlp", feature_width=8, steps=1)
    train_kept_model(root, ID, data, teacher=teacher)
    row = Ledger(LocalStorage(root)).row(ID, 0)
    assert 0 <= row["bag_auc"] <= 1

    assert main(["label", "--root", str(root), "--run", ID[:8], "--out", str(out), str(labelled)]) == 0
    scores = pd.read_parquet(out / "scores.parquet")
    assert len(scores) == instances and np.isfinite(scores["logit"]).all()
    assert sorted(scores.groupby("slide").size()) == sorted(len(slide.vectors) for slide, _ in slides)
    bags = pd.read_csv(out / "bags.csv")
    assert sorted(bags["part"].value_counts().to_dict().items()) == [("test", 4), ("training", 4), ("validation", 4)]
