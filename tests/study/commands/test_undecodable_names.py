"""Names of files and folders whose bytes are no UTF-8 are read, written and shown as any others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import feature_files as files
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scored_bags import few_resamples

from d2l_study.cli import main
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import ModelRecord, write_model_folder
from d2l_study.models import MilModel

ODD = os.fsdecode(b"o\xfe")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Two models: `vectors` of 12 dimensions, `tiles` of 28 pixels."""
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))
    of_tiles = {"dataset": "manifest", "mpp": 0.5, "tissue": False}
    for name, shape, data in (("vectors", (12,), {"dataset": "features"}), ("tiles", (3, 28, 28), of_tiles)):
        model = MilModel(shape, "instance_mean", 8, 4, *(["mlp"] if len(shape) == 1 else []))
        card = ModelCard("teacher", {"data": data}, (0.5,) * shape[0], (0.2,) * shape[0], "s", "ab" * 10, 0, 0.0)
        (tmp_path / name).mkdir()
        stored = StoredModel(model, model.init(np.random.default_rng(0)), card)
        write_model_folder(tmp_path / name, stored, ModelRecord(0.1, 1.0), "", {})
    with few_resamples():
        yield tmp_path


def _cohort(folder: Path) -> Path:
    for i in range(8):
        files.npz(folder, files.make_slide(f"S{i}", 5, positive=i % 2 == 1))
    (folder / "slides.csv").write_text("slide,label\n" + "".join(f"S{i},{i % 2}\n" for i in range(8)))
    return folder


def test_slides_are_labelled_beside_one_that_cannot_be_read(place: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), np.uint8)
    Image.fromarray(pixels).save(place / f"{ODD}.png")
    (place / f"bad{ODD}.svs").write_bytes(b"nothing")
    words = ["label", "--run", "./tiles", f"bad{ODD}.svs", f"{ODD}.png", "--slide-mpp", "0.5"]
    formats = ["--formats", "parquet,h5,geojson,regions,map,overlay"]
    for _ in range(2):  # what is there is found again
        assert main([*words, *formats, "--out", f"out{ODD}"]) == 1
    table = pd.read_csv(place / f"out{ODD}" / "slides.csv", keep_default_na=False)
    assert table["slide"].tolist() == ["bado\\xfe", "o\\xfe"] and "unknown kind" in table["problem"][0]
    with (place / f"out{ODD}" / f"{ODD}.scores.parquet").open("rb") as file:
        assert set(pd.read_parquet(file)["slide"]) == {"o\\xfe"}


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_predictions_are_written_and_replaced(place: Path, ending: str) -> None:
    cohort = _cohort(place / "data")
    for _ in range(2):
        assert main(["predict", "--run", "./vectors", str(cohort), "--out", f"{ODD}{ending}"]) == 0
    with (place / f"{ODD}{ending}").open("rb") as file:
        frame = pd.read_parquet(file) if ending == ".parquet" else pd.read_csv(file)
    assert len(frame) == 8 * 6


def test_vectors_are_labelled_into_such_a_folder(place: Path) -> None:
    cohort = files.trident(place / "data", files.make_slide("S0", 5))
    for _ in range(2):
        assert main(["label", "--run", "./vectors", str(cohort), "--formats", "geojson", "--out", ODD]) == 0
    assert (place / ODD / "scores.parquet").is_file() and (place / ODD / "S0.tiles.geojson").is_file()


@pytest.mark.parametrize(("folder", "stray"), [(ODD, "S8"), ("data", ODD)])
def test_a_cohort_is_evaluated(place: Path, folder: str, stray: str) -> None:
    """In such a folder, and with a file in it that no row names."""
    cohort = _cohort(place / folder)
    shutil.copy(cohort / "S1.npz", cohort / f"{stray}.npz")
    for _ in range(2):
        assert main(["evaluate", "--run", "./vectors", "--data", str(cohort), "--out", f"out{ODD}"]) == 0
    page = (place / f"out{ODD}" / "evaluation.html").read_text()
    assert "o\\xfe" in page or folder == ODD


@pytest.mark.parametrize("words", [
    ["./vectors", "--to", ODD],
    ["./tiles", "--to", "wsinfer", "--out", ODD],
])  # fmt: skip
def test_models_are_exported(place: Path, words: list[str]) -> None:
    assert main(["export", "--run", *words]) == 0
    assert any((place / ODD).iterdir())
