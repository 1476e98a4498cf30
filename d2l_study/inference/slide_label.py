"""Labelling whole-slide images with a model of patches: a score for each tile of tissue, and files for QuPath.

    for done in label_slides(stored, slide_inputs(["cohort/"]), "out", SlideOptions(mpp=0.5)): ...

For each slide OUT/NAME.json and the files of `slide_outputs`; OUT/slides.csv has a row for each. Tiles are those that
`d2l_study.slides.tiles` cuts, as `d2l tile` and the data set `manifest` do: squares of the model's size at its
resolution, with enough tissue, and without those that are too bright, where training left them out, too. Tiles are read
and scored in batches, so that a slide of any size needs little memory. A slide that is done is not done again, one that
was interrupted goes on, and one that cannot be read is named and passed over.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.atomic_files import write_whole
from d2l_study.data import instance_classes
from d2l_study.data.neighbours import nearest_means
from d2l_study.errors import UserError
from d2l_study.inference import instance_file
from d2l_study.inference.label import ProgressCallback, origin, scoring_settings
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.output_folder import (
    check_replaced,
    make_folder,
    output_folder,
    read_json,
    shown,
    stems,
    writing,
)
from d2l_study.inference.score_checkpoint import LONGEST_ENDING, ScoreCheckpoint, kept_until_written
from d2l_study.inference.slide_inputs import SlideInput
from d2l_study.inference.slide_outputs import ENDINGS, FORMATS, SlideScores, is_ours, write_outputs
from d2l_study.inference.smoothing import about_smoothing
from d2l_study.inference.tile_scores import ScoringTime, TileTerms, batch_size, score_tiles
from d2l_study.learning.metrics import auc
from d2l_study.learning.prediction import Compute
from d2l_study.parquet_files import read_parquet
from d2l_study.slides.annotations import Annotation, tile_truth
from d2l_study.slides.resolution import PatchReader
from d2l_study.slides.slide import Slide
from d2l_study.slides.tiles import LEAST_TISSUE, SlideTiles, TileSettings, cut_tiles

_SCORES = ".tiles"
"""Ending, before those of a checkpoint, of what is kept of a slide in work."""


@dataclass(frozen=True)
class SlideOptions:
    """How slides are cut and what is written.

    mpp: µm per pixel of the model's patches, None: pixels of level 0 as they are; overlap: pixels of a patch that the
    next one shares, below 0 there are gaps; tissue: only tiles of which at least the share `least_tissue` is tissue;
    formats: of `slide_outputs`, parquet among them, which a later command goes on from; coverage: share of a tile that
    must be annotated as positive; smooth: neighbours over which, with its own, a tile's logit is averaged; white_above:
    tiles of which the mean intensity, in [0, 1], is above this are left out; None: none.
    """

    mpp: float | None = None
    overlap: int = 0
    tissue: bool = True
    formats: tuple[str, ...] = ("parquet", "geojson", "regions", "map", "overlay")
    coverage: float = 0.5
    least_tissue: float = LEAST_TISSUE
    smooth: int = 0
    white_above: float | None = None


@dataclass(frozen=True)
class LabelledSlide:
    """What was made of a slide. problem: why it could not be labelled, else empty.

    tiles: how many have a score; white: how many more were left out as too bright; share: of them predicted positive,
    None without a threshold; logit: of the slide as one bag, NaN without tiles; known: tiles of known truth, area their
    AUC, NaN where it is not defined; points: marked instances scored, points_area their AUC; spent: where the time
    went; again: all was there already; scanned_from: as of a `Slide`.
    """

    path: Path
    name: str
    problem: str = ""
    size: tuple[int, int] = (0, 0)
    mpp: tuple[float, float] | None = None
    tiles: int = 0
    share: float | None = None
    logit: float = math.nan
    known: int = 0
    area: float = math.nan
    points: int = 0
    points_area: float = math.nan
    spent: ScoringTime = field(default_factory=ScoringTime)
    again: bool = False
    white: int = 0
    scanned_from: tuple[int, int] = (0, 0)


ReadTruth = Callable[[Path, tuple[int, int]], Annotation | None]
"""(a slide, its (width, height)) -> its annotation, None if it has none."""


@dataclass(frozen=True)
class PlannedSlide:
    """A slide, and where its files go: `stem` and an ending."""

    entry: SlideInput
    stem: Path

    @property
    def path(self) -> Path:
        return self.entry.path

    def file(self, ending: str) -> Path:
        return self.stem.with_name(f"{self.stem.name}{ending}")


def check_model(stored: StoredModel) -> int:
    """The side of the model's patches; `UserError` if they are not square RGB patches, which tiles of slides are."""
    channels, height, width = stored.model.patch_shape
    if channels != 3 or height != width:
        raise UserError(
            f"slides: this model labels patches of {channels} channel{'s' * (channels > 1)} and {width}×{height} "
            "pixels; tiles of slides are square and RGB"
        )
    return height


