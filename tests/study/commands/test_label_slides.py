"""`label` on whole-slide images: scores, files for QuPath, truth, resuming, wrong slides and options."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from interrupted_scoring import interrupt_scoring
from make_trial_request import link_synthetic_images, train_kept_model
from PIL import Image
from slides.make_slides import leica_slide, tissue

from d2l_study.cli import main
from d2l_study.data import ManifestBags, MnistBags, SyntheticColonBags
from d2l_study.data.colon import POSITIVE, find_images, read_nuclei
from d2l_study.data.colon_mosaic import write_colon_mosaic
from d2l_study.data.folds import parts_of
from d2l_study.inference import slide_outputs, tile_scores
from d2l_study.inference.sliding_window import place_logits
from d2l_study.inference.tissue_image import open_tissue
from d2l_study.learning import TeacherConfig
from d2l_study.learning.student_config import StudentConfig
from d2l_study.slides.pyramid_file import write_pyramid
from d2l_study.study.trial.stored_models import find_model

TEACHER, STUDENT, GREY, TILED, MAXIMUM = ("ce" * 10, "5d" * 10, "67" * 10, "71" * 10, "3a" * 10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `runs`, `images` (colon images, synthetic), and `slides` and `truth`: their mosaic."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("D2L_CACHE", str(folder / "cache"))
        patch.delenv("D2L_DATA", raising=False)
        data = SyntheticColonBags(images=9, folds=3)
        teacher = TeacherConfig(extractor="lenet_histology", steps=40, eval_every=20)
        student = StudentConfig(network="lenet_histology", steps=30, eval_every=15)
        train_kept_model(folder / "runs", TEACHER, data, teacher=teacher)
        train_kept_model(folder / "runs", MAXIMUM, data, teacher=replace(teacher, pooling="embedding_max", steps=20))
        train_kept_model(folder / "runs", STUDENT, data, (TEACHER,), teacher=teacher, student=student)
        link_synthetic_images(folder)
    for name in ("slides", "truth"):
        (folder / name).mkdir()
    write_colon_mosaic(
        folder / "slides" / "mosaic ä 1.svs", folder / "truth" / "mosaic ä 1.geojson", root=folder / "images",
        compression="lossless",
    )  # fmt: skip
    return folder


@pytest.fixture(autouse=True)
def _environment(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setenv("D2L_CACHE", str(place / "cache"))


def _label(place: Path, out: Path, *words: str | Path, run: str = STUDENT) -> int:
    return main(["label", "--root", str(place / "runs"), "--run", run[:8], "--out", str(out), *map(str, words)])


def _instances(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "instances.csv")


@pytest.mark.slow
def test_nuclei_of_a_mosaic_have_the_scores_that_they_have_in_their_own_images(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = ["--truth", place / "truth", "--positive", "epithelial"]
    assert _label(place, tmp_path, place / "slides", *truth) == 0
    said = capsys.readouterr().out
    stored = find_model(str(place / "runs"), STUDENT[:8], None, None).stored
    expected, label = [], []
    for image in find_images(place / "images"):
        for kind, path in image.nuclei.items():
            xy = read_nuclei(path)
            if len(xy):
                expected.append(place_logits(stored, open_tissue(image.image, 3), xy))
                label += [int(kind == POSITIVE)] * len(xy)
    found = _instances(tmp_path)
    ordered = np.argsort(np.concatenate(expected)), np.argsort(found["logit"])
    np.testing.assert_allclose(found["logit"].to_numpy()[ordered[1]], np.concatenate(expected)[ordered[0]], atol=1e-4)
    assert sorted(found["truth"]) == sorted(label)
    from sklearn.metrics import roc_auc_score

    area = roc_auc_score(label, np.concatenate(expected))
    assert f"{len(found):,} annotated points, AUC {area:.3f}" in said


def test_every_format_holds_every_tile_at_its_place(place: Path, tmp_path: Path) -> None:
    every = "parquet,h5,geojson,regions,map,overlay"
    assert _label(place, tmp_path, place / "slides", "--formats", every, "--mpp", "0.55") == 0
    rows = pd.read_parquet(tmp_path / "mosaic ä 1.scores.parquet")
    assert len(rows) > 50 and set(rows["slide"]) == {"mosaic ä 1"} and (rows["x"] % 27 == 0).all()
    with h5py.File(tmp_path / "mosaic ä 1.scores.h5") as file:
        assert file["coords"][()].tolist() == rows[["x", "y"]].astype(int).to_numpy().tolist()
        assert np.array_equal(file["logits"][()], rows["logit"]) and file["coords"].attrs["patch_size_level0"] == 27
    tiles = json.loads((tmp_path / "mosaic ä 1.tiles.geojson").read_text())["features"]
    assert [t["geometry"]["coordinates"][0][0] for t in tiles] == rows[["x", "y"]].to_numpy().tolist()
    above = [t["properties"]["classification"]["name"] == "positive" for t in tiles]
    assert above == rows["predicted"].astype(bool).tolist()
    regions = json.loads((tmp_path / "mosaic ä 1.regions.geojson").read_text())["features"]
    assert sum(region["properties"]["measurements"]["tiles"] for region in regions) == sum(above)
    scores = tifffile.imread(tmp_path / "mosaic ä 1.scores.ome.tif")
    at = scores[(rows["y"] // 27).astype(int), (rows["x"] // 27).astype(int)]
    np.testing.assert_allclose(at, rows["score"], rtol=1e-6)
    assert np.isfinite(scores).sum() == len(rows)
    with Image.open(tmp_path / "mosaic ä 1.overlay.png") as picture:
        assert picture.width > 2 * picture.height * 0.9
    about = json.loads((tmp_path / "mosaic ä 1.json").read_text())
    assert about["tiles"]["count"] == len(rows) and len(about["files"]) == 6
    table = pd.read_csv(tmp_path / "slides.csv")
    assert table.loc[0, "tiles"] == len(rows) and np.isclose(table.loc[0, "predicted_positive"], np.mean(above))


def test_tiles_are_smoothed_over_their_neighbours(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over 8 neighbours: where all tiles that touch one are there, it has their mean. The slide as a bag stays."""
    for name, more in (("raw", ()), ("smooth", ("--smooth", "8"))):
        assert _label(place, tmp_path / name, place / "slides", "--formats", "parquet", *more, run=TEACHER) == 0
    raw, smooth = (pd.read_parquet(tmp_path / name / "mosaic ä 1.scores.parquet") for name in ("raw", "smooth"))
    at = {(x, y): logit for x, y, logit in raw[["x", "y", "logit"]].to_numpy()}
    steps = [(dx, dy) for dx in (-27, 0, 27) for dy in (-27, 0, 27)]
    inner = 0
    for x, y, logit in smooth[["x", "y", "logit"]].to_numpy():
        block = [at.get((x + dx, y + dy)) for dx, dy in steps]
        if None not in block:
            inner += 1
            assert np.isclose(logit, np.mean(block), atol=1e-5)
    assert inner > 5
    of_bag = [json.loads((tmp_path / n / "mosaic ä 1.json").read_text())["slide_logit"] for n in ("raw", "smooth")]
    assert of_bag[0] == of_bag[1]
    said = "note:     logits are averaged over 8 neighbours, while the threshold was set on logits that are not\n"
    assert capsys.readouterr().out.count(said) == 1
    assert _label(place, tmp_path / "smooth", place / "slides", "--formats", "parquet", run=TEACHER) == 0  # not taken
    again = pd.read_parquet(tmp_path / "smooth" / "mosaic ä 1.scores.parquet")
    np.testing.assert_array_equal(again["logit"], raw["logit"])
    np.save(tmp_path / "patches.npy", np.zeros((3, 3, 27, 27), np.uint8))
    assert _label(place, tmp_path / "patches", tmp_path / "patches.npy", "--smooth", "2") == 2
    assert "patches.npy: holds patches without places, which have no neighbours" in capsys.readouterr().err


