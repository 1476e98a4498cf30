"""Labelling whole images with a stored model: for each a map of logits, its geometry, and a picture of it.

OUT/NAME.logits.npy     (rows, columns) float32
OUT/NAME.json           which image, which model, and where the patch of an element lies (`dense.Grid`)
OUT/NAME.overlay.png    the tissue, and the map over it
OUT/instances.csv       the scores of true instances, such as nuclei, where they are known
"""

from __future__ import annotations

import contextlib
import csv
import json
import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.errors import UserError
from d2l_study.inference.dense import Grid, default_stride, place_logits, score_map
from d2l_study.inference.inputs import Shape, _files
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.overlay import Panel, Places, overlay_picture
from d2l_study.inference.tissue_image import TissueImage, image_size, open_tissue
from d2l_study.learning.metrics import auc, probability
from d2l_study.learning.prediction import Compute

INSTANCES = "instances.csv"
SHOWN = 1600
"""Pixels of a picture's longer side for large images; small ones are doubled."""
LEAST_SHOWN = 400
"""The same of the smallest: title and legend need the room."""


@dataclass(frozen=True)
class Truth:
    """What is known of an image: places (`overlay.Places`); positive, negative: what they are called; note: for the
    picture's title, such as which part of its model's data the image was."""

    places: Places
    positive: str = "positive"
    negative: str = "negative"
    note: str = ""


@dataclass(frozen=True)
class Labelled:
    """What was made of an image: the file of its map; share: of its patches predicted positive, None if the model has
    no threshold; instances: the count of true instances of known label; area: their AUC, NaN where it is not defined;
    note: which part of its model's data the image was, where that is known."""

    source: str
    path: Path
    grid: Grid
    share: float | None
    instances: int
    area: float
    note: str = ""


def split_inputs(names: Sequence[str | Path], shape: Shape) -> tuple[list[Path], list[str | Path]]:
    """What is to be labelled as whole images (those larger than the patch `shape`, (C, H, W)), and the rest, which is
    left to `inputs.open_inputs`: arrays, images that are patches, and whatever cannot be used. Folders are opened out
    where they hold such images."""
    images: list[Path] = []
    others: list[str | Path] = []
    for name in names:
        try:
            files = _files(str(name))
        except UserError:
            files = []
        whole = [path for path, member in files if member is None and _is_larger(path, shape)]
        images += whole
        if len(whole) < len(files):
            left = [path for path, _ in files if path not in whole]
            others += [name] if not whole else left
        elif not files:
            others.append(name)
    return images, others


def _is_larger(path: Path, shape: Shape) -> bool:
    channels, height, width = shape
    size = image_size(path, channels)
    return size is not None and size != (width, height) and size[0] >= width and size[1] >= height


def label_images(
    stored: StoredModel,
    paths: Sequence[Path],
    out: str | Path,
    stride: int | None = None,
    truth: Callable[[Path], Truth | None] | None = None,
    compute: Compute | None = None,
) -> Iterator[Labelled]:
    """Slide the model over each image and write the files named above; yields what was made, image by image.

    stride: pixels between patches, None takes a quarter of the patch; truth: what is known of an image, if anything.
    Everything that headers can tell is checked before the first image is labelled: `UserError` for an image that is
    smaller than a patch, unreadable, of other channels, given twice, a stride that does not fit, or a folder that
    cannot be written.
    """
    patch = stored.model.shape[1:]
    folder = Path(out).expanduser()
    grids = [_checked(path, stored, default_stride(patch) if stride is None else stride) for path in paths]
    if len({path.resolve() for path in paths}) < len(paths):
        twice = next(path for i, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:i]})
        raise UserError(f"{twice}: given twice")
    rows: list[dict[str, Any]] = []
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path, name, grid in zip(paths, _names(paths), grids, strict=True):
        image = open_tissue(path, stored.model.shape[0])
        known = truth(path) if truth is not None else None
        with _writing(folder):
            yield _label_image(stored, image, grid, folder / name, known, rows, compute)
    if rows:
        with _writing(folder):
            _write_instances(folder / INSTANCES, rows, stored)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"--out {folder}: cannot write there: {error.strerror or error}") from None


def _checked(path: Path, stored: StoredModel, stride: int) -> Grid:
    image = open_tissue(path, stored.model.shape[0])
    try:
        return Grid.over(image.width, image.height, stored.model.shape[1:], stride)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("--") and stride < 1 else f"{path}: {text}") from None


