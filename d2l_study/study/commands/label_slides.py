"""`label` on whole-slide images: which inputs are slides, where their annotations are, and what is printed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from d2l_study.atomic_files import write_whole
from d2l_study.data.features.tables import TABLES
from d2l_study.environment import user_path
from d2l_study.errors import UserError, counted, listed
from d2l_study.inference import instance_file
from d2l_study.inference.image_labelling import holds_patches
from d2l_study.inference.inputs import Shape
from d2l_study.inference.output_folder import check_replaced, shown, writing
from d2l_study.inference.slide_inputs import SlideInput, slide_inputs, unused_resolution
from d2l_study.inference.slide_label import LabelledSlide, SlideOptions, label_slides
from d2l_study.inference.slide_outputs import ENDINGS
from d2l_study.learning.metrics import probability
from d2l_study.learning.prediction import Compute
from d2l_study.nearest_path import path_hint
from d2l_study.slides.annotation_classes import AnnotationClasses, other_classes
from d2l_study.slides.annotations import ENDINGS as ANNOTATIONS
from d2l_study.slides.annotations import Annotation, check_annotation, class_taken, read_annotation
from d2l_study.slides.opening import is_slide, slide_files
from d2l_study.slides.qupath_crop import qupath_crop_note
from d2l_study.slides.slide import slide_name
from d2l_study.study.commands.label_progress import LabelProgress
from d2l_study.study.commands.label_truth import PART_TEXT, part_note
from d2l_study.study.trial.stored_models import SelectedModel

TABLE = "slides.csv"
COLUMNS = (
    "slide", "path", "part", "width", "height", "mpp_x", "mpp_y", "tiles", "predicted_positive", "logit", "score",
    "known_tiles", "instance_auc", "points", "points_auc", "tiles_per_second", "bound_by", "problem",
)  # fmt: skip


@dataclass(frozen=True)
class Annotations:
    """Where annotations of slides are: a file, for one slide, or a folder of files named as slides are.

    positive: the names of the classes that are positive, empty: the only one there is, of all slides together.
    """

    place: Path
    positive: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, positive: Sequence[str], slides: Sequence[SlideInput]) -> Annotations:
        """`UserError` for a place that is not there, one file for several slides, a file that is no annotation,
        or, where no class is named, for slides that are annotated with different ones."""
        place = user_path(name, "--truth")
        if not place.exists():
            raise UserError(f"--truth: {place}: no such file or folder{path_hint(place)}")
        found = cls(place, tuple(positive))
        if place.is_file() and len(slides) > 1:
            raise UserError(f"--truth: {place}: one file, but {len(slides)} slides; name a folder of annotations")
        if place.is_dir() and not any(found.file_of(slide.path) for slide in slides):
            raise UserError(
                f"--truth: {place}: no annotation of any of these slides; expected a file like "
                f"{slides[0].name}{ANNOTATIONS[0]} (endings: {listed(ANNOTATIONS, 8)})"
            )
        files = list(filter(None, map(found.file_of, (slide.path for slide in slides))))
        for path in files:
            check_annotation(path)
        if len(files) > 1 and not positive:
            found._check_same_class(files)
        return found

    def _check_same_class(self, files: Sequence[Path]) -> None:
        taken = {}
        for path in files:
            with suppress(UserError):  # which is said of its slide, that alone is passed over
                taken[path] = class_taken(path, self.classes)
        if words := other_classes(taken):
            raise UserError(f"--truth: {self.place}: {words} (--positive)")

    @property
    def classes(self) -> AnnotationClasses:
        return AnnotationClasses(self.positive)

    def file_of(self, slide: Path) -> Path | None:
        """The annotation of a slide."""
        if self.place.is_file():
            return self.place
        for stem in dict.fromkeys((slide_name(slide), slide.name)):
            for ending in ANNOTATIONS:
                if (found := self.place / f"{stem}{ending}").is_file():
                    return found
        return None

    def __call__(self, slide: Path, size: tuple[int, int]) -> Annotation | None:
        found = self.file_of(slide)
        return None if found is None else read_annotation(found, size, self.classes)


def split_slides(
    names: Sequence[str], shape: Shape, tiled: bool, slide_mpp: float | None
) -> tuple[list[SlideInput], list[str]]:
    """Which inputs are slides, and the rest. shape: (C, H, W) of a patch; tiled: images count as slides, too, since a
    resolution was asked for, but not those of exactly a patch; slide_mpp: µm per pixel of slides that do not say it.

    A folder is opened out if it holds a slide, or, with `tiled`, such images; a table lists slides.
    """

    def counts(file: Path) -> bool:
        return is_slide(file) or (tiled and not holds_patches(file, shape))

    slides: list[str] = []
    others: list[str] = []
    for name in names:
        path = user_path(name, "input")
        if path.is_dir() and not is_slide(path):
            of_slides = any(map(counts, slide_files(path)))
        else:
            of_slides = path.exists() and (path.suffix.lower() in TABLES or counts(path))
        (slides if of_slides else others).append(name)
    return slide_inputs(slides, slide_mpp), others


def run_label_slides(
    selected: SelectedModel, slides: Sequence[SlideInput], out: Path, options: SlideOptions, truth: Annotations | None,
    progress: LabelProgress, part_of: Callable[[Path], str] = lambda _: "",
    compute: Compute | None = None, instances: instance_file.InstanceFile | None = None,
) -> int:  # fmt: skip
    """Label slides, write their table, and print what was made. Returns how many could not be labelled.

    part_of: slide -> a key of `PART_TEXT`; "" where the model's data have no such slide; instances: as of
    `label_slides`.
    """
    check_replaced(out / TABLE, _is_ours)
    scale = "pixels of level 0 as they are (--mpp gives them a size)" if options.mpp is None else (
        f"{options.mpp:g} µm a pixel")  # fmt: skip
    side = selected.stored.model.patch_shape[1]
    print(f"tiles:    {side}×{side} pixels, {scale}{_cut_text(options, side)}", flush=True)
    done: list[LabelledSlide] = []
    parts: list[str] = []
    for one in label_slides(selected.stored, slides, out, options, truth, compute, progress, instances):
        progress.files, progress.done = progress.files + 1, 0
        done.append(one)
        parts.append("" if one.problem else part_of(one.path))
        progress.say(_line(one, parts[-1]))
        with writing(out):  # after each, so that an interrupted command has a table of what is there
            write_whole(out / TABLE, _table(done, parts).encode())
    failed = [one for one in done if one.problem]
    files = [TABLE, "NAME.json", *(f"NAME{ENDINGS[name]}" for name in options.formats)]
    files += [f"{instance_file.NAME} (annotated points)"] * any(one.points for one in done)
    for line in _part_lines(done, parts):
        print(line)
    print(f"slides:   {counted(len(done) - len(failed), 'slide')} in {out}: {', '.join(files)}")
    opened = [(entry, one.mpp) for entry, one in zip(slides, done, strict=True) if not one.problem]
    if note := unused_resolution(opened):
        print(f"note:     {note}")
    with_qupath = truth is not None or not {"geojson", "regions"}.isdisjoint(options.formats)
    if with_qupath and (note := qupath_crop_note({shown(one.path.name): one.scanned_from for one in done})):
        print(f"note:     {note}")
    if (pooling := selected.stored.model.pooling) == "embedding_max":  # of which too much would be kept for each tile
        print(f"note:     slides have no score here, which pooling {pooling} takes from the features of tiles; predict "
              "gives it")  # fmt: skip
    if failed:
        print(f"          {counted(len(failed), 'slide')} could not be labelled; {TABLE} says why")
    return len(failed)


def _cut_text(options: SlideOptions, side: int) -> str:
    """How tiles follow each other and which are left out, in words; "" for all tiles, side by side."""
    text = f", every {side - options.overlap} pixels" if options.overlap else ""
    text += f", of which {options.least_tissue:.0%} are tissue" if options.tissue else ""
    return text + ("" if options.white_above is None else f", none brighter than {options.white_above:g}")


def _part_lines(done: Sequence[LabelledSlide], parts: Sequence[str]) -> list[str]:
    """How many slides are of each part of the model's data, and the mean AUC of their tiles; none if all are others."""
    lines = []
    for part in (*PART_TEXT, "") if any(parts) else ():
        of_part = [one for one, its in zip(done, parts, strict=True) if its == part and not one.problem]
        areas = [one.area for one in of_part if not math.isnan(one.area)]
        are = "is" if len(of_part) == 1 else "are"
        whose = PART_TEXT.get(part, f"that {are} not of this model's data")
        mean = f": AUC within slides {sum(areas) / len(areas):.3f} (mean of {len(areas)})" if areas else ""
        if of_part:
            lines.append(f"{part or 'others'}: ".ljust(10) + f"{counted(len(of_part), 'slide')} {whose}{mean}")
    return lines