def test_label_and_predict_smooth_over_the_same_neighbours(place: Path, tmp_path: Path) -> None:
    """Of tiles whose sides are no whole pixels, with ties: three of four that are equally far."""
    slide = next((place / "slides").iterdir())
    words = [slide, "--no-tissue", "--smooth", "3", "--mpp", "0.53"]
    assert _label(place, tmp_path / "out", *words, "--formats", "parquet") == 0
    words = ["predict", "--root", place / "runs", "--run", STUDENT[:8], *words, "--out", tmp_path / "scores.parquet"]
    assert main([*map(str, words)]) == 0
    label = pd.read_parquet(tmp_path / "out" / f"{slide.stem}.scores.parquet")
    predict = pd.read_parquet(tmp_path / "scores.parquet")
    predict = predict[predict["level"] == "instance"]
    np.testing.assert_allclose(label["logit"], predict["logit"], atol=1e-4)


def test_a_teacher_scores_a_slide_as_a_bag(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By its attention over the tiles, as over the instances of a bag. Where it pools features it is said that it does
    not."""
    assert _label(place, tmp_path / "max", place / "slides", run=MAXIMUM) == 0
    assert "slides have no score here, which pooling embedding_max takes" in capsys.readouterr().out
    assert json.loads((tmp_path / "max/mosaic ä 1.json").read_text())["slide_logit"] is None
    assert _label(place, tmp_path, place / "slides", run=TEACHER) == 0
    assert "no score here" not in capsys.readouterr().out
    rows = pd.read_parquet(tmp_path / "mosaic ä 1.scores.parquet")
    logit = json.loads((tmp_path / "mosaic ä 1.json").read_text())["slide_logit"]
    assert rows["logit"].min() < logit < rows["logit"].max()
    assert np.isclose(pd.read_csv(tmp_path / "slides.csv").loc[0, "logit"], logit, rtol=1e-5)


def test_slides_of_other_resolutions_are_read_at_that_of_the_model(place: Path, tmp_path: Path) -> None:
    """A slide scanned twice as finely gives the same tiles at twice the places, and nearly the same scores."""
    with Image.open(find_images(place / "images")[1].image) as image:
        pixels = np.asarray(image.convert("RGB"))
    fine = np.repeat(np.repeat(pixels, 2, 0), 2, 1)
    write_pyramid(tmp_path / "s20.svs", pixels, mpp=0.5, compression="lossless")
    write_pyramid(tmp_path / "s40.svs", fine, mpp=0.25, compression="lossless")
    slides = [tmp_path / "s20.svs", tmp_path / "s40.svs"]
    assert _label(place, tmp_path / "out", *slides, "--mpp", "0.5", "--no-tissue") == 0
    one, two = (pd.read_parquet(tmp_path / "out" / f"{name}.scores.parquet") for name in ("s20", "s40"))
    assert (2 * one[["x", "y"]]).equals(two[["x", "y"]])
    np.testing.assert_allclose(one["logit"], two["logit"], atol=1e-4)


def test_a_model_of_tiles_labels_the_tiles_that_it_would_have_been_trained_on(place: Path, tmp_path: Path) -> None:
    """Its resolution and its share of tissue come from its data."""
    rows = "path,label\n" + "".join(f"slide{k}.svs,{k % 2}\n" for k in range(6))
    (tmp_path / "slides.csv").write_text(rows)
    for k, image in enumerate(find_images(place / "images")[:6]):
        with Image.open(image.image) as picture:
            pixels = np.asarray(picture.convert("RGB")).copy()
        pixels[:, : 40 + 5 * k] = 255
        write_pyramid(tmp_path / f"slide{k}.svs", pixels, mpp=0.5, compression="lossless")
    data = ManifestBags(path=str(tmp_path / "slides.csv"), cut="grid", mpp=0.5, patch_size=27, tissue=True,
                        least_tissue=0.9, folds=3)  # fmt: skip
    train_kept_model(
        place / "runs", TILED, data, teacher=TeacherConfig(extractor="lenet_histology", steps=2, eval_every=2)
    )
    assert _label(place, tmp_path / "out", tmp_path / "slides.csv", "--formats", "parquet", run=TILED) == 0
    assert _label(place, tmp_path / "coarse", tmp_path / "slides.csv", "--mpp", "1", run=TILED) == 2
    assert not (tmp_path / "coarse").exists()
    pool = data.load_pool()
    # Patches that are cut already are no slides: as arrays, and as images of exactly a patch.
    patches = np.ascontiguousarray(np.asarray(pool.instances[:3]))
    np.save(tmp_path / "patches.npy", patches)
    (tmp_path / "patches").mkdir()
    for i, patch in enumerate(patches):
        Image.fromarray(patch.transpose(1, 2, 0)).save(tmp_path / "patches" / f"{i}.png")
    for given, out in (("patches.npy", "array"), ("patches", "images")):
        assert _label(place, tmp_path / out, tmp_path / given, run=TILED) == 0
    one, many = (pd.read_parquet(tmp_path / out / "scores.parquet")["logit"] for out in ("array", "images"))
    np.testing.assert_allclose(one, many, atol=1e-5)
    for name, begin, end in zip(pool.names, pool.bags.offsets[:-1], pool.bags.offsets[1:], strict=True):
        found = pd.read_parquet(tmp_path / "out" / f"{Path(name).stem}.scores.parquet")
        np.testing.assert_allclose(found[["x", "y"]] + 13, pool.xy[begin:end], atol=0.51)


def test_the_resolution_of_a_slide_comes_from_its_file_a_table_or_the_option(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open(find_images(place / "images")[1].image) as image:
        pixels = np.asarray(image.convert("RGB"))
    for name, mpp in (("right", 0.5), ("wrong", 5.0), ("silent", None)):
        write_pyramid(tmp_path / f"{name}.svs", pixels, mpp=mpp, compression="lossless")
    (tmp_path / "slides.csv").write_text("path,mpp\nright.svs,\nwrong.svs,0.5\nsilent.svs,\n")
    words = [tmp_path / "slides.csv", "--mpp", "0.5", "--no-tissue", "--formats", "parquet"]
    assert _label(place, tmp_path / "a", *words) == 1
    said = capsys.readouterr().out
    assert "silent: not labelled" in said and "--slide-mpp, or a column mpp" in said
    assert _label(place, tmp_path / "b", *words, "--slide-mpp", "0.5") == 0
    assert "--slide-mpp is not used" not in capsys.readouterr().out
    scores = [pd.read_parquet(tmp_path / "b" / f"{name}.scores.parquet") for name in ("right", "wrong", "silent")]
    for other in scores[1:]:
        pd.testing.assert_frame_equal(scores[0].drop(columns="slide"), other.drop(columns="slide"))
    assert _label(place, tmp_path / "c", *words, "--slide-mpp", "0.4") == 0
    assert "note:     --slide-mpp is not used for right.svs, which says another one" in capsys.readouterr().out


def test_a_resolution_of_a_table_holds_however_the_slide_is_named_too(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the table or after it, and through a linked folder; two tables that differ are refused."""
    with Image.open(find_images(place / "images")[1].image) as image:
        pixels = np.asarray(image.convert("RGB"))
    (tmp_path / "in").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "in")
    slide = tmp_path / "in" / "a.svs"
    write_pyramid(slide, pixels, mpp=None, compression="lossless")
    tables = [tmp_path / "in" / "one.csv", tmp_path / "in" / "two.csv"]
    for table, mpp in zip(tables, (0.5, 0.25), strict=True):
        table.write_text(f"path,mpp\na.svs,{mpp}\n")
    words = ["--mpp", "0.5", "--no-tissue", "--formats", "parquet"]
    for number, given in enumerate(
        ((slide, tables[0]), (tables[0], slide), (tmp_path / "linked" / "a.svs", tables[0]))
    ):
        assert _label(place, tmp_path / f"{number}", *given, *words) == 0
        assert pd.read_csv(tmp_path / f"{number}" / "slides.csv")["mpp_x"].tolist() == [0.5]
    capsys.readouterr()
    assert _label(place, tmp_path / "both", *tables, *words) == 2
    assert "named twice, at 0.5 and at 0.25" in capsys.readouterr().err


