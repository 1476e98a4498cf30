"""Labelling whole images with a stored model: for each a map of logits, its geometry, and a picture of it.

OUT/NAME.logits.npy     (rows, columns) float32
OUT/NAME.json           which image, which model, and where the patch of an element lies (`sliding_window.Grid`)
OUT/NAME.overlay.png    the tissue, and the map over it
OUT/instances.csv       the scores of true instances, such as nuclei, where they are known

An image that is done is not done again, and one that was interrupted goes on from there (`score_checkpoint`), as long
as image, model and grid are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import PART, write_whole
from d2l_study.data import instance_classes
from d2l_study.data.neighbours import nearest_means
from d2l_study.errors import UserError
from d2l_study.inference import instance_file
from d2l_study.inference.image_colour import check_grey
from d2l_study.inference.inputs import HEAD, Shape, array_format, input_files
from d2l_study.inference.label import ProgressCallback, origin, scoring_settings
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.output_folder import (
    check_replaced,
    check_room,
    make_folder,
    output_folder,
    read_json,
    shown,
    stems,
    writing,
)
from d2l_study.inference.overlay import Panel, Places, overlay_picture
from d2l_study.inference.score_checkpoint import LONGEST_ENDING, SCORES_KEPT, ScoreCheckpoint, crc_of, drop
from d2l_study.inference.sliding_window import Grid, default_stride, place_logits, score_map
from d2l_study.inference.smoothing import smooth_checkpoint, smoothed_text
from d2l_study.inference.tissue_image import TissueImage, image_size, open_tissue
from d2l_study.inference.white_ground import white_on_grid
from d2l_study.learning.metrics import auc
from d2l_study.learning.prediction import Compute
from d2l_study.slides.image_files import decode_errors

MAP = ".logits.npy"
MOST_PATCHES = 100_000_000
"""Of one image: a map of 0.4 GB, and hours on one core."""
SHOWN = 1600
"""Pixels of a picture's longer side for large images; small ones are doubled."""
Reduced = tuple[np.ndarray, int]
"""An image at the size of a picture, and by which factor it was reduced (`TissueImage.reduced`)."""
LEAST_SHOWN = 400
"""The same of the smallest: title and legend need the room."""
MEANING = (
    "element [i, j] is the logit of the patch centred at column x0 + j*stride, row y0 + i*stride (0-based pixels, a "
    "pixel's centre at whole numbers; beyond the border the image is reflected); probability = 1 / (1 + exp(-logit)); "
    "predicted positive is what lies above the model's instance_threshold, a logit: predicted_positive is the share of "
    "such patches, but for white_ground, the share of patches above the model's data.white_above, which it never saw"
)


@dataclass(frozen=True)
class ImageAnnotations:
    """What is known of an image: places (`overlay.Places`); note: for the picture's title, such as which part of its
    model's data the image was."""

    places: Places
    note: str = ""


@dataclass(frozen=True)
class LabelledImage:
    """What was made of an image: the file of its map; share: of its patches predicted positive, but for white ground,
    None if the model has no threshold; white: the share of white ground, None for a model that was trained on all;
    instances: the count of true instances of known label; area: their AUC, NaN where it is not defined;
    note: which part of its model's data the image was, where that is known; again: its map was there already."""

    source: str
    path: Path
    grid: Grid
    share: float | None
    instances: int
    area: float
    note: str = ""
    again: bool = False
    white: float | None = None


@dataclass(frozen=True)
class PlannedImage:
    """An image that can be labelled, and where its files go: `stem` and an ending."""

    path: Path
    grid: Grid
    stem: Path

    def file(self, ending: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}{ending}")


def split_inputs(names: Sequence[str | Path], shape: Shape) -> tuple[list[Path], list[str | Path]]:
    """What is to be labelled as whole images (those larger than the patch `shape`, (C, H, W)), and the rest, which is
    left to `inputs.open_inputs`: arrays, images that are patches, and whatever cannot be used. Folders are opened out
    where they hold such images."""
    images: list[Path] = []
    others: list[str | Path] = []
    for name in names:
        try:
            files = input_files(str(name))
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


