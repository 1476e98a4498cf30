"""`predict` with models of patches: manifests, images, slides and arrays, cut as the model's data were."""

from __future__ import annotations

import io
import json
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from few_digits import digits
from interrupted_scoring import interrupt_scoring
from make_trial_request import link_synthetic_images, train_kept_model
from PIL import Image
from slides.make_slides import openslide_file

from d2l_study.cli import main
from d2l_study.data import ColonBags, ManifestBags, MnistBags, SyntheticColonBags
from d2l_study.data.colon import find_images
from d2l_study.inference import patch_bags, tile_scores
from d2l_study.inference.label import PatchTerms
from d2l_study.learning import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.slides.pyramid_file import write_pyramid
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.trial.model_reference import find_models

sys.path.append(str(Path(__file__).parents[3] / "docs"))
from colon_manifest import write_manifest

TEACHER, STUDENT, POINTS, GRID, TILED, DIGITS, OPEN = (
    "ce" * 10, "5d" * 10, "b0" * 10, "91" * 10, "71" * 10, "d1" * 10, "0e" * 10,
)  # fmt: skip
HISTOLOGY = TeacherConfig(extractor="lenet_histology", steps=6, eval_every=3)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs`, `images` (colon images, synthetic), manifests of them, and `slides`, which they make."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("patches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        patch.delenv("D2L_DATA", raising=False)
        data = SyntheticColonBags(images=12, folds=3)
        student = StudentConfig(network="lenet_histology", steps=6, eval_every=3)
        train_kept_model(folder / "runs", TEACHER, data, teacher=HISTOLOGY)
        train_kept_model(folder / "runs", STUDENT, data, (TEACHER,), teacher=HISTOLOGY, student=student)
        link_synthetic_images(folder)
        write_manifest(folder / "images", folder / "points.csv")
        points = ManifestBags(path=str(folder / "points.csv"), patch_size=27, white_above=0.75, folds=3)
        train_kept_model(folder / "runs", POINTS, points, teacher=HISTOLOGY)
        (folder / "slides").mkdir()
        rows, tiles = ["bag,label,path"], ["bag,label,path,mpp"]
        for k, image in enumerate(find_images(folder / "images")):
            bag = max(0, k - 1)  # the first has two images
            rows.append(f"b{bag},{bag % 2},{os.path.relpath(image.image, folder)}")
            with Image.open(image.image) as picture:
                pixels = np.asarray(picture.convert("RGB")).copy()
            pixels[:, : 20 + 5 * k] = 255
            write_pyramid(folder / f"slides/slide{k}.svs", pixels, mpp=(None, 0.25)[k == 0], compression="lossless")
            tiles.append(f"t{bag},{bag % 2},slide{k}.svs,{0.5 if k else ''}")
        (folder / "grid.csv").write_text("\n".join(rows))
        (folder / "slides" / "tiles.csv").write_text("\n".join(tiles))
        grid = ManifestBags(path=str(folder / "grid.csv"), cut="grid", patch_size=27, stride=20, folds=3)
        train_kept_model(folder / "runs", GRID, grid, teacher=HISTOLOGY)
        train_kept_model(folder / "runs", TILED, _tiled(folder), teacher=HISTOLOGY)
        train_kept_model(folder / "runs", OPEN, _open(folder), teacher=HISTOLOGY)
        train_kept_model(folder / "runs", DIGITS, _digits(), teacher=TeacherConfig(steps=6, eval_every=3))
    return folder


def _digits() -> MnistBags:
    return MnistBags(num_bags=12, mean_bag_size=4, val_bags=12, test_bags=6, root=str(digits()), verify=False)


def _tiled(folder: Path) -> ManifestBags:
    return ManifestBags(path=str(folder / "slides/tiles.csv"), cut="grid", mpp=0.5, patch_size=27, stride=24,
                        tissue=True, least_tissue=0.9, folds=3)  # fmt: skip


def _open(folder: Path) -> ManifestBags:
    """Tiles that overlap, of tissue or not, but not white."""
    return ManifestBags(path=str(folder / "slides/tiles.csv"), cut="grid", mpp=0.5, patch_size=27, stride=20,
                        white_above=0.85, folds=3)  # fmt: skip


@pytest.fixture(autouse=True)
def _environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(place / "cache"))


def _predict(place: Path, run: str, out: Path, *words: str | Path) -> int:
    return main(["predict", "--root", str(place / "runs"), "--run", run[:8], "--out", str(out), *map(str, words)])


def _frame(place: Path, run: str, out: Path, *words: str | Path) -> pd.DataFrame:
    assert _predict(place, run, out, *words) == 0
    return pd.read_parquet(out)


def _check_committed(place: Path, run: str, frame: pd.DataFrame, pool, only: set[str] | None = None) -> None:
    """The rows of the run's test bags have the logits and places that the study committed."""
    data = Ledger(LocalStorage(place / "runs")).read_file(run, 0, "predictions.parquet")
    committed = pd.read_parquet(io.BytesIO(data)).query("split == 'test'")
    of_bags = committed[committed["level"] == "bag"]
    assert len(of_bags) > 1
    for number, logit in zip(of_bags["bag_index"], of_bags["logit"], strict=True):
        if only is not None and pool.names[number] not in only:
            continue
        mine = committed[(committed["level"] == "instance") & (committed["bag_index"] == number)]
        found = frame[frame["bag"] == pool.names[number]]
        assert found["level"].tolist() == ["bag"] + ["instance"] * len(mine)
        assert found["logit"].iloc[0] == pytest.approx(logit, abs=1e-5)
        np.testing.assert_allclose(found["logit"][1:], mine["logit"], rtol=0, atol=1e-5)
        assert found["index"].tolist()[1:] == list(range(len(mine)))
        np.testing.assert_array_equal(found[["x", "y"]][1:], pool.xy[slice(*pool.bags.offsets[number : number + 2])])


@pytest.mark.slow
@pytest.mark.parametrize("run", [POINTS, GRID, TILED])
def test_a_manifest_without_labels_gives_what_the_study_committed(
    place: Path, tmp_path: Path, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = {POINTS: "points.csv", GRID: "grid.csv", TILED: "slides/tiles.csv"}[run]
    table = pd.read_csv(place / name).drop(columns=["label", "instance_label"], errors="ignore")
    bare = (place / name).with_suffix(".bare.csv")
    table.to_csv(bare, index=False)
    before = sorted((place / "cache").iterdir())
    frame = _frame(place, run, tmp_path / "s.parquet", bare)
    data = {
        POINTS: ManifestBags(path=str(place / name), patch_size=27, white_above=0.75, folds=3), TILED: _tiled(place),
        GRID: ManifestBags(path=str(place / name), cut="grid", patch_size=27, stride=20, folds=3),
    }[run]  # fmt: skip
    pool = data.load_pool()
    _check_committed(place, run, frame, pool)
    assert frame.loc[frame["level"] == "bag", "bag"].tolist() == list(pool.names)
    assert (frame["level"] == "instance").sum() == len(pool.bags.instance)
    assert (len(pool.bags.instance) < len(table)) is (run == POINTS)  # some are too bright
    assert sorted((place / "cache").iterdir()) == before
    said = capsys.readouterr().out
    assert "already" not in said
    data = Ledger(LocalStorage(place / "runs")).read_file(run, 0, "predictions.parquet")
    tested = pd.read_parquet(io.BytesIO(data)).query("split == 'test'")["bag_index"].nunique()
    assert f"note:     {len(pool.names) - tested} bags are ones that this model was trained on" in said
    assert {
        POINTS: "cut:      27×27 pixels around points\n", GRID: "cut:      a grid of 27×27 pixels, every 20\n",
        TILED: "cut:      tiles of 27×27 at 0.5 µm per pixel, every 24, of which 90% are tissue\n",
    }[run] in said  # fmt: skip
    for kind in ("xlsx", "tsv", "parquet"):
        other = bare.with_suffix(f".{kind}")
        save = {"xlsx": table.to_excel, "parquet": table.to_parquet, "tsv": partial(table.to_csv, sep="\t")}[kind]
        save(other, index=False)
        pd.testing.assert_frame_equal(frame, _frame(place, run, tmp_path / "again.parquet", other))
        other.unlink()


def test_images_are_cut_by_a_grid_where_no_points_are_known(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image of a folder is a bag, named by its place in it; the patches have the scores that the model gives."""
    frame = _frame(place, TEACHER, tmp_path / "s.parquet", place / "images", "--stride", "40")
    images = find_images(place / "images")
    bags = frame[frame["level"] == "bag"]
    assert len(bags) == 12 and "a grid of 27×27 pixels, every 40" in capsys.readouterr().out
    stored = find_models(TEACHER, place / "runs")[0].loaded.stored
    for image in images:
        name = image.image.relative_to(place / "images").with_suffix("").as_posix()
        mine = frame[(frame["bag"] == name) & (frame["level"] == "instance")]
        with Image.open(image.image) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        corners = [(x, y) for y in range(0, 160 - 26, 40) for x in range(0, 160 - 26, 40)]
        patches = np.stack([pixels[y : y + 27, x : x + 27].transpose(2, 0, 1) for x, y in corners])
        np.testing.assert_allclose(mine["logit"], PatchTerms(stored)(patches)[:, 0], rtol=0, atol=1e-5)
        assert (mine[["x", "y"]] - 13).to_numpy().tolist() == [list(map(float, c)) for c in corners]
    one = _frame(place, STUDENT, tmp_path / "one.parquet", images[0].image)
    assert one["bag"].unique().tolist() == [images[0].image.stem] and (one["level"] == "instance").sum() == 25


@pytest.mark.parametrize("run", [TILED, OPEN, GRID])
def test_slides_have_the_scores_that_label_gives_them(
    place: Path, tmp_path: Path, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both cut a slide as the model's data were cut: its step, its tissue, and without white ground."""
    scale = ["--slide-mpp", "0.5"] if run != GRID else []
    frame = _frame(place, run, tmp_path / "s.parquet", place / "slides", *scale)
    said = capsys.readouterr().out
    assert ("note:     --slide-mpp is not used for slide0.svs, which says another one" in said) is bool(scale)
    assert _label(place, run, tmp_path / "l", "--formats", "parquet", *scale, place / "slides") == 0
    said = capsys.readouterr().out
    assert {
        TILED: "tiles:    27×27 pixels, 0.5 µm a pixel, every 24 pixels, of which 90% are tissue\n",
        OPEN: "tiles:    27×27 pixels, 0.5 µm a pixel, every 20 pixels, none brighter than 0.85\n",
        GRID: "a size), every 20 pixels, of which 50% are tissue\n",
    }[run] in said  # fmt: skip
    assert ("of white ground, which training left out)" in said) is (run == OPEN)
    table = pd.read_csv(tmp_path / "l" / "slides.csv").set_index("slide")
    assert frame["bag"].unique().tolist() == sorted(f"slide{k}" for k in range(12))
    for name in frame["bag"].unique():
        found = frame[frame["bag"] == name]
        other = pd.read_parquet(tmp_path / "l" / f"{name}.scores.parquet")
        np.testing.assert_allclose(found["logit"][1:], other["logit"], rtol=0, atol=1e-5)
        side = 54 if name == "slide0" and scale else 27
        np.testing.assert_array_equal(found[["x", "y"]][1:], other[["x", "y"]] + (side - 1) / 2)
        assert (found["predicted"][1:].to_numpy() == other["predicted"].to_numpy()).all()
        assert found["logit"].iloc[0] == pytest.approx(table.loc[name, "logit"], abs=1e-5)
        assert table.loc[name, "tiles"] == len(other) > 0
        assert table.loc[name, "predicted_positive"] == pytest.approx(found["predicted"][1:].mean(), abs=1e-5)
    if run == TILED:
        more = _frame(place, TILED, tmp_path / "all.parquet", place / "slides", *scale, "--no-tissue")
        assert len(more) > len(frame)


def _label(place: Path, run: str, out: Path, *words: str | Path) -> int:
    return main(["label", "--root", str(place / "runs"), "--run", run[:8], "--out", str(out), *map(str, words)])


def test_label_goes_on_from_slides_without_their_white_tiles(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where all that an interrupted command scored was white; files of all tiles are made again."""
    words = ["--formats", "parquet", place / "slides" / "slide9.svs", "--slide-mpp", "0.5"]
    assert _label(place, OPEN, tmp_path / "whole", *words) == 0
    whole = pd.read_parquet(tmp_path / "whole" / "slide9.scores.parquet")
    same = ["tiles", "predicted_positive", "logit", "score"]
    table = pd.read_csv(tmp_path / "whole" / "slides.csv")[same]
    with monkeypatch.context() as patch:
        calls = interrupt_scoring(patch, 3, 27 * 27 * 3 * 2)
        assert _label(place, OPEN, tmp_path / "cut", *words) == 130
        assert _label(place, OPEN, tmp_path / "cut", *words) == 0
    assert sum(calls) - calls[2] == len(whole)
    pd.testing.assert_frame_equal(whole, pd.read_parquet(tmp_path / "cut" / "slide9.scores.parquet"))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(tile_scores.TileTerms, "__call__", lambda *_: pytest.fail("it was scored again"))
        assert _label(place, OPEN, tmp_path / "whole", *words) == 0
    said = capsys.readouterr().out
    assert "of white ground, which training left out)" in said and "its scores were there" in said
    pd.testing.assert_frame_equal(table, pd.read_csv(tmp_path / "whole" / "slides.csv")[same])
    note = tmp_path / "whole" / "slide9.json"
    about = json.loads(note.read_text())
    del about["made_of"]["white_above"]
    note.write_text(json.dumps(about))
    assert _label(place, OPEN, tmp_path / "whole", *words) == 0
    assert "its scores were there" not in capsys.readouterr().out


def test_options_of_label_win_over_how_the_model_was_trained(place: Path, tmp_path: Path) -> None:
    slide = place / "slides" / "slide4.svs"
    words = ["--formats", "parquet", slide, "--slide-mpp", "0.5"]
    assert _label(place, TILED, tmp_path / "a", *words, "--overlap", "0", "--no-tissue") == 0
    found = pd.read_parquet(tmp_path / "a" / "slide4.scores.parquet")
    assert found[["x", "y"]].to_numpy().tolist() == [[x, y] for y in range(0, 134, 27) for x in range(0, 134, 27)]
    assert _label(place, OPEN, tmp_path / "b", *words, "--overlap", "0", "--no-tissue") == 0
    some = pd.read_parquet(tmp_path / "b" / "slide4.scores.parquet")
    assert 0 < len(some) < len(found) and (some["x"] % 27 == 0).all()


def test_slides_beside_a_dicom_slide_and_a_folder_that_is_one(place: Path, tmp_path: Path) -> None:
    for name in ("boxes_0.dcm", "boxes_1.dcm"):
        openslide_file(tmp_path, name)
    frame = _frame(place, TILED, tmp_path / "s.parquet", tmp_path)
    assert frame[["level", "bag"]].to_numpy().tolist() == [["bag", tmp_path.name]] and frame["logit"].isna().all()
    openslide_file(tmp_path, "small.svs")
    frame = _frame(place, TILED, tmp_path / "s.parquet", tmp_path)
    assert sorted(frame["bag"]) == ["boxes_0", "small"] and len(frame) == 2


def test_an_exported_folder_gives_what_its_trial_gives(place: Path, tmp_path: Path) -> None:
    assert main(["export", "--root", str(place / "runs"), "--run", TILED[:8], "--to", str(tmp_path / "model")]) == 0
    words = [str(place / "slides/slide3.svs"), "--slide-mpp", "0.5", "--out", str(tmp_path / "a.parquet")]
    assert main(["predict", "--run", str(tmp_path / "model"), *words]) == 0
    other = _frame(place, TILED, tmp_path / "b.parquet", *words[:3])
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), other)


def test_slides_that_cannot_be_read_are_named_and_passed_over(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (place / "slides" / "slide3.svs").read_bytes()
    for name, data in (("good", good), ("short", good[: len(good) // 3]), ("alike", good)):
        (tmp_path / f"{name}.svs").write_bytes(data)
    (tmp_path / "t.csv").write_text("bag,path,mpp\na,good.svs,0.5\nb,short.svs,0.5\nb,good.svs,0.5\nc,alike.svs,\n")
    glass = np.full((120, 120, 3), 245, np.uint8)
    write_pyramid(tmp_path / "glass.svs", glass, mpp=0.5, compression="lossless")
    out = tmp_path / "s.csv"
    assert _predict(place, TILED, out, tmp_path / "t.csv", tmp_path / "glass.svs") == 1
    said = capsys.readouterr().out
    assert "b: not scored: " in said and "short.svs" in said and "c: not scored: " in said
    assert "2 bags could not be scored" in said and "glass: no patches: no tissue found" in said
    frame = pd.read_csv(out)
    assert frame["bag"].unique().tolist() == ["a", "glass"] and frame["logit"].isna().tolist()[-1]
    out.unlink()
    assert _predict(place, TILED, out, tmp_path / "short.svs") == 1
    assert "scores:   nothing was written" in capsys.readouterr().out and not out.exists()


def _save_digits(folder: Path, patches: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for k, patch in enumerate(patches):
        Image.fromarray(patch[0]).save(folder / f"{k:03d}.png")


def test_patches_of_arrays_folders_and_manifests_are_the_same_bags(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _digits()
    test = data.replicate(data.load_pool(), 0, 5).test
    pool, lines = data.load_pool(), ["bag,path"]
    for b in range(len(test)):
        patches = pool.instances[test.instance[test.offsets[b] : test.offsets[b + 1]]]
        np.save(tmp_path / f"bag{b}.npy", patches)
        _save_digits(tmp_path / "digits" / f"bag{b}", patches)
        lines += [f"bag{b},digits/bag{b}/{k:03d}.png" for k in range(len(patches))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    of_arrays = _frame(place, DIGITS, tmp_path / "a.parquet", *sorted(tmp_path.glob("*.npy")))
    of_folder = _frame(place, DIGITS, tmp_path / "f.parquet", tmp_path / "digits")
    of_table = _frame(place, DIGITS, tmp_path / "t.parquet", tmp_path / "t.csv")
    assert "cut:      images of 28×28 as they are" in capsys.readouterr().out
    stored = Ledger(LocalStorage(place / "runs")).read_file(DIGITS, 0, "predictions.parquet")
    committed = pd.read_parquet(io.BytesIO(stored)).query("split == 'test' and level == 'bag'")
    bags = of_arrays[of_arrays["level"] == "bag"]
    np.testing.assert_allclose(bags["logit"], committed["logit"], rtol=0, atol=1e-5)
    pd.testing.assert_frame_equal(of_folder, of_table)
    same = ["level", "bag", "index", "logit", "score", "predicted", "x", "y"]
    pd.testing.assert_frame_equal(of_arrays[same], of_folder[same], atol=1e-5)
    assert of_arrays[["x", "y"]].isna().all(axis=None) and set(bags["source"]) == set(map(str, tmp_path.glob("*.npy")))
    one = _frame(place, DIGITS, tmp_path / "o.parquet", tmp_path / "digits" / "bag0")
    assert one["bag"].unique().tolist() == ["bag0"]


def test_a_damaged_image_costs_its_bag_and_no_other(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [image.image for image in find_images(place / "images")[:2]]
    for name, path in zip(("a", "b"), images, strict=True):
        Image.open(path).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:3000])
    assert _predict(place, STUDENT, tmp_path / "s.csv", tmp_path / "a.png", tmp_path / "b.png") == 1
    assert "b: not scored: " in capsys.readouterr().out and set(pd.read_csv(tmp_path / "s.csv")["bag"]) == {"a"}


def test_an_interrupted_command_leaves_nothing(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right, left = patch_bags._scored, [2]

    def interrupted(*given):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return right(*given)

    monkeypatch.setattr(patch_bags, "_scored", interrupted)
    monkeypatch.setattr("d2l_study.inference.prediction_file.BLOCK", 1)
    assert _predict(place, STUDENT, tmp_path / "s.csv", place / "images") == 130
    assert list(tmp_path.iterdir()) == [] and "begins anew" in capsys.readouterr().err


CASES = [
    (STUDENT, ["img.png", "--mpp", "0.5", "--slide-mpp", "0.5", "--stride", "9"], None),
    (STUDENT, ["img.png", "--slide-mpp", "0.5"], "--slide-mpp: does nothing without --mpp"),
    (STUDENT, ["img.png", "--no-tissue"], "--no-tissue: nothing here is cut into tiles"),
    (STUDENT, ["patch.png", "--mpp", "0.5"], "--mpp: nothing here is cut into tiles"),
    (STUDENT, ["patch.png", "--stride", "9"], "--stride: nothing here is cut by a grid"),
    (STUDENT, ["points.csv", "--stride", "9"], "--stride: nothing here is cut by a grid"),
    (STUDENT, ["patch.png", "--smooth", "2"], "--smooth: patch.png: holds patches without places"),
    (STUDENT, ["points.csv", "--smooth", "2"], None),
    (DIGITS, ["digits.npy", "--smooth", "2"], "--smooth: digits.npy: holds patches without places"),
    (STUDENT, ["small.png"], "small.png: 20×20 pixels (width×height); the model expects patches of 27×27"),
    (STUDENT, ["grey.png"], "expected an 8-bit RGB"),
    (STUDENT, ["grey.npy"], "dimensions (3, 1, 27, 27); the model expects (N, 3, 27, 27)"),
    (STUDENT, ["slide.h5"], "a feature file, but this model labels patches"),
    (STUDENT, ["nothing/"], "no such file or folder"),
    (STUDENT, ["empty"], "a folder without images"),
    (STUDENT, ["img.png", "other/img.png"], "are both a bag 'img'"),
    (STUDENT, ["img.png", "img.png"], "are both a bag 'img'"),
    (STUDENT, ["outside.csv"], "row 2, column x: 900 is outside"),
    (STUDENT, ["nowhere.csv"], "row 2, column path: 'none.png': no such file"),
    (STUDENT, ["noplace.csv"], "row 2, column y: empty"),
    (STUDENT, ["nopath.csv"], "no column path"),
    (STUDENT, ["again.csv"], "row 3: the same image as row 2"),
    (GRID, ["points.csv"], "this model was trained on a grid, so that x and y are not read"),
    (TILED, ["coarse.csv"], "a patch of 1 µm per pixel; the model's are of 0.5 µm"),
    (TILED, ["coarse.tif"], "a patch of 1 µm per pixel; the model's are of 0.5 µm"),
    (TILED, ["near.csv"], None),
    (TILED, ["slides", "--mpp", "1"], "--mpp 1: the model was trained at 0.5 µm per pixel"),
    (TILED, ["two.csv"], "row 3, column mpp: img.png has another one in row 2"),
    (DIGITS, ["grey.png", "--mpp", "0.5"], "this model scores patches of 1 channel"),
    (DIGITS, ["img.npy"], "the model expects (N, 1, 28, 28)"),
]


@pytest.mark.parametrize(("run", "words", "said"), CASES)
def test_mistakes_are_answered_before_work(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run, words, said
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 200, (90, 90, 3), np.uint8)
    for folder in ("empty", "other"):
        Path(folder).mkdir()
    images = {"img": pixels, "other/img": pixels, "patch": pixels[:27, :27], "small": pixels[:20, :20],
              "grey": pixels[..., 0]}  # fmt: skip
    for name, image in images.items():
        Image.fromarray(image).save(f"{name}.png")
    np.save("grey.npy", np.zeros((3, 1, 27, 27), np.uint8))
    np.save("img.npy", np.zeros((3, 3, 27, 27), np.uint8))
    np.save("digits.npy", np.zeros((3, 1, 28, 28), np.uint8))
    Path("slide.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    write_pyramid(Path("coarse.tif"), pixels[:27, :27], mpp=1.0, layout="ome", compression="lossless")
    for name, text in {
        "points": "bag,path,x,y\na,img.png,20,20\na,img.png,40,40", "outside": "bag,path,x,y\na,img.png,900,4",
        "nowhere": "bag,path\na,none.png", "noplace": "bag,path,x,y\na,img.png,4,", "nopath": "bag,x,y\na,3,4",
        "again": "bag,path\na,img.png\na,img.png", "coarse": "bag,path,mpp\na,patch.png,1.0",
        "two": "bag,path,mpp\na,img.png,0.5\nb,img.png,0.25", "near": "bag,path,mpp\na,patch.png,0.495",
    }.items():  # fmt: skip
        Path(f"{name}.csv").write_text(text)
    code = _predict(place, run, Path("new/s.parquet"), *words)
    told = capsys.readouterr().err
    if said is None:
        assert code == 0 and Path("new/s.parquet").is_file()
        return
    assert code == 2 and told.startswith("error: ") and said in told and not Path("new").exists()


@pytest.mark.slow
@pytest.mark.skipif("D2L_DATA" not in os.environ, reason="needs the colon images in D2L_DATA")
def test_the_colon_images_as_a_manifest_have_the_scores_of_the_archive(place: Path, tmp_path: Path) -> None:
    """Of the test bags in which no nucleus is twice, which a manifest must not have; the others are left out."""
    data, run = ColonBags(folds=10), "c0" * 10
    train_kept_model(place / "runs", run, data, teacher=HISTOLOGY)
    pool = data.load_pool()
    stored = Ledger(LocalStorage(place / "runs")).read_file(run, 0, "predictions.parquet")
    test = pd.read_parquet(io.BytesIO(stored)).query("split == 'test' and level == 'bag'")["bag_index"]
    rows = pd.DataFrame({
        "bag": np.array(pool.names)[pool.bags.bag_of], "path": np.array(list(map(str, pool.images)))[pool.image],
        "x": pool.xy[:, 0], "y": pool.xy[:, 1],
    })[np.isin(pool.bags.bag_of, test)]  # fmt: skip
    twice = rows.loc[rows.duplicated(), "bag"].unique()
    rows = rows[~rows["bag"].isin(twice)]
    assert rows["bag"].nunique() >= 4
    rows.to_csv(tmp_path / "colon.csv", index=False)
    frame = _frame(place, run, tmp_path / "s.parquet", tmp_path / "colon.csv")
    _check_committed(place, run, frame, pool, only=set(rows["bag"]))