def test_a_resolution_given_later_reaches_the_files_that_are_kept(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of tiles of level 0 the scores stay, and are not made again."""
    with Image.open(find_images(place / "images")[1].image) as image:
        write_pyramid(tmp_path / "a.svs", np.asarray(image.convert("RGB")), mpp=None, compression="lossless")
    words = [tmp_path / "a.svs", "--no-tissue", "--formats", "parquet,h5"]
    assert _label(place, tmp_path / "out", *words) == 0
    monkeypatch.setattr(tile_scores.TileTerms, "__call__", lambda *_: pytest.fail("it was scored again"))
    assert _label(place, tmp_path / "out", *words, "--slide-mpp", "0.4") == 0
    with h5py.File(tmp_path / "out" / "a.scores.h5") as file:
        assert file["coords"].attrs["level0_mpp"].tolist() == [0.4, 0.4]


def test_a_slide_and_an_image_of_one_name_have_files_of_their_own_and_one_of_instances(
    place: Path, tmp_path: Path
) -> None:
    """The image is of the model's data, so that its nuclei are known."""
    known = next(image for image in find_images(place / "images") if any(
        len(read_nuclei(path)) for path in image.nuclei.values()))  # fmt: skip
    with Image.open(known.image) as image:
        pixels = np.asarray(image.convert("RGB"))[:120, :150]
    slide, truth = tmp_path / f"{known.image.stem}.svs", tmp_path / "points.geojson"
    write_pyramid(slide, pixels, mpp=0.5, compression="lossless")
    truth.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "geometry": {"type": "Point", "coordinates": [40 + 20 * i, 50]},
         "properties": {"classification": {"name": name}}} for i, name in enumerate(("pos", "neg"))]}))  # fmt: skip
    words = [slide, known.image, "--no-tissue", "--formats", "parquet", "--truth", truth, "--positive", "pos"]
    for _ in range(2):  # the same names are found again
        assert _label(place, tmp_path / "out", *words, "--stride", "40") == 0
    stem = known.image.stem
    there = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"{stem}.scores.parquet", f"{stem}-2.logits.npy", f"{stem}-2.json"} <= there
    assert _instances(tmp_path / "out")["source"].value_counts()[str(slide)] == 2
    assert set(_instances(tmp_path / "out")["source"]) == {str(slide), str(known.image)}