def holds_patches(path: Path, shape: Shape) -> bool:
    """Whether a file is an image of exactly the patch `shape`, (C, H, W), or an array of patches, by its first bytes.
    What cannot be read is neither."""
    channels, height, width = shape
    if (size := image_size(path, channels)) is not None:
        return size == (width, height)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError:
        return False
    return bool(array_format(head))


def _is_larger(path: Path, shape: Shape) -> bool:
    channels, height, width = shape
    size = image_size(path, channels)
    return size is not None and size != (width, height) and size[0] >= width and size[1] >= height


def plan_images(
    stored: StoredModel, paths: Sequence[Path], out: str | Path, stride: int | None = None, others: Sequence[str] = ()
) -> list[PlannedImage]:
    """What `label_images` will do. Everything that headers can tell is checked, and for a model of grey images that
    they have no colour; nothing is written. others: names, without ending, of the files of slides in the folder.

    `UserError` for an image that is smaller than a patch, unreadable, of other channels, given twice, a stride that
    does not fit or makes more than `MOST_PATCHES`, a folder that cannot be written or has no room for the maps, or in
    which something else has the name of a file.
    """
    patch = stored.model.patch_shape[1:]
    folder = output_folder(out)
    grids = [_checked(path, stored, default_stride(patch) if stride is None else stride) for path in paths]
    seen: set[Path] = set()
    for path in paths:
        if (real := path.resolve()) in seen:
            raise UserError(f"{path}: given twice")
        seen.add(real)
    names = stems([path.stem for path in paths], folder, f"{MAP}{LONGEST_ENDING}", others)
    planned = [PlannedImage(path, grid, folder / name) for path, name, grid in zip(paths, names, grids, strict=True)]
    for one in planned:
        ours = {"image", "meaning", "model"} <= read_json(one.file(".json")).keys()
        begun = ours or one.file(f"{MAP}{PART}").exists()  # a picture is written before the JSON is
        check_replaced(one.file(".json"), lambda _, ours=ours: ours)  # type: ignore[misc]
        for ending in (MAP, ".overlay.png"):
            check_replaced(one.file(ending), lambda _, begun=begun: begun)  # type: ignore[misc]
    check_replaced(folder / instance_file.NAME, instance_file.is_ours)
    new = (p for p in planned if not any(p.file(ending).exists() for ending in (MAP, f"{MAP}{PART}")))
    check_room(folder, sum(4 * p.grid.rows * p.grid.columns for p in new))
    return planned


def label_images(
    stored: StoredModel,
    paths: Sequence[Path],
    out: str | Path,
    stride: int | None = None,
    truth: Callable[[Path], ImageAnnotations | None] | None = None,
    compute: Compute | None = None,
    progress: ProgressCallback | None = None,
    smooth: int = 0,
    instances: instance_file.InstanceFile | None = None,
    others: Sequence[str] = (),
) -> Iterator[LabelledImage]:
    """Slide the model over each image and write the files named above; yields what was made, image by image.

    stride: pixels between patches, None takes a quarter of the patch; truth: what is known of an image, if anything;
    smooth: neighbours over which, with its own, a logit is averaged, of those of the map and of the true instances;
    instances: the file for those, None takes one of its own; others: as of `plan_images`.
    `UserError` as of `plan_images` before the first image is labelled, and later for one that turns out to be damaged.
    """
    planned = plan_images(stored, paths, out, stride, others)
    folder = output_folder(out)
    make_folder(folder)
    way = scoring_settings(stored, compute)
    with instance_file.one_file(instances, folder, stored.card.instance_threshold) as scored:
        for one in planned:
            known = truth(one.path) if truth is not None else None
            yield _label_image(stored, one, way, known, scored, compute, progress, smooth)


def _checked(path: Path, stored: StoredModel, stride: int) -> Grid:
    image = open_tissue(path, stored.model.patch_shape[0])
    try:
        grid = Grid.over(image.width, image.height, stored.model.patch_shape[1:], stride)
    except UserError as error:
        text = str(error)
        raise UserError(text if text.startswith("--") and stride < 1 else f"{path}: {text}") from None
    if grid.rows * grid.columns > MOST_PATCHES:
        enough = math.ceil(math.sqrt(image.width * image.height / MOST_PATCHES))
        raise UserError(
            f"{path}: {grid.rows * grid.columns:,} patches at --stride {stride}, in {image.width}×{image.height} "
            f"pixels; at most {MOST_PATCHES:,} are scored in an image: give --stride {enough} or more, or cut it into "
            "regions"
        )
    check_grey(path, stored.model.patch_shape[0])
    return grid


