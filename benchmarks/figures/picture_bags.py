"""Bags of digits and images of synthetic tissue, with what a teacher and its student say of their instances."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from records import read_csv, read_json

from d2l_study.data import MnistBags
from d2l_study.data.synthetic_tissue import write_colon
from d2l_study.inference.overlay import END
from d2l_study.slides.image_files import read_image

RECORD = "2026-11-27-picture-scores"
"""Written by `benchmarks/picture_scores.py`."""
SCALE = LinearSegmentedColormap.from_list("score", ["#F1EFEA", "#F9CFA6", "#EE8434", "#D14A0C"])
NUCLEUS = 13.5
"""Pixels: half the side of a nucleus's patch."""


@dataclass(frozen=True)
class Bag:
    """A test bag of k instances. label: 0 or 1; truth: (k,) 0 or 1; teacher, student: (k,) logits."""

    label: int
    truth: np.ndarray
    teacher: np.ndarray
    student: np.ndarray


@dataclass(frozen=True)
class DigitBag(Bag):
    """images: (k, 28, 28) uint8."""

    images: np.ndarray


@dataclass(frozen=True)
class TissueBag(Bag):
    """pixels: (H, W, 3) uint8, the image; xy: (k, 2) centres of its nuclei, columns and rows."""

    pixels: np.ndarray
    xy: np.ndarray


def digit_bags() -> list[DigitBag]:
    """The test bags that the record keeps, in their order."""
    pool = MnistBags().load_pool()
    rows = read_csv(RECORD, "digits.csv")
    found = []
    for bag in dict.fromkeys(row["bag"] for row in rows):
        mine = [row for row in rows if row["bag"] == bag]
        images = pool.instances[[int(row["image"]) for row in mine]].reshape(-1, 28, 28)
        found.append(DigitBag(int(mine[0]["bag_label"]), *_values(mine), images))
    return found


def tissue_bags() -> list[TissueBag]:
    """The test images, drawn again from the settings that the record names."""
    rows = read_csv(RECORD, "nuclei.csv")
    data = read_json(RECORD, "about.json")["tissue"]["data"]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        archive = write_colon(
            Path(folder), data["images"], side=data["side"], nuclei=data["nuclei"], witnesses=data["witnesses"],
            seed=data["drawing"],
        )  # fmt: skip
        for name in dict.fromkeys(row["image"] for row in rows):
            mine = [row for row in rows if row["image"] == name]
            pixels = read_image(archive / "Classification" / name / f"{name}.bmp")
            xy = np.array([[float(row["x"]), float(row["y"])] for row in mine])
            found.append(TissueBag(int(mine[0]["image_label"]), *_values(mine), pixels, xy))
    return found


def _values(rows: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """truth, teacher, student."""
    truth = np.array([int(row["truth"]) for row in rows])
    teacher, student = (np.array([float(row[key]) for row in rows]) for key in ("teacher_logit", "student_logit"))
    return truth, teacher, student


def levels(logits: np.ndarray) -> np.ndarray:
    """Places on `SCALE`, 0 to 1: from a score of 0.01 to one of 0.99, on its logit, as in the pictures of `label`."""
    return np.clip((logits + END) / (2 * END), 0, 1)


def draw_digits(axis: Axes, bag: DigitBag, logits: np.ndarray | None = None, most: int = 10) -> None:
    """The first digits of a bag in a row, dark on white, or on the colour of their scores."""
    count = min(len(bag.images), most)
    paper = np.ones((count, 3)) if logits is None else SCALE(levels(logits[:count]))[:, :3]
    row = np.ones((30, 30 * most, 3))
    for number in range(count):
        ink = bag.images[number][..., None] / 255
        tile = np.broadcast_to(paper[number], (28, 28, 3)) * (1 - ink) + np.array([0.08, 0.08, 0.1]) * ink
        row[1:29, 30 * number + 1 : 30 * number + 29] = tile
    axis.imshow(row, interpolation="nearest", aspect="equal")
    axis.set_axis_off()


def draw_tissue(axis: Axes, bag: TissueBag, logits: np.ndarray | None = None, truth: bool = False) -> None:
    """An image, as it is, or grey with its nuclei in the colours of their scores. truth: a ring about a true one."""
    from matplotlib.patches import Circle

    pixels = bag.pixels
    if logits is not None:
        grey = pixels @ np.array([0.299, 0.587, 0.114])
        pixels = np.repeat((120 + 0.45 * grey)[..., None], 3, axis=2).clip(0, 255).astype(np.uint8)
    axis.imshow(pixels, interpolation="bilinear")
    axis.set_axis_off()
    if logits is not None:
        for place in np.argsort(logits):
            axis.add_patch(Circle(bag.xy[place], NUCLEUS * 0.8, color=SCALE(levels(logits)[place]), lw=0))
    if truth:
        for place in np.flatnonzero(bag.truth == 1):
            axis.add_patch(Circle(bag.xy[place], NUCLEUS, fill=False, color="#111111", lw=0.9))
    axis.set(xlim=(-0.5, pixels.shape[1] - 0.5), ylim=(pixels.shape[0] - 0.5, -0.5))
