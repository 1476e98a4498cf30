"""`label` over whole tissue images: synthetic archives, and the real ones where D2L_DATA is set."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from d2l_study.cli import main
from d2l_study.data import DATASETS, breast, colon
from d2l_study.data.synthetic_tissue import write_breast, write_colon
from d2l_study.environment import data_root
from d2l_study.inference import sliding_window
from d2l_study.learning import TeacherConfig
from d2l_study.study.space.resources import Resources
from d2l_study.study.trial.trial import run_trial
from d2l_study.study.trial.trial_request import TrialRequest

CONFIG = "cd" * 10


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(tmp_path / "cache"))


def _train(dataset: str, data: Path, root: Path) -> Any:
    """A teacher of two steps with its weights in a ledger; returns its data set."""
    section: Any = DATASETS[dataset](root=str(data), folds=3)
    pool = section.load_pool()
    config = TeacherConfig(extractor="lenet_histology", feature_width=16, steps=2, eval_every=2)
    request = TrialRequest(
        root=str(root), study="s", config_id=CONFIG, label="none", stage="teacher",
        sections={"data": section.to_dict(), "teacher": config.to_dict()}, replicates=(0,), base_seed=5,
        data_checksum=pool.checksum, resources=Resources().to_dict(), keep_weights="all", code_version="test",
    )  # fmt: skip
    assert set(run_trial(request).values()) == {"done"}
    return pool


def _label(root: Path, image: Path, out: Path, *more: str) -> int:
    return main(["label", "--root", str(root), "--run", CONFIG[:10], str(image), "--out", str(out), *more])


def _check_maps(out: Path, image: Path, stride: int) -> np.ndarray:
    """The map, its geometry and picture are there and fit the image."""
    about = json.loads((out / f"{image.stem}.json").read_text())
    with Image.open(image) as opened:
        width, height = opened.size
    logits = np.load(out / f"{image.stem}.logits.npy")
    assert (about["width"], about["height"], about["stride"]) == (width, height, stride)
    assert logits.shape == (about["rows"], about["columns"]) and logits.dtype == np.float32
    assert abs(logits.shape[0] * stride - height) < stride and np.isfinite(logits).all()
    with Image.open(out / f"{image.stem}.overlay.png") as picture:
        assert picture.size[0] > width
    return logits


def _truth(out: Path) -> list[tuple[float, float, str]]:
    with (out / "instances.csv").open() as file:
        return [(float(row["x"]), float(row["y"]), row["truth"]) for row in csv.DictReader(file)]


def test_an_archive_that_has_moved_is_named_by_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, root = tmp_path / "here", tmp_path / "runs"
    write_colon(here, 9, side=60, nuclei=6)
    pool = _train("colon", here, root)
    away = here.rename(tmp_path / "away")
    image = away / colon.ARCHIVE / "Classification" / "img1" / "img1.bmp"

    assert _label(root, image, tmp_path / "bare", "--stride", "9") == 0
    assert "no true instances are known here: data.root" in capsys.readouterr().out
    assert not (tmp_path / "bare" / "instances.csv").exists()

    assert _label(root, image, tmp_path / "known", "--stride", "9", "--data", str(away)) == 0
    mine, said = pool.image == 0, capsys.readouterr().out
    assert f"{mine.sum()} true instances" in said
    about = json.loads((tmp_path / "known" / "img1.json").read_text())
    threshold = about["model"]["instance_threshold"]
    assert f"model's threshold: logit {threshold:.3f}" in said
    share = (np.load(tmp_path / "known" / "img1.logits.npy") > threshold).mean()
    assert f"{share:.1%} predicted positive" in said
    part = about["part"]
    assert part.endswith("image of this model") and f"({part})" in said
    expected = [(*xy, str(y)) for xy, y in zip(pool.xy[mine].tolist(), pool.bags.instance_label[mine], strict=True)]
    assert _truth(tmp_path / "known") == expected
    logits = _check_maps(tmp_path / "known", image, 9)
    np.testing.assert_array_equal(logits, np.load(tmp_path / "bare" / "img1.logits.npy"))


def test_ctrl_c_says_what_is_kept_and_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colon(tmp_path / "data", 9, side=60, nuclei=6)
    _train("colon", tmp_path / "data", tmp_path / "runs")
    folder = tmp_path / "data" / colon.ARCHIVE / "Classification"
    images = [folder / name / f"{name}.bmp" for name in ("img1", "img2")]
    out = tmp_path / "out"
    words = ["label", "--root", str(tmp_path / "runs"), "--run", CONFIG[:10], *map(str, images), "--out", str(out)]
    monkeypatch.setattr(sliding_window, "BATCH", 100)
    right, left = sliding_window.label_instances, [0]

    def interrupted(stored: Any, patches: np.ndarray, compute: Any = None) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return right(stored, patches, compute)

    monkeypatch.setattr(sliding_window, "label_instances", interrupted)
    assert main([*words, "--stride", "3"]) == 130
    assert capsys.readouterr().err == "\nStopped; nothing had been scored yet.\n"
    left[0] = 8  # four batches of the first, its nuclei, and three of the second
    assert main([*words, "--stride", "3"]) == 130
    assert capsys.readouterr().err == (
        f"\nStopped; 1 image done and 300 of 400 patches of img2 scored are kept in {out}, and the same command goes "
        "on from there.\n"
    )
    left[0] = 3  # the nuclei of both, and one batch
    assert main([*words, "--stride", "3"]) == 0
    said = capsys.readouterr().out
    assert (
        "img1: " in said and "; its scores were there" in said and "img2: 300 of 400 patches are there already" in said
    )
    assert not list(out.glob("*.part*")) and _check_maps(out, images[1], 3).shape == (20, 20)


def test_what_is_written_is_no_input_of_the_next_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_colon(tmp_path / "data", 9, side=60, nuclei=6)
    _train("colon", tmp_path / "data", tmp_path / "runs")
    folder = tmp_path / "data" / colon.ARCHIVE / "Classification"
    for out in (folder, folder / "img1" / "maps"):
        assert _label(tmp_path / "runs", folder, out) == 2
        assert f"--out {out}: lies in the folder {folder}" in capsys.readouterr().err
    assert not (folder / "img1" / "maps").exists()
    image = folder / "img1" / "img1.bmp"
    for out in (image.parent, image.parent / ".." / "img1"):
        assert _label(tmp_path / "runs", image, out) == 2
        assert f"--out {out}: is the folder of the input {image}, and would mix" in capsys.readouterr().err
    assert not list(folder.rglob("*.json")) and _label(tmp_path / "runs", image, tmp_path / "data") == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--stride", "0"), "--stride"),
        (("--stride", "500"), "--stride 500 is not allowed; expected a whole number from 1 to"),
        (("--data", "nowhere"), "--data: 'nowhere' is not a folder"),
        (("--data", "~nosuchuser/x"), "--data: '~nosuchuser/x': there is no user"),
        (("--out", "~nosuchuser/x"), "--out: '~nosuchuser/x': there is no user"),
        (("--out", "x" * 300), "--out: xxxx"),
        (("--out", ""), "--out: an empty path"),
        (("--out", "q.csv"), "--out q.csv: is named as a file; expected a folder"),
        (("--data", "."), "holds no breast images"),
    ],
)
def test_mistakes_are_named_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    said: str,
) -> None:
    write_breast(tmp_path / "data", 2, cores=4, width=96, height=64, nuclei=10)
    _train("breast", tmp_path / "data", tmp_path / "runs")
    image = next((tmp_path / "data").rglob("*_ccd.tif"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert _label(tmp_path / "runs", image, tmp_path / "out", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("D2L_DATA"), reason="D2L_DATA names no folder of tissue archives")
@pytest.mark.parametrize("dataset", ["colon", pytest.param("breast", marks=pytest.mark.soak)])
def test_real_images(tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = {"colon": colon, "breast": breast}[dataset]
    if module.image_folder(data_root()) is None:
        pytest.skip(f"the {dataset} archive is not in the folder of D2L_DATA")
    part = tmp_path / "part"
    if dataset == "colon":  # some images are a data set, too
        (part / colon.ARCHIVE / "Classification").mkdir(parents=True)
        found = colon.find_images(data_root())[:9]
        for one in found:
            (part / colon.ARCHIVE / "Classification" / one.name).symlink_to(one.image.parent)
        image = part / colon.ARCHIVE / "Classification" / found[0].name / found[0].image.name
    else:
        chosen = {one.core: one for one in breast.find_images(data_root()) if one.mask and not one.malignant}
        chosen |= {f"{one.core}+": one for one in breast.find_images(data_root()) if one.mask and one.malignant}
        for folder in ("Images", "Masks"):
            (part / breast.ARCHIVE / folder).mkdir(parents=True)
        for one in chosen.values():
            assert one.mask is not None
            (part / breast.ARCHIVE / "Images" / one.image.name).symlink_to(one.image)
            (part / breast.ARCHIVE / "Masks" / one.mask.name).symlink_to(one.mask)
        image = part / breast.ARCHIVE / "Images" / next(iter(chosen.values())).image.name
    pool = _train(dataset, part, tmp_path / "runs")
    assert _label(tmp_path / "runs", image, tmp_path / "out", "--stride", "25", "--data", str(part)) == 0
    _check_maps(tmp_path / "out", image, 25)
    number = next(i for i, path in enumerate(pool.images) if path.name == image.name)
    known = (pool.image == number) & (pool.bags.instance_label >= 0)
    assert len(_truth(tmp_path / "out")) == known.sum() > 0
    assert f"{known.sum()} true instances" in capsys.readouterr().out
