"""A model of grey images takes none in colour, and a model of colours says which had none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from d2l_study.cli import main
from d2l_study.inference.image_colour import has_colour
from d2l_study.inference.model_file import ModelCard, StoredModel
from d2l_study.inference.model_folder import ModelRecord, write_model_folder
from d2l_study.models import MilModel

SIDE = 16


def _model(folder: Path, mean: tuple[float, ...]) -> Path:
    """A model's folder, of as many channels as there are means."""
    network = MilModel((len(mean), SIDE, SIDE), "attention", 6, 4)
    sections = {"data": {"dataset": "mnist" if len(mean) == 1 else "manifest"}, "teacher": {}}
    card = ModelCard("teacher", sections, mean, (0.2,) * len(mean), "s", "ab" * 10, 0, 0.01)
    stored = StoredModel(network, network.init(np.random.default_rng(3)), card)
    folder.mkdir()
    write_model_folder(folder, stored, ModelRecord(), "page", {})
    return folder


def _grey(*size: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, size, dtype=np.uint8)


def _coloured(*size: int) -> np.ndarray:
    """RGB of which one pixel, the last one, is not grey."""
    pixels = _grey(*size)[..., None].repeat(3, axis=2)
    pixels[-1, -1, 2] ^= 255
    return pixels


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["png", "bmp", "tif"])
def test_one_pixel_in_colour_makes_an_image_one(tmp_path: Path, ending: str) -> None:
    pixels = _coloured(2100, 2000)  # several bands
    for name, colour in (("colour", pixels), ("grey", pixels[..., :1].repeat(3, axis=2)), ("L", pixels[..., 0])):
        path = tmp_path / f"{name}.{ending}"
        Image.fromarray(colour).save(path)
        assert has_colour(path) == (name == "colour")
    assert not has_colour(tmp_path / "nothing.png")


@pytest.mark.parametrize(("command", "out"), [("label", "out"), ("predict", "out.csv")])
@pytest.mark.parametrize("side", [SIDE, 40])
def test_colour_is_refused_by_a_grey_model_before_anything_is_scored(
    tmp_path: Path, command: str, out: str, side: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, "--run", str(_model(tmp_path / "m", (0.5,))), "--out", str(tmp_path / out), "--root",
             str(tmp_path / "runs"), str(tmp_path / "in")]  # fmt: skip
    (tmp_path / "in").mkdir()
    Image.fromarray(_grey(side, side)).save(tmp_path / "in" / "a.png")
    Image.fromarray(_grey(side, side)[..., None].repeat(3, axis=2)).save(tmp_path / "in" / "b.png")
    Image.fromarray(_coloured(side, side)).save(tmp_path / "in" / "c.png")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'in' / 'c.png'}: is in colour; this model was trained on grey images")
    assert said.count("\n") == 1 and not (tmp_path / out).exists()
    (tmp_path / "in" / "c.png").unlink()
    assert main(words) == 0
    assert (tmp_path / out).exists() and "no colour" not in capsys.readouterr().out


@pytest.mark.parametrize(("command", "out"), [("label", "out"), ("predict", "out.csv")])
def test_an_image_without_colour_is_noted_by_a_model_that_was_trained_on_colour(
    tmp_path: Path, command: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(_grey(40, 40)[..., None].repeat(3, axis=2)).save(tmp_path / "in" / "grey.png")
    Image.fromarray(_coloured(40, 40)).save(tmp_path / "in" / "colour.png")
    for mean, noted in (((0.7, 0.5, 0.6), True), ((0.5, 0.5, 0.5), False)):
        model = _model(tmp_path / f"m{noted}", mean)
        words = [command, "--run", str(model), "--out", str(tmp_path / f"{noted}{out}"), "--root",
                 str(tmp_path / "runs"), str(tmp_path / "in"), "--stride", "8"]  # fmt: skip
        assert main(words) == 0
        note = f"1 file has no colour, and this model was trained on images in colour: {tmp_path / 'in' / 'grey.png'}"
        assert (note in capsys.readouterr().out) == noted
    Image.fromarray(_grey(40, 40)).save(tmp_path / "in" / "L.png")  # greyscale as such is refused
    assert main([*words[:4], str(tmp_path / f"x{out}"), str(tmp_path / "in" / "L.png")]) == 2
    assert "L.png: greyscale (mode L); expected an 8-bit RGB" in capsys.readouterr().err
