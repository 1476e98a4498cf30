"""`evaluate` with models of patches: manifests, folders, data sets by name, slides at a resolution."""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from few_digits import digits as few_digits
from make_trial_request import link_synthetic_images, train_kept_model
from PIL import Image
from scored_bags import few_resamples
from sklearn.metrics import roc_auc_score

import d2l_study
from d2l_study.cli import main
from d2l_study.data import ColonBags, ManifestBags, MnistBags, SyntheticColonBags
from d2l_study.data.colon import find_images
from d2l_study.environment import in_data_folder
from d2l_study.learning import TeacherConfig
from d2l_study.slides.pyramid_file import write_pyramid

sys.path.append(str(Path(__file__).parents[3] / "docs"))
from colon_manifest import write_manifest

POINTS, ARCHIVE, TILED, DIGITS = "b0" * 10, "ce" * 10, "71" * 10, "d1" * 10
HISTOLOGY = TeacherConfig(extractor="lenet_histology", steps=6, eval_every=3)


def _halves(images: Path, folder: Path, step: int = 1) -> tuple[Path, Path]:
    """Two manifests of the nuclei of every `step`th image of a folder: of every other one of each class."""
    write_manifest(images, folder / "all.csv")
    table = pd.read_csv(folder / "all.csv")
    names = list(dict.fromkeys(table.sort_values("label", kind="stable")["bag"]))[::step]
    halves = folder / "first.csv", folder / "second.csv"
    for k, path in enumerate(halves):
        table[table["bag"].isin(names[k::2])].to_csv(path, index=False)
    return halves


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs`, manifests of two halves of synthetic images, and slides in two folders."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("patches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        patch.delenv("D2L_DATA", raising=False)
        data = SyntheticColonBags(images=20, folds=3)
        train_kept_model(folder / "runs", ARCHIVE, data, teacher=HISTOLOGY)
        link_synthetic_images(folder)
        first, _ = _halves(folder / "images", folder)
        points = ManifestBags(path=str(first), patch_size=27, white_above=0.9, folds=3)
        train_kept_model(folder / "runs", POINTS, points, teacher=HISTOLOGY)
        for k, image in enumerate(find_images(folder / "images")):
            half = folder / ("here" if k < 10 else "there")
            half.mkdir(exist_ok=True)
            with Image.open(image.image) as picture:
                write_pyramid(half / f"slide{k}.svs", np.asarray(picture.convert("RGB")), mpp=0.25,
                              compression="lossless")  # fmt: skip
        for name, numbers in (("here", range(10)), ("there", range(10, 20))):
            rows = [f"{name}{k},{k % 2},slide{k}.svs" for k in numbers]
            (folder / name / "tiles.csv").write_text("bag,label,path\n" + "\n".join(rows))
        tiled = ManifestBags(path=str(folder / "here" / "tiles.csv"), cut="grid", mpp=0.5, patch_size=27, folds=3)
        train_kept_model(folder / "runs", TILED, tiled, teacher=HISTOLOGY)
        digits = MnistBags(num_bags=12, mean_bag_size=4, val_bags=12, test_bags=6, root=str(few_digits()), verify=False)
        train_kept_model(folder / "runs", DIGITS, digits, teacher=TeacherConfig(steps=6, eval_every=3))
    return folder


@pytest.fixture(autouse=True)
def _cache(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(place / "cache"))
    with few_resamples():
        yield


def _evaluate(place: Path, run: str, data: str | Path, *words: str | Path) -> int:
    return main(["evaluate", "--root", str(place / "runs"), "--run", run[:8], "--data", str(data), *map(str, words)])


def _metrics(out: Path) -> pd.DataFrame:
    frame = pd.read_csv(io.StringIO((out / "metrics.csv").read_text()), keep_default_na=False, na_values=[""])
    frame["at"] = frame["at"].fillna("")
    return frame.set_index(["level", "metric", "at"])


def _check_against_the_loaded_model(root: Path, run: str, data: ManifestBags, out: Path) -> None:
    """The files say what the loaded model makes of the patches, by other code."""
    model = d2l_study.load(run[:8], root)
    pool = data.load_pool()
    offsets = pool.bags.offsets
    bags = [pool.instances[pool.bags.instance[a:b]] for a, b in itertools.pairwise(offsets)]
    frame, rows = _metrics(out), pd.read_parquet(out / "scores.parquet")
    logit = model.bag_logits(bags)
    np.testing.assert_allclose(rows[rows["level"] == "bag"]["logit"], logit, atol=1e-5)
    area = frame.loc[("bag", "auc", "")]
    assert area["value"] == pytest.approx(roc_auc_score(pool.bags.label, logit)) and area["units"] == len(bags)
    single = rows[rows["level"] == "instance"]
    np.testing.assert_allclose(single["logit"], np.concatenate([model.instance_logits(b) for b in bags]), atol=1e-5)
    np.testing.assert_allclose(single[["x", "y"]], pool.xy)
    known = pool.bags.instance_label >= 0
    if known.any():
        expected = roc_auc_score(pool.bags.instance_label[known], single["logit"][known])
        assert frame.loc[("instance", "auc", ""), "value"] == pytest.approx(expected)


# ---- manifests
@pytest.mark.slow
def test_the_other_half_by_its_manifest(place: Path, tmp_path: Path, capsys) -> None:
    assert _evaluate(place, POINTS, place / "second.csv", "--out", tmp_path / "out") == 0
    data = ManifestBags(path=str(place / "second.csv"), patch_size=27, white_above=0.9)
    _check_against_the_loaded_model(place / "runs", POINTS, data, tmp_path / "out")
    assert "10 bags" in capsys.readouterr().out
    sources = pd.read_parquet(tmp_path / "out" / "scores.parquet")["source"]
    assert sources.notna().all() and Path(sources[0]).name.startswith("img")


def test_the_same_images_under_other_names_are_found(place: Path, tmp_path: Path, capsys) -> None:
    """The content tells: names of bags and files, and the order of nuclei, are others."""
    table = pd.read_csv(place / "first.csv").sample(frac=1, random_state=1)
    table["bag"] = "case " + table["bag"]
    for path in table["path"].unique():
        copy = tmp_path / f"copy of {Path(path).name}"
        copy.write_bytes((place / path).read_bytes())
        table.loc[table["path"] == path, "path"] = copy.name
    table.to_csv(tmp_path / "renamed.csv", index=False)
    assert _evaluate(place, POINTS, tmp_path / "renamed.csv") == 2
    error = capsys.readouterr().err
    data = ManifestBags(path=str(place / "first.csv"), patch_size=27, white_above=0.9, folds=3)
    replicate = data.replicate(data.load_pool(), 0, 5)
    seen = len(replicate.train) + len(replicate.val)
    assert f"{seen} of 10 bags are of the training: {seen} bags of the same content: case img" in error
    assert _evaluate(place, POINTS, tmp_path / "renamed.csv", "--leave-out-shared") == 0
    assert f"{len(replicate.test)} bags (" in capsys.readouterr().out


def test_slides_of_one_class_and_one_set(place: Path, tmp_path: Path, capsys) -> None:
    rows = [f"c{k},1,external,{place / 'there' / f'slide{k}.svs'}" for k in range(10, 13)]
    (tmp_path / "tiles.csv").write_text("bag,label,set,path\n" + "\n".join(rows))
    assert _evaluate(place, TILED, tmp_path / "tiles.csv") == 0
    printed = capsys.readouterr().out
    assert "3 bags (3 positive)" in printed and "all 3 bags are positive" in printed


def test_a_folder_with_one_manifest_is_that(place: Path, tmp_path: Path, capsys) -> None:
    assert _evaluate(place, TILED, place / "there", "--out", tmp_path / "out") == 0
    data = ManifestBags(path=str(place / "there" / "tiles.csv"), cut="grid", mpp=0.5, patch_size=27)
    _check_against_the_loaded_model(place / "runs", TILED, data, tmp_path / "out")
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    assert _evaluate(place, TILED, tmp_path / "empty") == 2
    assert "a folder that holds no table" in capsys.readouterr().err


def test_patches_of_another_resolution_are_refused(place: Path, capsys) -> None:
    assert _evaluate(place, TILED, place / "there", "--set", "data.mpp=1.0") == 2
    error = capsys.readouterr().err
    assert "patches of 1 µm per pixel" in error and "trained on patches of 0.5" in error and error.count("\n") == 1
    assert (
        _evaluate(place, POINTS, place / "there" / "tiles.csv", "--set", "data.cut=grid", "--set", "data.mpp=0.5") == 0
    )
    assert "whether both are of one resolution is not known" in capsys.readouterr().out


# ---- data sets by their names
def test_a_data_set_by_its_name(place: Path, tmp_path: Path, capsys) -> None:
    """Images of another seed are other images; those of the model's own are refused."""
    assert _evaluate(place, ARCHIVE, "colon_synthetic") == 2
    assert "bags of the same content: img" in capsys.readouterr().err
    words = ("--leave-out-shared", "--out", tmp_path / "out")
    assert _evaluate(place, ARCHIVE, "colon_synthetic", *words) == 0
    data = SyntheticColonBags(images=20, folds=3)
    test = data.replicate(data.load_pool(), 0, 5).test
    assert _metrics(tmp_path / "out").loc[("bag", "auc", ""), "units"] == len(test)


@pytest.mark.parametrize(
    ("run", "data", "said"),
    [
        (DIGITS, "second.csv", "patches of 28×28 pixels with 3 channels; teacher"),
        (DIGITS, "mnist", "its bags are drawn"),
        (POINTS, "colon_synth", "did you mean 'colon_synthetic'"),
        (POINTS, "nowhere.csv", "no such file or folder; expected a manifest"),
        (POINTS, "all.csv", "of the same content"),
        (POINTS, "bare.csv", "no column label"),
    ],
)
def test_a_mistake_is_one_line(run: str, data: str, said: str, place: Path, capsys) -> None:
    pd.read_csv(place / "second.csv").drop(columns="label").to_csv(place / "bare.csv", index=False)
    name = place / data if data.endswith(".csv") else data
    assert _evaluate(place, run, name) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


# ---- the archive
@pytest.mark.slow
@pytest.mark.skipif(in_data_folder("CRCHistoPhenotypes_2016_04_28") is None, reason="no colon images in D2L_DATA")
def test_real_colon_images_in_two_halves(tmp_path: Path, capsys) -> None:
    images = in_data_folder("CRCHistoPhenotypes_2016_04_28")
    assert images is not None
    first, second = _halves(Path(images), tmp_path, 4)
    data = ManifestBags(path=str(first), patch_size=27, folds=5)
    train_kept_model(tmp_path / "runs", POINTS, data, teacher=HISTOLOGY)
    assert _evaluate(tmp_path, POINTS, second, "--out", tmp_path / "out") == 0
    other = ManifestBags(path=str(second), patch_size=27)
    _check_against_the_loaded_model(tmp_path / "runs", POINTS, other, tmp_path / "out")
    capsys.readouterr()
    assert _evaluate(tmp_path, POINTS, "colon") == 2  # the archive has both halves
    error = capsys.readouterr().err
    whole = len(ColonBags().load_pool().bags)
    assert f"of {whole} bags are of the training" in error
    assert os.environ["D2L_DATA"] not in (tmp_path / "out" / "metrics.csv").read_text()