def _label_image(
    stored: StoredModel, planned: PlannedImage, way: dict[str, Any], known: ImageAnnotations | None,
    instances: instance_file.InstanceFile, compute: Compute | None, progress: ProgressCallback | None, smooth: int = 0,
) -> LabelledImage:  # fmt: skip
    image, grid = open_tissue(planned.path, stored.model.patch_shape[0]), planned.grid
    with decode_errors(planned.path), planned.path.open("rb") as file:
        identity = {**way, "pixels": hashlib.file_digest(file, "sha256").hexdigest(), "grid": grid.to_dict(),
                    **({"smooth": smooth} if smooth else {})}  # fmt: skip
    about = read_json(planned.file(".json"))
    there = _made_before(planned, about, identity)
    if there is not None:
        drop(planned.file(MAP))
        logits, crc, kept = there, about["logits"]["crc32"], None
        if progress is not None:
            progress(planned.stem.name, logits.size, logits.size)
    else:
        with writing(planned.stem.parent):
            kept = ScoreCheckpoint.open(planned.file(MAP), identity, (grid.rows, grid.columns))
        _score(stored, image, planned, kept, compute, progress, smooth)
        logits, crc = kept.logits, kept.crc()
    whole = False
    try:
        area, count, note = _known_instances(stored, image, known, instances, compute, smooth)
        reduced = cache(lambda: image.reduced(SHOWN))  # the whole image is read for it
        white = _white_ground(stored, reduced, grid)
        share = _share_above(logits, stored.card.instance_threshold, white)
        drawn = _digest(stored, known)
        if there is None or about.get("drawn") != drawn or not planned.file(".overlay.png").is_file():
            picture = _picture(stored, image, reduced(), grid, logits, known, note)
            with writing(planned.stem.parent):
                write_whole(planned.file(".overlay.png"), picture)
        meaning = f"{MEANING}; {smoothed_text(smooth)}" if smooth else MEANING
        found = {
            "image": shown(image.source), "part": known.note if known else "", "width": image.width,
            "height": image.height, **grid.to_dict(), "meaning": meaning, "model": origin(stored),
            "predicted_positive": share, "white_ground": None if white is None else float(white.mean()),
            "logits": {"crc32": crc, "made_of": identity}, "drawn": drawn,
        }  # fmt: skip
        if found != about:
            with writing(planned.stem.parent):
                write_whole(planned.file(".json"), (json.dumps(found, indent=1) + "\n").encode())
        if kept is not None:
            kept.finish()
        whole = True
    except UserError as error:
        raise UserError(f"{error}{SCORES_KEPT}") from None
    finally:
        if kept is not None and not whole:
            kept.close(keep=True)
    return LabelledImage(
        image.source, planned.file(MAP), grid, share, count, area, known.note if known else "", there is not None,
        found["white_ground"],
    )  # fmt: skip


def _score(
    stored: StoredModel, image: TissueImage, planned: PlannedImage, kept: ScoreCheckpoint, compute: Compute | None,
    progress: ProgressCallback | None, smooth: int = 0,
) -> None:  # fmt: skip
    """Score the patches that are not scored yet. What is, stays if this is interrupted."""
    say = progress or (lambda what, done, of: None)

    def done(count: int) -> None:
        kept.reached(count)
        say(planned.stem.name, count, kept.logits.size)

    say(planned.stem.name, kept.done, kept.logits.size)
    try:
        score_map(stored, image, planned.grid, compute, kept.logits, done, kept.done)
        if smooth:
            smooth_checkpoint(kept, smooth)
    except BaseException as error:
        kept.close(keep=isinstance(error, KeyboardInterrupt | SystemExit))
        raise


def _made_before(planned: PlannedImage, about: dict[str, Any], identity: dict[str, Any]) -> np.ndarray | None:
    """The map of an earlier command, if it is of the same image, model and grid, and sound."""
    made = about.get("logits")
    if not isinstance(made, dict) or made.get("made_of") != identity:
        return None
    try:
        logits = np.load(planned.file(MAP), mmap_mode="r", allow_pickle=False)
        shape, right = (planned.grid.rows, planned.grid.columns), logits.dtype == np.float32
        return logits if right and logits.shape == shape and crc_of(logits, 0, logits.size) == made["crc32"] else None
    except Exception:  # of a damaged file; numpy raises many kinds
        return None


