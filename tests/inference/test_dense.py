"""A map holds the scores of the patches that the loader would cut, where it says that they lie."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from d2l_study.data.cutting import cut_patches
from d2l_study.errors import UserError
from d2l_study.inference import sliding_window
from d2l_study.inference.image_labelling import ImageAnnotations, label_images, split_inputs
from d2l_study.inference.label import label_instances
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.overlay import Panel, Places, map_at, overlay_picture
from d2l_study.inference.sliding_window import Grid, bands, place_logits, place_patches, score_map
from d2l_study.inference.tissue_image import TissueImage, open_tissue
from d2l_study.models import MilModel


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def stored(patch=(17, 17), threshold=0.0):
    network = MilModel((3, *patch), "attention", 8, 4)
    card = ModelCard("teacher", {}, (0.5,) * 3, (0.2,) * 3, "s", "ab" * 10, 1, threshold)
    return StoredModel(network, network.init(np.random.default_rng(3)), card)


def pixels(height=61, width=74):
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("patch", "stride"), [((17, 17), 1), ((17, 17), 4), ((16, 16), 4), ((16, 18), 5)])
def test_every_patch_of_a_grid_is_the_one_that_the_loader_cuts(patch, stride, monkeypatch):
    monkeypatch.setattr(sliding_window, "BAND_BYTES", 74 * 3 * 40)  # several bands
    image = TissueImage.of_array("a", pixels())
    grid = Grid.over(74, 61, patch, stride)
    x, y = np.meshgrid(grid.x, grid.y)
    expected = cut_patches(pixels(), np.stack([x.ravel(), y.ravel()], axis=1), patch)
    found = [windows.reshape(-1, 3, *patch) for _, windows in bands(image, grid)]
    assert len(found) > 1
    np.testing.assert_array_equal(np.concatenate(found), expected)


@pytest.mark.parametrize("patch", [(17, 17), (16, 16)])
def test_places_are_cut_in_parts_as_from_the_whole_image(patch, monkeypatch):
    monkeypatch.setattr(sliding_window, "BAND_BYTES", 1)
    xy = np.random.default_rng(2).integers(-1, [75, 62], (90, 2)).astype(float)
    found = np.empty((90, 3, *patch), np.uint8)
    for chosen, patches in place_patches(TissueImage.of_array("a", pixels()), xy, patch):
        found[chosen] = patches
    np.testing.assert_array_equal(found, cut_patches(pixels(), xy, patch))


def test_the_map_at_a_nucleus_is_the_score_of_its_patch():
    model, image = stored(), TissueImage.of_array("a", pixels())
    logits = score_map(model, image, Grid.over(74, 61, (17, 17), 1))
    assert logits.shape == (61, 74)
    xy = np.array([[0, 0], [73, 60], [30, 5], [2, 59]])
    expected = label_instances(model, cut_patches(pixels(), xy, (17, 17))).logit
    np.testing.assert_allclose(logits[xy[:, 1], xy[:, 0]], expected, atol=1e-5)
    np.testing.assert_allclose(place_logits(model, image, xy.astype(float)), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_the_picture_shows_a_score_where_its_patch_lies(stride):
    grid = Grid.over(90, 60, (17, 17), stride)
    logits = np.add.outer(grid.y, 100 * grid.x).astype(np.float32).reshape(grid.rows, grid.columns)
    shown = map_at(Panel(logits, grid), (90, 60), (180, 120))  # two pixels for one of the image
    y, x = (np.arange(120) + 0.5) / 2 - 0.5, (np.arange(180) + 0.5) / 2 - 0.5
    inner = np.ix_((y >= grid.y[0]) & (y <= grid.y[-1]), (x >= grid.x[0]) & (x <= grid.x[-1]))
    np.testing.assert_allclose(shown[inner], np.add.outer(y, 100 * x)[inner], rtol=1e-4)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"])
def test_a_tiff_read_in_parts_is_the_image(tmp_path, compression):
    smooth = np.asarray(Image.fromarray(pixels(20, 25)).resize((300, 400)))
    Image.fromarray(smooth).save(tmp_path / "a.tif", compression=compression, strip_size=40_000)
    expected = np.asarray(Image.open(tmp_path / "a.tif").convert("RGB"))
    image = open_tissue(tmp_path / "a.tif", 3)
    found = np.concatenate([image.rows(first, min(400, first + 37)) for first in range(0, 400, 37)])
    np.testing.assert_array_equal(found, expected)


def test_the_files_of_an_image_say_what_they_hold(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    truth = ImageAnnotations(Places(np.array([[10.0, 10], [40, 30]]), np.array([1, 0])))
    images, others = split_inputs([tmp_path / "a.png"], (3, 17, 17))
    assert not others
    (made,) = label_images(stored(), images, tmp_path / "out", 4, lambda path: truth)
    about = json.loads((tmp_path / "out" / "a.json").read_text())
    logits = np.load(made.path)
    i, j = 7, 3
    centre = np.array([[about["x0"] + j * about["stride"], about["y0"] + i * about["stride"]]])
    expected = label_instances(stored(), cut_patches(pixels(), centre, (17, 17))).logit[0]
    assert logits[i, j] == pytest.approx(expected, abs=1e-5)
    assert Image.open(tmp_path / "out" / "a.overlay.png").size[0] > 2 * 400  # the title needs room
    assert (tmp_path / "out" / "instances.csv").read_text().count("\n") == 3


@pytest.mark.parametrize("ending", [".logits.npy", ".overlay.png", ".json"])
def test_files_of_others_are_not_replaced(tmp_path, ending):
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / f"a{ending}").write_bytes(b"ours")
    with pytest.raises(UserError, match=rf"a{ending} is there, and was not written by `label`"):
        list(label_images(stored(), [tmp_path / "a.png"], out, stride=20))
    assert [path.read_bytes() for path in out.iterdir()] == [b"ours"]
    (out / f"a{ending}").unlink()
    for _ in range(2):  # those of `label` are
        assert len(list(label_images(stored(), [tmp_path / "a.png"], out, stride=20))) == 1


@pytest.mark.parametrize("rank", [3, 30, None])
def test_one_threshold_predicts_the_model_s_own(tmp_path, rank):
    """Where it is not at a score of 0.5, and where the model has none: then nothing is predicted."""
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    grid = Grid.over(74, 61, (17, 17), 4)
    scored = np.sort(score_map(stored(), open_tissue(tmp_path / "a.png", 3), grid), axis=None)
    threshold = None if rank is None else float(scored[rank])
    truth = ImageAnnotations(Places(np.array([[10.0, 10], [40, 30]]), np.array([1, 0])))
    (made,) = label_images(stored(threshold=threshold), [tmp_path / "a.png"], tmp_path, 4, lambda path: truth)
    assert made.share == (None if rank is None else (scored.size - 1 - rank) / scored.size)
    with (tmp_path / "instances.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["source", "x", "y", "truth", "logit", "score", "predicted"]
    assert [row["truth"] for row in rows] == ["1", "0"]
    assert [row["predicted"] for row in rows] == [
        "" if threshold is None else str(int(float(row["logit"]) > threshold)) for row in rows
    ]


def test_mistakes_are_named_before_anything_is_labelled(tmp_path):
    Image.fromarray(pixels(12, 74)).save(tmp_path / "small.png")
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"small.png: 74×12 pixels .* smaller than the model's patch of 17×17"):
        list(label_images(stored(), [tmp_path / "small.png"], tmp_path / "out"))
    for stride in (0, 62):
        with pytest.raises(UserError, match=rf"--stride {stride} is not allowed.*from 1 to 61"):
            list(label_images(stored(), [tmp_path / "a.png"], tmp_path / "out", stride))
    with pytest.raises(UserError, match="given twice"):
        list(label_images(stored(), [tmp_path / "a.png"] * 2, tmp_path / "out"))
    with pytest.raises(UserError, match=r"--out .*file: cannot write there"):
        list(label_images(stored(), [tmp_path / "a.png"], tmp_path / "file"))


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("RGB", 1), ("RGB", 3), ("RGBA", 1), ("RGBA", 3), ("RGB, transparent colour unused", 3), ("L", 1), ("1", 1)],
)
def test_an_image_held_by_pillow_is_read_by_rows(tmp_path, mode, channels):
    image = Image.fromarray(pixels()).convert(mode.split(",")[0])
    if "," in mode:
        image = Image.fromarray(pixels() % 8 * 30)
        image.info["transparency"] = (1, 2, 3)
    image.save(tmp_path / "a.png")
    found = open_tissue(tmp_path / "a.png", channels)
    expected = np.asarray(Image.open(tmp_path / "a.png").convert("RGB").convert("L" if channels == 1 else "RGB"))
    if image.mode == "L":
        expected = np.asarray(image)
    assert (found.width, found.height) == (74, 61)
    rows = np.concatenate([found.rows(a, min(61, a + 20)) for a in range(0, 61, 20)])
    np.testing.assert_array_equal(rows, expected.reshape(61, 74, channels))


def test_a_transparent_pixel_anywhere_is_named(tmp_path):
    image = Image.fromarray(pixels()).convert("RGBA")
    image.putpixel((70, 60), (1, 2, 3, 254))
    image.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="transparent pixels"):
        open_tissue(tmp_path / "a.png", 3).rows(0, 5)


@pytest.mark.slow
def test_letters_and_rims_grow_with_a_large_picture_and_not_with_a_small_one():
    """What is not panel, above and below, is as high at 560 as at 800 pixels, and twice as high at 1600."""
    logits = np.zeros((3, 3), np.float32)
    panel = Panel(logits, Grid((17, 17), 20, 10.0, 10.0, 3, 3), threshold=1.0)
    places = Places(np.array([[20.0, 20], [40, 30]]), np.array([1, 0]))
    rest = {}
    for side in (560, 800, 1600):
        made = overlay_picture(pixels(74, 74), (74, 74), {"teacher": panel}, places=places, title="t", side=side)
        width, height = Image.open(io.BytesIO(made)).size
        assert width > 2 * side
        rest[side] = height - side
    assert rest[560] == rest[800] > 50 and abs(rest[1600] - 2 * rest[800]) <= 2