def plan_slides(
    stored: StoredModel, slides: Sequence[SlideInput], out: str | Path, options: SlideOptions
) -> list[PlannedSlide]:
    """Where the files of each slide go; `UserError` for a model, a folder or options that cannot be. Writes nothing."""
    size = check_model(stored)
    folder = output_folder(out)
    if options.overlap >= size:
        raise UserError(f"--overlap {options.overlap}: expected 0 to {size - 1}, less than the model's patch of {size}")
    names = stems([one.name for one in slides], folder, max((*ENDINGS.values(), f"{_SCORES}{LONGEST_ENDING}"), key=len))
    planned = [PlannedSlide(entry, folder / name) for entry, name in zip(slides, names, strict=True)]
    for one in planned:
        for ending in (".json", *(ENDINGS[name] for name in options.formats)):
            check_replaced(one.file(ending), is_ours)
    check_replaced(folder / instance_file.NAME, instance_file.is_ours)
    return planned


def label_slides(
    stored: StoredModel,
    slides: Sequence[SlideInput],
    out: str | Path,
    options: SlideOptions,
    truth: ReadTruth | None = None,
    compute: Compute | None = None,
    progress: ProgressCallback | None = None,
    instances: instance_file.InstanceFile | None = None,
) -> Iterator[LabelledSlide]:
    """Label each slide and write its files; yields what was made, slide by slide.

    truth: gives a slide's annotation; instances: the file for annotated points, None takes one of its own.
    `UserError` as of `plan_slides` before the first slide is labelled.
    """
    planned = plan_slides(stored, slides, out, options)
    folder = output_folder(out)
    make_folder(folder)
    terms = TileTerms(stored, compute)
    settings = scoring_settings(stored, compute)
    with instance_file.one_file(instances, folder, stored.card.instance_threshold) as scored:
        for one in planned:
            try:
                yield _SlideWork(terms, one, options, settings, scored).run(truth, progress)
            except UserError as error:
                if str(error).startswith("--out"):  # of the disk, not of the slide
                    raise
                yield LabelledSlide(one.path, one.stem.name, problem=str(error))


