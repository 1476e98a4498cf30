"""Files for QuPath of labelled feature files: places in level-0 pixels, whatever the file counts in."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import feature_files as files
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from make_trial_request import train_kept_model

from d2l_study.cli import main
from d2l_study.data import FeatureBags
from d2l_study.inference import feature_slides
from d2l_study.learning import TeacherConfig

ID = "ab" * 10
QUPATH = ("--formats", "geojson,regions,h5,map")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a teacher of vectors."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("features")
    slides = files.cohort(12)
    for slide, label in slides:
        files.torchmil(folder / "data", slide, label)
    data, teacher = (
        FeatureBags(path=str(folder / "data"), folds=3),
        TeacherConfig(extractor="mlp", feature_width=8, steps=20, eval_every=10),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        train_kept_model(folder / "runs", ID, data, teacher=teacher)
    return folder


def _label(root: Path, out: Path, *words: str | Path) -> int:
    return main(["label", "--root", str(root / "runs"), "--run", ID[:8], "--out", str(out), *map(str, words)])


def _corners(path: Path) -> list[list[float]]:
    return [f["geometry"]["coordinates"][0][0] for f in json.loads(path.read_text())["features"]]


def test_tiles_of_trident_are_where_they_were(root: Path, tmp_path: Path) -> None:
    slides = files.cohort(3)
    for slide, _ in slides:
        files.trident(tmp_path / "features", slide, level0=40)
    assert _label(root, tmp_path / "out", tmp_path / "features", *QUPATH) == 0
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    for slide, _ in slides:
        mine = rows[rows["slide"] == slide.name]
        found = json.loads((tmp_path / "out" / f"{slide.name}.tiles.geojson").read_text())["features"]
        assert [f["geometry"]["coordinates"][0][0] for f in found] == mine[["x", "y"]].to_numpy().tolist()
        (left, top), (right, bottom) = np.array(found[0]["geometry"]["coordinates"][0])[[0, 2]]
        assert right - left == bottom - top == 512  # 256 pixels at 20× of a slide of 40×
        assert [f["properties"]["measurements"]["logit"] for f in found] == pytest.approx(mine["logit"].tolist())
        with h5py.File(tmp_path / "out" / f"{slide.name}.scores.h5") as file:
            assert np.array_equal(file["coords"][()], mine[["x", "y"]])
            assert dict(file["coords"].attrs) == {"patch_size_level0": 512, "name": slide.name}  # what is known
        assert (tmp_path / "out" / f"{slide.name}.scores.ome.tif").is_file()


@pytest.mark.parametrize(("overlap", "begin"), [(0, 100), (0, 128), (64, 37), (128, 200)])
def test_the_map_has_a_pixel_for_each_tile_where_pieces_have_grids_of_their_own(overlap: int, begin: int) -> None:
    step = 256 - overlap
    columns, rows = np.meshgrid(np.arange(10) * step, np.arange(8) * step)
    piece = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(float)
    assert feature_slides._step(np.concatenate([piece, piece + np.array([begin, 5000 + begin])]), 256.0) == step
    assert feature_slides._step(piece + np.random.default_rng(0).uniform(-0.01, 0.01, piece.shape), 256.0) == (
        pytest.approx(step, abs=0.03))  # fmt: skip
    assert feature_slides._step(np.repeat(piece[:1], 3, axis=0), 256.0) == 256.0


def test_places_in_microns_need_the_resolution_of_the_slides(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (slide, _), *_ = files.cohort(1)
    files.stamp(tmp_path / "features", slide)
    assert _label(root, tmp_path / "out", tmp_path / "features", *QUPATH) == 2
    assert "places of tiles are in µm" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert _label(root, tmp_path / "out", tmp_path / "features", *QUPATH, "--slide-mpp", "0.25") == 0
    rows = pd.read_parquet(tmp_path / "out" / "scores.parquet")
    assert np.allclose(_corners(tmp_path / "out" / "s0.tiles.geojson"), rows[["x", "y"]] / 0.25)


@pytest.mark.parametrize(("write", "formats", "expected"), [
    (files.clam_h5, "geojson", "how large a tile is in level-0 pixels is not said"),
    (files.npy, "geojson", "no places of tiles are known"),
    (files.trident, "geojson,overlay", "--formats: overlay needs the slide itself"),
])  # fmt: skip
def test_what_gives_no_files_for_qupath(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], write, formats: str, expected: str
) -> None:
    (slide, _), *_ = files.cohort(1)
    write(tmp_path / "features", slide)
    assert _label(root, tmp_path / "out", tmp_path / "features", "--formats", formats) == 2
    assert expected in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_format_whose_package_is_missing_is_refused_before_work(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (slide, _), *_ = files.cohort(1)
    files.trident(tmp_path / "features", slide)
    monkeypatch.setitem(sys.modules, "shapely", None)
    assert _label(root, tmp_path / "out", tmp_path / "features", "--formats", "h5,geojson,regions") == 2
    assert "--formats regions: writing it needs `pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_scores_as_parquet_need_no_places(root: Path, tmp_path: Path) -> None:
    (slide, _), *_ = files.cohort(1)
    files.npy(tmp_path / "features", slide)
    assert _label(root, tmp_path / "out", tmp_path / "features", "--formats", "parquet") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bags.csv", "scores.parquet"]
