"""Slides that a command is given: files, folders of them, and tables that list them.

    inputs = slide_inputs(["cohort/", "S-001.svs", "slides.csv"], slide_mpp=0.25)
    with inputs[0].open() as slide:
        ...

A table has a column `path` (or slide, file, wsi …), and perhaps `mpp`, the slide's own µm per pixel.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.features.tables import TABLES
from d2l_study.data.manifest_columns import MPP_NAMES, OTHER_NAMES, ColumnNames
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import find_file, resolutions
from d2l_study.data.manifest_table import read_table
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.output_folder import shown
from d2l_study.nearest_path import path_hint
from d2l_study.slides.opening import is_slide, open_slide, slide_files
from d2l_study.slides.slide import Slide, slide_name

KINDS = "slides, folders of slides, or a table with a column path"

_COLUMNS = ColumnNames(
    ("path",), ("mpp",), ("path", "mpp"),
    {"path": (*OTHER_NAMES["path"], "slide", "slidepath", "slidefile", "filename", "wsi"),
     "mpp": MPP_NAMES, "group": ()},
)  # fmt: skip


@dataclass(frozen=True)
class SlideInput:
    """A slide before it is opened.

    path: its file or folder; mpp: its µm per pixel, where a table says it, whatever the file says; fallback_mpp: the
    same of a slide whose file does not say it.
    """

    path: Path
    mpp: float | None = None
    fallback_mpp: float | None = None

    @property
    def name(self) -> str:
        """As of a `Slide`."""
        return slide_name(self.path)

    def open(self) -> Slide:
        """`UserError` as of `open_slide`."""
        slide = open_slide(self.path, self.mpp)
        if slide.mpp is None and self.fallback_mpp is not None:
            slide.mpp, slide.doubt = (self.fallback_mpp, self.fallback_mpp), ""
        return slide


def slide_inputs(names: Sequence[str], slide_mpp: float | None = None) -> list[SlideInput]:
    """The slides that are named, each once, in their order; nothing is opened but tables.

    slide_mpp: µm per pixel of those that do not say it. A slide that is named twice has the µm per pixel of the table
    that says it. `UserError` for a name of nothing, a folder without slides, a table with mistakes, two slides of one
    name, and a slide of which two tables say something else.
    """
    found: dict[Path, SlideInput] = {}
    for name in names:
        for entry in _of_name(name, slide_mpp):
            before = found.setdefault(entry.path.resolve(), entry)
            if before.mpp is None:
                found[entry.path.resolve()] = dataclasses.replace(before, mpp=entry.mpp)
            elif entry.mpp not in (None, before.mpp):
                raise UserError(f"{entry.path}: is named twice, at {before.mpp:g} and at {entry.mpp:g} µm per pixel; "
                                "name it once")  # fmt: skip
    names_of: dict[str, Path] = {}
    for entry in found.values():
        other = names_of.setdefault(entry.name, entry.path)
        if other is not entry.path:
            raise UserError(
                f"{other} and {entry.path} are both called {entry.name!r}, and so would be their files; give them one "
                "after the other, with another --out"
            )
    return list(found.values())


def unused_resolution(opened: Sequence[tuple[SlideInput, tuple[float, float] | None]]) -> str:
    """What to say of slides whose files say another µm per pixel than `fallback_mpp`, given what they had; "" if none
    does."""
    own = [
        entry for entry, mpp in opened
        if entry.mpp is None and None not in (mpp, entry.fallback_mpp) and mpp != (entry.fallback_mpp,) * 2
    ]  # fmt: skip
    if not own:
        return ""
    name = shown(own[0].path.name)
    which = f"{name}, which says" if len(own) == 1 else f"{len(own):,} slides, such as {name}, which say"
    return f"--slide-mpp is not used for {which} another one; a column mpp of a table corrects it"


def _of_name(name: str, slide_mpp: float | None) -> list[SlideInput]:
    path = user_path(name, "slide")
    if path.is_dir():
        found = slide_files(path)
        if not found:
            raise UserError(f"{path}: no slide in this folder; expected {KINDS}")
        return [SlideInput(file, None, slide_mpp) for file in found]
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected {KINDS}{path_hint(path)}")
    if path.suffix.lower() in TABLES:
        return _of_table(path, slide_mpp)
    return [SlideInput(path, None, slide_mpp)]


def _of_table(file: Path, slide_mpp: float | None) -> list[SlideInput]:
    problems = Problems(file)
    table = read_table(file, problems, _COLUMNS, "slide")
    column, shown = table.texts["path"], table.columns.shown
    base = file.parent
    by_name: dict[str, list[Path]] = {}
    for path in slide_files(base):
        by_name.setdefault(slide_name(path), []).append(path)
    paths: list[Path | None] = []
    reasons: dict[int, str] = {}
    for code, text in enumerate(column.values):
        found, reason = _find_slide(base, text, by_name)
        paths.append(found)
        if found is None:
            reasons[code] = reason
    problems.add_values(table.number, column.codes, reasons, lambda code: (shown["path"], reasons[code]))
    mpp = np.full(len(column.codes), math.nan)
    if "mpp" in table.texts:
        mpp = resolutions(table.texts["mpp"], table.number, shown["mpp"], problems)
    first = np.unique(column.codes, return_index=True)[1][column.codes]
    again = np.flatnonzero((mpp != mpp[first]) & ~(np.isnan(mpp) & np.isnan(mpp[first])))
    problems.add_rows(table.number, again, lambda i: (
        shown["mpp"], f"{column.text(i)!r} has another one in row {table.number[first[i]]}"))  # fmt: skip
    problems.stop_if_any()
    entries = []
    for code, value in zip(column.codes.tolist(), mpp.tolist(), strict=True):
        named = paths[code]
        assert named is not None
        entries.append(SlideInput(named, None if math.isnan(value) else value, slide_mpp))
    return entries


def _find_slide(base: Path, text: str, by_name: dict[str, list[Path]]) -> tuple[Path | None, str]:
    """The slide that a table calls so: by its path, or by its name without ending if it lies beside the table."""
    if not text:
        return None, "empty"
    path, reason = find_file(base, text)
    if (
        path is None and "\0" not in text and (base / text).is_dir() and is_slide(base / text)
    ):  # a folder of DICOM files
        return base / text, ""
    named = by_name.get(text, []) if path is None else []
    if len(named) > 1:
        return None, f"{text!r}: {listed(p.name for p in named)} are called so; write the ending, too"
    return (named[0], "") if named else (path, reason)


def patch_resolution(stored: StoredModel, asked: float | None) -> float | None:
    """µm per pixel of a model's patches: as its data say it, else as asked for (`--mpp`); None if neither says it.
    `UserError` for another resolution than that of its training."""
    own = stored.card.sections.get("data", {}).get("mpp")
    if own is None:
        return asked
    if asked is not None and abs(asked - own) > 1e-9:
        raise UserError(f"--mpp {asked:g}: the model was trained at {own:g} µm per pixel, and its scores at another "
                        "resolution mean nothing; leave --mpp out")  # fmt: skip
    return float(own)