def _names(paths: Sequence[Path]) -> list[str]:
    """A name for the files of each image: that of the image, numbered where several have the same."""
    names: list[str] = []
    for path in paths:
        name, number = path.stem, 2
        while name in names:
            name, number = f"{path.stem}-{number}", number + 1
        names.append(name)
    return names


def _label_image(
    stored: StoredModel, image: TissueImage, grid: Grid, stem: Path, known: Truth | None, rows: list[dict[str, Any]],
    compute: Compute | None,
) -> Labelled:  # fmt: skip
    target = stem.with_name(f"{stem.name}.logits.npy")
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        shape = (grid.rows, grid.columns)
        logits = np.lib.format.open_memmap(temporary, "w+", np.float32, shape)
        score_map(stored, image, grid, compute, out=logits)
        logits.flush()
        temporary.replace(target)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    card = stored.card
    about = {
        "image": image.source, "part": known.note if known else "", "width": image.width, "height": image.height,
        **grid.to_dict(),
        "meaning": "element [i, j] is the logit of the patch centred at column x0 + j*stride, row y0 + i*stride "
        "(0-based pixels, a pixel's centre at whole numbers; beyond the border the image is reflected); "
        "probability = 1 / (1 + exp(-logit))",
        "model": {"config_id": card.config_id, "replicate": card.replicate, "stage": card.stage, "study": card.study,
                  "instance_threshold": card.instance_threshold},
    }  # fmt: skip
    stem.with_name(f"{stem.name}.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    area, count, note = math.nan, 0, ""
    if known is not None and len(known.places.xy):
        logit, label = place_logits(stored, image, known.places.xy, compute), known.places.label
        rows += [
            {"source": image.source, "x": x, "y": y, "truth": None if v < 0 else int(v), "logit": at}
            for (x, y), v, at in zip(known.places.xy.tolist(), label, logit.tolist(), strict=True)
        ]
        count, area = int((label >= 0).sum()), auc(label[label >= 0], logit[label >= 0])
        note = f"AUC of the {count} marked: {area:.3f}" if not math.isnan(area) else f"{count} marked, of one class"
    panel = Panel(_thinned(logits), _thinned_grid(grid), note, card.instance_threshold)
    title = f"{Path(image.source).name}, {card.stage} {card.config_id[:10]} r{card.replicate:03d}"
    tissue, shrink = image.reduced(SHOWN)
    shown = Truth(Places(np.empty((0, 2)), np.empty(0))) if known is None else known
    picture = overlay_picture(
        tissue, (image.width, image.height), {card.stage: panel}, shrink=shrink, places=shown.places,
        positive=shown.positive, negative=shown.negative, title=f"{title}: {shown.note}" if shown.note else title,
        side=min(SHOWN, max(LEAST_SHOWN, 2 * max(image.width, image.height))),
    )  # fmt: skip
    stem.with_name(f"{stem.name}.overlay.png").write_bytes(picture)
    share = _share_above(logits, card.instance_threshold)
    return Labelled(image.source, target, grid, share, count, area, known.note if known else "")


def _share_above(logits: np.ndarray, threshold: float | None) -> float | None:
    """The share of a map that is predicted positive; read in bands, since it may be mapped from a file."""
    if threshold is None:
        return None
    bands = np.array_split(logits, max(1, logits.size // 2**22))
    return sum(int((band > threshold).sum()) for band in bands) / logits.size


def _step(rows: int, columns: int) -> int:
    return max(1, max(rows, columns) // SHOWN)


def _thinned(logits: np.ndarray) -> np.ndarray:
    """Every n-th row and column: a picture shows no more, and a large map stays in its file."""
    step = _step(*logits.shape)
    return np.array(logits[::step, ::step])


def _thinned_grid(grid: Grid) -> Grid:
    step = _step(grid.rows, grid.columns)
    return Grid(grid.patch, grid.stride * step, grid.x0, grid.y0, -(-grid.rows // step), -(-grid.columns // step))


def _write_instances(path: Path, rows: list[dict[str, Any]], stored: StoredModel) -> None:
    """source, x, y (pixels, 0-based), truth (empty: not known), logit, score, predicted (empty without a threshold);
    nine digits hold a float32 exactly."""
    threshold = stored.card.instance_threshold
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["source", "x", "y", "truth", "logit", "score", "predicted"])
        for row in rows:
            score = float(probability(np.array(row["logit"])))
            predicted = "" if threshold is None else int(row["logit"] > threshold)
            truth = "" if row["truth"] is None else row["truth"]
            place = f"{row['x']:.10g}", f"{row['y']:.10g}"
            writer.writerow([row["source"], *place, truth, f"{row['logit']:.9g}", f"{score:.9g}", predicted])
    temporary.replace(path)
