"""Pictures of score maps say what is scored, and leave without colour what training left out."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from d2l_study.data import instance_classes
from d2l_study.inference import image_labelling, overlay
from d2l_study.inference.image_labelling import label_images
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.overlay import Panel, Places, overlay_picture, slide_overlay
from d2l_study.inference.sliding_window import Grid
from d2l_study.inference.white_ground import white_on_grid, white_patches
from d2l_study.models import MilModel
from d2l_study.slides.score_map import ScoreMap


def half_white(side=60):
    """Dark on the left, white on the right."""
    image = np.full((side, side, 3), 100, np.uint8)
    image[:, side // 2 :] = 255
    return image


def coloured(png):
    """(h, w) bool: the pixels that are not grey, letters and tissue of no colour among them."""
    picture = np.array(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    return np.ptp(picture, axis=2) > 12


@pytest.mark.parametrize("patch", [(9, 9), (10, 6)])
def test_a_patch_is_white_by_its_own_mean(patch):
    picture = np.random.default_rng(0).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    found = white_patches(picture, patch, 1.0, 0.5)
    h, w = patch
    for y, x in ((0 + h, 0 + w), (12, 15), (22 - h, 30 - w)):
        cut = picture[y - h // 2 : y - h // 2 + h, x - w // 2 : x - w // 2 + w]
        assert found[y, x] == (cut.mean() / 255 > 0.5)
    assert found.any() and not found.all()
    assert not white_patches(picture, patch, 1.0, None).any()


@pytest.mark.parametrize("shrink", [1, 3])
def test_patches_of_a_grid_are_white_where_the_image_is(shrink):
    grid = Grid((9, 9), 6, 4, 4, 10, 10)
    tissue = half_white()[::shrink, ::shrink]
    found = white_on_grid(tissue, shrink, grid, 0.6)
    centres = 4 + 6 * np.arange(10)
    sure = np.abs(centres - 30) > 5
    assert (found[:, sure] == (centres > 30)[sure]).all()
    assert not white_on_grid(tissue, shrink, grid, None).any() and found.shape == (10, 10)


@pytest.mark.parametrize(("width", "drawn"), [(2, 2), (3, 4), (4, 4), (8, 8)])
def test_the_line_is_as_wide_as_asked_for(width, drawn):
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    edge = overlay.border(inside, width)
    half = drawn // 2
    assert np.flatnonzero(edge[20]).tolist() == [*range(10 - half, 10 + half), *range(30 - half, 30 + half)]
    assert (edge == edge.T).all() and not edge[:5].any()


def test_white_ground_that_training_left_out_has_no_colour_and_no_line():
    panel = Panel(np.full((4, 4), 3.0, np.float32), Grid((8, 8), 15, 7.5, 7.5, 4, 4), threshold=10.0)
    everywhere, left_out = (
        coloured(overlay_picture(half_white(), (60, 60), {"teacher": panel}, side=240, white_above=white))
        for white in (None, 0.8)
    )
    right = slice(14 + 240 + 12 + 140, 14 + 240 + 12 + 230)  # margin, tissue, gap, then within the map
    assert everywhere[100:200, right].all() and not left_out[100:200, right].any()
    left = slice(14 + 240 + 12 + 10, 14 + 240 + 12 + 100)
    assert everywhere[100:200, left].all() and left_out[100:200, left].all()
    assert len(left_out) > len(everywhere)  # a line says so

    all_above = Panel(panel.logits, panel.grid, threshold=0.0)
    made = overlay_picture(half_white(), (60, 60), {"teacher": all_above}, side=240, white_above=0.8)
    red, green, _ = np.array(Image.open(io.BytesIO(made)).convert("RGB")).astype(int)[150].T
    lined = np.flatnonzero(red > green + 40)
    assert len(lined) and (lined < right.start).all()  # about the tissue, not about the white ground


def test_the_bar_names_the_positive_class(monkeypatch):
    written = []
    text = overlay._Pen.text
    monkeypatch.setattr(overlay._Pen, "text", lambda pen, x, y, what, *a, **k: written.append(what) or
                        text(pen, x, y, what, *a, **k))  # fmt: skip
    panel = Panel(np.zeros((4, 4), np.float32), Grid((8, 8), 15, 7.5, 7.5, 4, 4))
    widths = [Image.open(io.BytesIO(overlay_picture(half_white(), (60, 60), {"a": panel}, positive=name))).width
              for name in ("epithelial", "nuclei of a malignant image")]  # fmt: skip
    assert {"probability of", "epithelial", "nuclei of a malignant image"} <= set(written)
    assert widths[1] > widths[0]  # a long name has room
    scores = ScoreMap(np.zeros((4, 4), np.float32), np.full(2, 15.0), np.zeros(2))
    slide_overlay(half_white(), (60, 60), scores, None, "slide", "tumour")
    assert written[-1] == "tumour"


def test_classes_have_the_names_that_the_data_give():
    assert instance_classes({"dataset": "colon"}) == ("epithelial", "other nuclei")
    assert instance_classes({"dataset": "manifest"}) == ("positive", "negative")
    assert instance_classes({"dataset": "manifest", "positive_classes": "Tumor, Necrosis"})[0] == "Tumor, Necrosis"
    assert instance_classes({"dataset": "features", "positive": "LUAD"}) == ("LUAD", "negative")
    assert instance_classes({}) == ("positive", "negative")


def test_label_draws_by_the_data_of_its_model(tmp_path, monkeypatch):
    given = []
    draw = image_labelling.overlay_picture
    monkeypatch.setattr(image_labelling, "overlay_picture", lambda *a, **k: given.append(k) or draw(*a, **k))
    Image.fromarray(half_white()).save(tmp_path / "a.png")
    network = MilModel((3, 17, 17), "attention", 8, 4)
    for white in (0.9, None):
        card = ModelCard("teacher", {"data": {"dataset": "colon", "white_above": white}}, (0.5,) * 3, (0.2,) * 3, "s",
                         "ab" * 10, 1, 0.0)  # fmt: skip
        stored = StoredModel(network, network.init(np.random.default_rng(3)), card)
        list(label_images(stored, [tmp_path / "a.png"], tmp_path / f"out{white}", 8, lambda path: None))
    assert [one["white_above"] for one in given] == [0.9, None]
    assert {one["positive"] for one in given} == {"epithelial"}


def test_the_share_of_positive_patches_leaves_white_ground_out(tmp_path):
    Image.fromarray(half_white()).save(tmp_path / "a.png")
    network = MilModel((3, 17, 17), "attention", 8, 4)
    params = network.init(np.random.default_rng(3))
    for white in (0.9, None):
        card = ModelCard("teacher", {"data": {"dataset": "colon", "white_above": white}}, (0.5,) * 3, (0.2,) * 3, "s",
                         "ab" * 10, 1, 0.0)  # fmt: skip
        first = StoredModel(network, params, card)
        (made,) = label_images(first, [tmp_path / "a.png"], tmp_path / f"first{white}", 8, lambda path: None)
        logits = np.load(made.path)
        threshold = float(np.median(logits[:, -1]))  # of white patches, so that they differ from the others
        model = StoredModel(network, params, replace(card, instance_threshold=threshold))
        out = tmp_path / f"out{white}"
        (made,) = label_images(model, [tmp_path / "a.png"], out, 8, lambda path: None)
        there = ~white_on_grid(half_white(), 1, made.grid, white)
        assert there.all() == (white is None) and there.any()
        about = json.loads((out / "a.json").read_text())
        assert made.share == about["predicted_positive"] == (logits[there] > threshold).mean()
        assert made.white == about["white_ground"] == (None if white is None else (~there).mean())


@pytest.mark.parametrize("size", [(60, 60), (6, 60)])
def test_the_legend_says_what_the_line_is_and_has_room(size, monkeypatch):
    ends = {}
    text = overlay._Pen.text
    monkeypatch.setattr(overlay._Pen, "text", lambda pen, x, y, what, *a, **k: ends.setdefault(
        what, x + (wide := text(pen, x, y, what, *a, **k))) and wide)  # fmt: skip
    logits = np.where(np.arange(16).reshape(4, 4) == 5, -1, 1).astype(np.float32)  # a negative island
    panel = Panel(logits, Grid((4, 4), 1.5, 0.5, 7.5, 4, 4), threshold=0.0)
    places = Places(np.array([[1.0, 1], [2, 2]]), np.array([1, 0]))
    tissue = np.full((size[1], size[0], 3), 100, np.uint8)
    scores = ScoreMap(logits, origin=np.zeros(2), step=np.array(size) / 4)
    for draw in (
        lambda: overlay_picture(tissue, size, {"teacher": panel}, places=places, side=400),
        lambda: slide_overlay(tissue, size, scores, 0.0, ""),
    ):
        ends.clear()
        width = Image.open(io.BytesIO(draw())).width
        assert 200 < ends["border of what is predicted positive"] < width