def test_it_is_said_where_qupath_shows_a_part_of_a_slide(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leica_slide(tmp_path / "a.scn", tissue(320, 256), (1024, 512), (256, 128))
    (tmp_path / "a.geojson").write_text('{"type": "Polygon", "coordinates": [[[9, 9], [90, 9], [90, 90]]]}')
    for formats, truth, said in (
        ("parquet", (), False),
        ("geojson", (), True),
        ("parquet", ("--truth", tmp_path), True),
    ):
        _label(place, tmp_path / "out", tmp_path / "a.scn", "--mpp", "0.5", "--slide-mpp", "0.5", "--formats", formats,
               *truth)  # fmt: skip
        found = "note:     QuPath shows only the scanned part of a.scn (from x 256, y 128)" in capsys.readouterr().out
        assert found is said


def test_it_is_said_of_slides_what_the_model_did_with_them(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    cohort.mkdir()
    rows = []
    for i, image in enumerate(find_images(place / "images")[:7]):
        with Image.open(image.image) as opened:
            write_pyramid(cohort / f"s{i}.svs", np.asarray(opened.convert("RGB")), mpp=0.5, compression="lossless")
        rows.append(f"s{i},{i % 2},s{i}.svs\n")
    table = cohort / "t.csv"
    table.write_text("bag,label,path\n" + "".join(rows[:6]))
    data = ManifestBags(path=str(table), cut="grid", mpp=0.5, patch_size=27, folds=3)
    train_kept_model(
        place / "runs", "a1" * 10, data, teacher=TeacherConfig(extractor="lenet_histology", steps=1, eval_every=1)
    )
    parts = parts_of(data.load_pool(), 0, 5, 3)[:3]
    capsys.readouterr()
    words = [cohort, "--no-tissue", "--formats", "parquet"]
    assert _label(place, tmp_path / "out", *words, run="a1" * 10) == 0
    said = capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out" / "slides.csv", keep_default_na=False).set_index("slide")["part"]
    for word, bags in zip(("training", "validation", "test"), parts, strict=True):
        assert {f"s{b}" for b in bags} == set(found.index[found == word])
        assert f"{word}: ".ljust(10) + f"{len(bags)} slides that this model was" in said
    assert found["s6"] == "" and "others:   1 slide that is not of this model's data" in said

    table.write_text("bag,label,path\n" + "".join(rows))
    assert _label(place, tmp_path / "out", *words, run="a1" * 10) == 0
    assert "trained on is not known, since its data have changed" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "out" / "slides.csv", keep_default_na=False)["part"]
    assert (found == "").all()


def test_a_slide_that_is_done_is_not_scored_again_and_another_format_is_added(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _label(place, tmp_path, place / "slides", "--formats", "parquet,geojson") == 0
    before = (tmp_path / "mosaic ä 1.scores.parquet").read_bytes()
    monkeypatch.setattr(tile_scores.TileTerms, "__call__", lambda *_: pytest.fail("it was scored again"))
    assert _label(place, tmp_path, place / "slides", "--formats", "parquet,regions,h5") == 0
    assert "its scores were there" in capsys.readouterr().out
    assert (tmp_path / "mosaic ä 1.scores.parquet").read_bytes() == before
    assert (tmp_path / "mosaic ä 1.regions.geojson").is_file() and (tmp_path / "mosaic ä 1.scores.h5").is_file()
    assert len(json.loads((tmp_path / "mosaic ä 1.json").read_text())["files"]) == 4


def test_files_of_other_tiles_are_not_taken_for_those_of_these(place: Path, tmp_path: Path) -> None:
    """Neither where the tiles have changed since, nor where what was kept of their scores was damaged."""

    def tiles_in_files() -> tuple[int, int, list[str]]:
        rows = pd.read_parquet(tmp_path / "mosaic ä 1.scores.parquet")
        polygons = json.loads((tmp_path / "mosaic ä 1.tiles.geojson").read_text())["features"]
        return len(rows), len(polygons), json.loads((tmp_path / "mosaic ä 1.json").read_text())["files"]

    both = ["mosaic ä 1.scores.parquet", "mosaic ä 1.tiles.geojson"]
    assert _label(place, tmp_path, place / "slides", "--formats", "geojson") == 0
    few, polygons, files = tiles_in_files()
    assert few == polygons and files == both
    assert _label(place, tmp_path, place / "slides", "--formats", "parquet", "--overlap", "9") == 0
    many, polygons, files = tiles_in_files()
    assert many > few == polygons and files == both[:1]
    assert _label(place, tmp_path, place / "slides", "--formats", "geojson", "--overlap", "9") == 0
    assert tiles_in_files() == (many, many, both)
    scores = pq.read_table(tmp_path / "mosaic ä 1.scores.parquet")
    pq.write_table(scores.slice(1), tmp_path / "mosaic ä 1.scores.parquet")
    assert _label(place, tmp_path, place / "slides", "--formats", "geojson", "--overlap", "9") == 0
    assert tiles_in_files() == (many, many, both)


def test_an_interrupted_slide_goes_on_where_it_was(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _label(place, tmp_path / "whole", place / "slides", "--formats", "parquet") == 0
    calls = interrupt_scoring(monkeypatch, 4, 27 * 27 * 3 * 16)
    assert _label(place, tmp_path / "cut", place / "slides", "--formats", "parquet") == 130
    assert "48 of" in capsys.readouterr().err
    assert _label(place, tmp_path / "cut", place / "slides", "--formats", "parquet") == 0
    whole, cut = (tmp_path / name / "mosaic ä 1.scores.parquet" for name in ("whole", "cut"))
    rows = pd.read_parquet(whole)
    pd.testing.assert_frame_equal(rows, pd.read_parquet(cut))
    assert sum(calls) - 16 == len(rows)  # each tile once, but for the batch that was interrupted
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_scores_outlive_an_interruption_of_the_writing(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(slide_outputs, "write_tile_polygons", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert _label(place, tmp_path, place / "slides") == 130
    monkeypatch.setattr(tile_scores.TileTerms, "__call__", lambda *_: pytest.fail("it was scored again"))
    assert _label(place, tmp_path, place / "slides") == 0
    assert len(pd.read_parquet(tmp_path / "mosaic ä 1.scores.parquet")) > 50


def test_a_slide_that_cannot_be_read_is_passed_over(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, white = tmp_path / "bad.svs", tmp_path / "white.svs"
    bad.write_bytes((place / "slides" / "mosaic ä 1.svs").read_bytes()[:3000])
    write_pyramid(white, np.full((200, 200, 3), 255, np.uint8), mpp=0.5)
    good = place / "slides" / "mosaic ä 1.svs"
    assert _label(place, tmp_path / "out", bad, white, good, "--formats", "parquet,regions,map,overlay") == 1
    said = capsys.readouterr().out
    assert "bad: not labelled: " in said and "white: 200×200 pixels of 0.5 µm, no tiles: too little tissue" in said
    table = pd.read_csv(tmp_path / "out" / "slides.csv")
    assert table["slide"].tolist() == ["bad", "white", "mosaic ä 1"]
    assert str(bad) in table.loc[0, "problem"] and table["tiles"].tolist()[:2] == [0, 0]
    assert pd.read_parquet(tmp_path / "out" / "white.scores.parquet").empty


@pytest.mark.parametrize(("words", "expected"), [
    (["--positive", "epithelial"], "--positive: does nothing without --truth"),
    (["--coverage", "0.3"], "--coverage: does nothing without --truth"),
    (["--formats", "geojson,qupath"], "--formats: 'qupath' is no format"),
    (["--overlap", "27"], "--overlap 27: expected 0 to 26"),
    (["--stride", "9"], "--stride: no input is an image larger than a patch of 27×27; of tiles of slides --overlap"),
    (["--truth", "nowhere"], "no such file or folder"),
    (["--mpp", "0,5"], "decimals are written with a point"),
])  # fmt: skip
def test_wrong_options_are_answered_before_any_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert _label(place, tmp_path / "out", place / "slides", *words) == 2
    said = capsys.readouterr().err
    assert expected in said and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_truth_that_does_not_fit_is_said_of_the_slide(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _label(place, tmp_path / "out", place / "slides", "--truth", place / "truth", "--positive", "tumour") == 1
    said = capsys.readouterr().out
    assert "not labelled" in said and "tumour" in said and "epithelial" in said
    (tmp_path / "table.csv").write_text("path,mpp")
    for truth in (tmp_path / "table.csv", tmp_path / "bad"):
        (tmp_path / "bad").mkdir(exist_ok=True)
        (tmp_path / "bad" / "mosaic ä 1.geojson").write_text("path,mpp")
        assert _label(place, tmp_path / "no", place / "slides", "--truth", truth) == 2
        assert "this is no annotation" in capsys.readouterr().err and not (tmp_path / "no").exists()
    (tmp_path / "none").mkdir()
    assert _label(place, tmp_path / "other", place / "slides", "--truth", tmp_path / "none") == 2
    assert "no annotation of any of these slides; expected a file like mosaic ä 1.geojson" in capsys.readouterr().err


def test_models_that_label_no_slides(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = MnistBags(num_bags=10, test_bags=10)
    train_kept_model(place / "runs", GREY, data, teacher=TeacherConfig(steps=2, eval_every=2))
    assert _label(place, tmp_path, place / "slides", run=GREY) == 2
    assert "this model labels patches of 1 channel and 28×28 pixels; tiles of slides are square and RGB" in (
        capsys.readouterr().err
    )


def test_files_that_label_did_not_write_are_left_alone(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mosaic ä 1.tiles.geojson").write_text('{"mine": 1}')
    assert _label(place, tmp_path, place / "slides") == 2
    assert "was not written by `label`" in capsys.readouterr().err
    assert (tmp_path / "mosaic ä 1.tiles.geojson").read_text() == '{"mine": 1}'
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mosaic ä 1.scores.parquet").write_text("mine")
    assert _label(place, tmp_path / "more", place / "slides", "--formats", "geojson") == 2  # parquet is always written
    assert (tmp_path / "more" / "mosaic ä 1.scores.parquet").read_text() == "mine"