def _known_instances(
    stored: StoredModel, image: TissueImage, known: ImageAnnotations | None, instances: instance_file.InstanceFile,
    compute: Compute | None, smooth: int = 0,
) -> tuple[float, int, str]:  # fmt: skip
    """AUC, count and a note of the true instances, whose scores are written."""
    if known is None or not len(known.places.xy):
        return math.nan, 0, ""
    logit, label = place_logits(stored, image, known.places.xy, compute), known.places.label
    if smooth:
        logit = nearest_means(logit, known.places.xy, smooth)
    instances.add(image.source, known.places.xy, label, logit)
    count, area = int((label >= 0).sum()), auc(label[label >= 0], logit[label >= 0])
    note = f"AUC of the {count} marked: {area:.3f}" if not math.isnan(area) else f"{count} marked, of one class"
    return area, count, note


def _digest(stored: StoredModel, known: ImageAnnotations | None) -> str:
    """Of what is drawn with a map."""
    data = stored.card.sections.get("data", {})
    found = hashlib.sha256(repr((*instance_classes(data), data.get("white_above"))).encode())
    if known is None:
        return found.hexdigest()
    found.update(known.note.encode())
    found.update(np.ascontiguousarray(known.places.xy, np.float64).tobytes())
    found.update(np.ascontiguousarray(known.places.label, np.int64).tobytes())
    return found.hexdigest()


def _picture(
    stored: StoredModel, image: TissueImage, reduced: Reduced, grid: Grid, logits: np.ndarray,
    known: ImageAnnotations | None, note: str,
) -> bytes:  # fmt: skip
    card = stored.card
    panel = Panel(_thinned(logits), _thinned_grid(grid), note, card.instance_threshold)
    title = f"{shown(Path(image.source).name)}, {card.stage} {card.config_id[:10]} r{card.replicate:03d}"
    tissue, shrink = reduced
    marked = ImageAnnotations(Places(np.empty((0, 2)), np.empty(0))) if known is None else known
    data = card.sections.get("data", {})
    positive, negative = instance_classes(data)
    return overlay_picture(
        tissue, (image.width, image.height), {card.stage: panel}, shrink=shrink, places=marked.places,
        positive=positive, negative=negative, title=f"{title}: {marked.note}" if marked.note else title,
        side=min(SHOWN, max(LEAST_SHOWN, 2 * max(image.width, image.height))), white_above=data.get("white_above"),
    )  # fmt: skip


def _white_ground(stored: StoredModel, reduced: Callable[[], Reduced], grid: Grid) -> np.ndarray | None:
    """(rows, columns) bool, which patches are white ground; None for a model that was trained on all, for which the
    image is not read."""
    white_above = stored.card.sections.get("data", {}).get("white_above")
    return None if white_above is None else white_on_grid(*reduced(), grid, white_above)


def _share_above(logits: np.ndarray, threshold: float | None, white: np.ndarray | None) -> float | None:
    """The share of a map that is predicted positive, but for white ground; None without a threshold, or where all is
    white. The map is read in bands, since it may be mapped from a file."""
    if threshold is None:
        return None
    positive = count = 0
    for rows in np.array_split(np.arange(len(logits)), max(1, logits.size // 2**22)):
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        there = np.True_ if white is None else ~white[band]
        positive += int(((logits[band] > threshold) & there).sum())
        count += logits[band].size if white is None else int(there.sum())
    return positive / count if count else None


def _step(rows: int, columns: int) -> int:
    return max(1, max(rows, columns) // SHOWN)


def _thinned(logits: np.ndarray) -> np.ndarray:
    """Every n-th row and column: a picture shows no more, and a large map stays in its file."""
    step = _step(*logits.shape)
    return np.array(logits[::step, ::step])


def _thinned_grid(grid: Grid) -> Grid:
    step = _step(grid.rows, grid.columns)
    return Grid(grid.patch, grid.stride * step, grid.x0, grid.y0, -(-grid.rows // step), -(-grid.columns // step))