@dataclass
class _SlideWork:
    """One slide, from opening to its files."""

    terms: TileTerms
    planned: PlannedSlide
    options: SlideOptions
    settings: dict[str, Any]
    instances: instance_file.InstanceFile

    def run(self, truth: ReadTruth | None, progress: ProgressCallback | None) -> LabelledSlide:
        options, planned = self.options, self.planned
        with planned.entry.open() as slide:
            size = check_model(self.terms.stored)
            tiles = cut_tiles(
                slide, TileSettings(options.mpp, size, options.overlap, options.tissue, options.least_tissue)
            )
            annotation = truth(planned.path, (slide.width, slide.height)) if truth is not None else None
            identity = self._identity(slide, tiles)
            about = read_json(planned.file(".json"))
            before = self._scored_before(about, identity, tiles)
            if before is not None:
                self._say(progress, len(tiles), len(tiles))
                (dark, logit), whole = before, about.get("slide_logit")
                found = self._write(
                    slide, dark, logit, math.nan if whole is None else whole, annotation, identity, about
                )
                return replace(found, again=True, white=len(tiles) - len(dark))
            with writing(planned.stem.parent):
                kept = ScoreCheckpoint.open(planned.file(_SCORES), identity, (len(tiles), self.terms.columns))
            with kept_until_written(kept) as work:
                spent = score_tiles(
                    self.terms, slide, tiles, kept, lambda done: self._say(progress, done, len(tiles)),
                    options.white_above,
                )  # fmt: skip
                work.scored = True
                values, dark = kept.logits, tiles
                if options.white_above is not None:
                    scored = ~np.isnan(kept.logits[:, 0])
                    values, dark = kept.logits[scored], replace(tiles, xy=tiles.xy[scored])
                logit, whole = self._smoothed(values[:, 0], dark.centres()), self.terms.pooled(values)
                found = self._write(slide, dark, logit, whole, annotation, identity, about, spent)
                return replace(found, white=len(tiles) - len(dark))

    def _say(self, progress: ProgressCallback | None, done: int, count: int) -> None:
        if progress is not None:
            progress(self.planned.stem.name, done, count)

    @property
    def _smoothing(self) -> dict[str, Any]:
        return {"smooth": self.options.smooth} if self.options.smooth else {}

    def _smoothed(self, logit: np.ndarray, xy: np.ndarray) -> np.ndarray:
        """(n,) logits at places (n, 2), averaged over neighbours where that is asked for. Of neighbours that are
        equally far the last digits of the places decide, so that they are the same as those of `predict`."""
        smooth = self.options.smooth
        return nearest_means(np.array(logit), xy.astype(float), smooth) if smooth else np.array(logit)

    def _identity(self, slide: Slide, tiles: SlideTiles) -> dict[str, Any]:
        """What the scores depend on, in plain values; a slide is known by its size and time of change, since reading
        gigabytes to know it takes longer than many a model."""
        state = self.planned.path.stat()
        digest = hashlib.sha256(np.ascontiguousarray(tiles.xy, np.int64).tobytes()).hexdigest()
        found = {
            **self.settings, "slide": [state.st_size, state.st_mtime_ns, slide.width, slide.height],
            "tiles": [digest, tiles.size, *tiles.side, tiles.mpp], **self._smoothing,
        }  # fmt: skip
        if self.options.white_above is not None:
            found["white_above"] = self.options.white_above
        return dict(json.loads(json.dumps(found)))

    def _scored_before(
        self, about: dict[str, Any], identity: dict[str, Any], tiles: SlideTiles
    ) -> tuple[SlideTiles, np.ndarray] | None:
        """The tiles that an earlier command scored and their logits, if they are of the same slide, tiles and model,
        and sound."""
        if about.get("made_of") != identity:
            return None
        try:
            table = read_parquet(self.planned.file(ENDINGS["parquet"]), ["logit", "x", "y"])
        except Exception:  # not there, or damaged; pyarrow raises many kinds
            return None
        logit, x, y = (table[name].to_numpy() for name in ("logit", "x", "y"))
        if self.options.white_above is not None:
            scored = np.isin(tiles.xy[:, 0] + 1j * tiles.xy[:, 1], x + 1j * y)
            tiles = replace(tiles, xy=tiles.xy[scored])
        sound = np.array_equal(tiles.xy, np.stack([x, y], axis=1)) and _digest(logit) == about.get("logits")
        return (tiles, logit) if sound else None

    def _write(
        self, slide: Slide, tiles: SlideTiles, logit: np.ndarray, whole: float, annotation: Annotation | None,
        identity: dict[str, Any], about: dict[str, Any], spent: ScoringTime | None = None,
    ) -> LabelledSlide:  # fmt: skip
        """Write the files of the slide that are not there as they should be. spent: None where the scores were taken
        from files that an earlier command wrote, so that others of these may be right, too."""
        again, spent = spent is None, spent or ScoringTime()
        stored, options, planned = self.terms.stored, self.options, self.planned
        threshold = stored.card.instance_threshold
        truth = None if annotation is None else tile_truth(annotation, tiles.xy, tiles.side, options.coverage)
        step = tuple(side * (tiles.size - tiles.overlap) / tiles.size for side in tiles.side)
        scores = SlideScores(
            shown(planned.stem.name), (slide.width, slide.height), slide.mpp, tiles.side, (step[0], step[1]),
            tiles.size, tiles.mpp, tiles.overlap, tiles.xy, logit, truth, slide.thumbnail,
        )  # fmt: skip
        model = origin(stored)
        share = None if threshold is None or not len(logit) else float((logit > threshold).mean())
        seconds = {"model": round(spent.model, 3), "waiting for tiles": round(spent.waiting, 3)}
        known = {} if truth is None else {"truth": _digest(truth), "coverage": options.coverage}
        made = {"made_of": identity, **known}
        same = again and all(about.get(key) == value for key, value in made.items())
        same = same and about.get("truth") == known.get("truth")
        same = same and about.get("mpp") == (None if slide.mpp is None else list(slide.mpp))  # it stands in the files
        files = {name: planned.file(ENDINGS[name]) for name in FORMATS}
        valid = {file for file in files.values() if same and file.name in about.get("files", ()) and file.is_file()}
        wanted = [name for name in options.formats if files[name] not in valid]
        with writing(planned.stem.parent):
            positive, _ = instance_classes(stored.card.sections.get("data", {}))
            valid |= set(write_outputs(planned.stem, wanted, scores, threshold, model, positive))
            found = {
                "slide": shown(planned.path), "width": slide.width, "height": slide.height, "mpp": slide.mpp,
                "tiles": {"count": len(tiles), "size": tiles.size, "mpp": tiles.mpp, "overlap": tiles.overlap,
                          "side": tiles.side, "tissue_only": options.tissue, "white_above": options.white_above},
                "model": model, **about_smoothing(options.smooth), "predicted_positive": share,
                "slide_logit": None if math.isnan(whole) else whole,
                "logits": _digest(logit), "seconds": seconds if spent.tiles else about.get("seconds", seconds),
                "files": [file.name for file in files.values() if file in valid], **made,
            }  # fmt: skip
            write_whole(planned.file(".json"), (json.dumps(found, indent=1) + "\n").encode())
        points, points_area = self._score_points(slide, tiles, annotation)
        some = np.zeros(0, bool) if truth is None else truth >= 0
        area = auc(truth[some], logit[some]) if truth is not None and some.any() else math.nan
        return LabelledSlide(
            planned.path, planned.stem.name, "", (slide.width, slide.height), slide.mpp, len(tiles), share, whole,
            int(some.sum()), area, points, points_area, spent, scanned_from=slide.scanned_from,
        )  # fmt: skip

    def _score_points(self, slide: Slide, tiles: SlideTiles, annotation: Annotation | None) -> tuple[int, float]:
        """Score the patches about annotated points, such as nuclei; returns how many are of known label and their AUC.

        A point (x, y) lies in the pixel whose column and row are its whole parts; the patch has it in the middle.
        """
        points = getattr(annotation, "points", None)
        if points is None or not len(points):
            return 0, math.nan
        label = annotation.point_label  # type: ignore[union-attr]
        reader, size = PatchReader(slide, tiles.mpp, tiles.size), np.array(tiles.side)
        corners = points - size / 2
        whole = np.isclose(size, tiles.size)  # level-0 pixels as they are: no patch begins within a pixel
        corners = np.where(whole, np.floor(corners + 0.5), corners)
        batch = batch_size(tiles.size)
        parts = [self.terms(reader.read(corners[i : i + batch]))[:, 0] for i in range(0, len(corners), batch)]
        logit = self._smoothed(np.concatenate(parts), points)
        self.instances.add(str(self.planned.path), points - 0.5, label, logit)
        some = label >= 0
        return int(some.sum()), auc(label[some], logit[some]) if some.any() else math.nan


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