def _line(one: LabelledSlide, part: str) -> str:
    if one.problem:
        return f"{one.name}: not labelled: {one.problem}"
    text = f"{one.name}: {one.size[0]:,}×{one.size[1]:,} pixels"
    text += "" if one.mpp is None else f" of {one.mpp[0]:.4g} µm"
    if one.tiles or one.white:
        text += f", {counted(one.tiles, 'tile')}"
        text += f" (and {one.white:,} of white ground, which training left out)" if one.white else ""
    else:
        text += ", no tiles: too little tissue, or smaller than a tile"
    text += "" if one.share is None else f", {one.share:.1%} predicted positive"
    for count, what, area in ((one.known, "known tiles", one.area), (one.points, "annotated points", one.points_area)):
        if count:
            text += f"; {count:,} {what}" + ("" if math.isnan(area) else f", AUC {area:.3f}")
    text += f"; {part_note(part, 'slide')}" if part else ""
    if one.again:
        return text + "; its scores were there"
    if one.spent.tiles:
        text += f" ({one.spent.per_second:,.0f} tiles/s, bound by {one.spent.bound_by})"
    return text


def _table(done: Sequence[LabelledSlide], parts: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one, part in zip(done, parts, strict=True):
        x, y = one.mpp or ("", "")
        score = "" if math.isnan(one.logit) else f"{float(probability(one.logit)):.6g}"  # type: ignore[arg-type]
        writer.writerow([
            shown(one.name), shown(one.path), part, one.size[0], one.size[1], x, y, one.tiles, _number(one.share),
            _number(one.logit), score, one.known, _number(one.area), one.points, _number(one.points_area),
            _number(one.spent.per_second or None, 3), one.spent.bound_by if one.spent.tiles else "", shown(one.problem),
        ])  # fmt: skip
    return out.getvalue()


def _number(value: float | None, digits: int = 6) -> str:
    return "" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def _is_ours(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return file.readline().strip() == ",".join(COLUMNS)
