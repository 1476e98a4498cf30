"""The collection of slides that a table lists, or that torchmil's folders hold."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from d2l_study.data.features.annotated_truth import AnnotatedSlide, annotated_truth, is_annotation
from d2l_study.data.features.checks import EMPTY, describe_files, note_unreadable, open_all
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.features.feature_file import FeatureFile, Tiles, truth_of
from d2l_study.data.features.finding import PLACE_FOLDERS, TRUTH_FOLDERS, Folder, parallel_files, parallel_folder
from d2l_study.data.features.named_arrays import TRUTHS
from d2l_study.data.features.opening import ENDINGS, load_values
from d2l_study.data.features.splits import given_splits, usable_splits
from d2l_study.data.features.store import NAME, Store, open_store
from d2l_study.data.features.tables import TABLES, Slides, TableKeys, has_slides, read_slides, slides_of_folder
from d2l_study.data.manifest_checks import check_all_negative, check_bags, check_each_once, with_usable_split
from d2l_study.data.manifest_problems import Problems
from d2l_study.data.pool import UNKNOWN, Bags
from d2l_study.errors import UserError, counted, listed


def find_table(path: Path, keys: TableKeys) -> tuple[Path | None, TableKeys]:
    """The table of the slides, which `path` is or holds, and the keys with which it is read; None for torchmil's
    folders, which need none. `UserError` if there is none, or several."""
    if path.is_file():
        return path, keys
    tables = [p for p in sorted(path.iterdir()) if p.suffix.lower() in TABLES and p.is_file()]
    found = [p for p in tables if p not in (keys.label_table, keys.splits) and has_slides(p, keys)]
    if len(found) > 1:
        raise UserError(f"data.path: {path}: several tables of slides: {listed(p.name for p in found)}; name the one "
                        "that is meant")  # fmt: skip
    if found:
        return found[0], keys
    if keys.label_table is not None and has_slides(keys.label_table, dataclasses.replace(keys, label_table=None)):
        return keys.label_table, dataclasses.replace(keys, label_table=None)
    if _labels_folder(path) is not None:
        return None, keys
    said = f" (looked at {listed(p.name for p in tables)})" if tables else ""
    raise UserError(f"data.path: {path}: no table with slides and labels in it{said}; name it as data.path, and the "
                    "folder of the feature files as data.root")  # fmt: skip


def _labels_folder(path: Path) -> Path | None:
    folder = path / "labels"
    held = folder.is_dir() and any(p.name.lower().endswith(ENDINGS) for p in folder.iterdir())
    return folder if held else None


def collect_slides(table: Path | None, folder: Folder, keys: TableKeys) -> FeatureCollection:
    """All bags; table: None for torchmil's folders. `UserError` says what is wrong with the table and the files."""
    if table is None:
        if folder.doubt:
            raise UserError(folder.doubt)
        labels = parallel_folder(folder.path, ("labels",))
        if labels is None:
            raise UserError(f"{folder.path}: no folder labels beside it")
        slides = slides_of_folder(folder, labels)
    else:
        slides = read_slides(table, folder, keys)
    purpose = keys.purpose
    if not purpose.given_split:
        slides = dataclasses.replace(slides, rows=with_usable_split(slides.rows))
    rows = slides.rows
    files = sorted(rows.files, key=lambda path: (path.name, str(path)))
    _check_rows(slides, files, purpose.both_classes)
    given = given_splits(slides, keys.splits, keys.bag == "patient") if purpose.given_split else usable_splits(slides)
    separate = _truth_files(slides, folder, keys)
    in_files = keys.truth if keys.truth is not None and not any(separate) else None
    beside = _place_files(folder, files)

    def describe() -> tuple[list[FeatureFile], dict[str, Any]]:
        problems = Problems(folder.path if table is None else table, rows=slides.file_rows)
        if in_files is not None:
            _check_named_truth(slides, files, in_files)
        return open_all(files, problems, in_files, beside, keys.skip_empty)

    paths = [*files, *(path for path in beside if path is not None), *_indices(files)]
    # What lies beside HDF5 files tells of their tiles, too; earlier versions kept the same files without that.
    settings = {"files": len(files), "truth": in_files, **({"beside": "tiles"} if any(beside) else {})}
    store = open_store(paths, settings, describe)
    place = {path: s for s, path in enumerate(files)}
    slide_of_row = np.array([place[path] for path in rows.files], np.int64)[rows.path]
    _check_empty(store, slides, slide_of_row, keys)
    _check_copies(store, slides, slide_of_row)
    order = np.argsort(rows.bag.codes, kind="stable")  # the rows bag by bag
    positions, slide = _positions(store, slide_of_row[order])
    truth = _truth(slides, store, slide_of_row, separate, keys, files, beside)
    first = rows.first_of_bag()
    sizes = np.bincount(rows.bag.codes, store.counts[slide_of_row], len(first)).astype(np.int64)
    label = rows.label[first]
    bags = Bags(
        np.concatenate([[0], np.cumsum(sizes)]), positions, label, truth[positions], label, np.arange(len(first))
    )
    _check_truth(slides, bags)
    groups = sorted({rows.group_of(i) for i in first.tolist()})
    place_of_group = {name: g for g, name in enumerate(groups)}
    group = np.array([place_of_group[rows.group_of(i)] for i in first.tolist()])
    names = [""] * len(files)
    bag_of_slide = np.zeros(len(files), np.int64)
    for i, s in enumerate(slide_of_row.tolist()):
        names[s], bag_of_slide[s] = slides.names[i], rows.bag.codes[i]
    xy = np.full((len(positions), 2), np.nan) if store.places is None else store.places
    if store.places is not None and not np.array_equal(positions, np.arange(len(positions))):
        xy = store.places[positions]
    arrays = {"offsets": bags.offsets, "instance": positions, "label": label, "truth": truth, "group": group,
              "fold": given.fold, "part": given.part}  # fmt: skip
    about = store.about
    notes = (*slides.notes, *given.notes, *_notes(slides, folder, files), *_without_places(store, names))
    found = FeatureCollection(
        NAME, store.instances, truth, _checksum(store, list(rows.bag.values), groups, names, arrays), bags=bags,
        names=tuple(rows.bag.values), group=group, group_names=tuple(groups), xy=xy, image=slide, fold=given.fold,
        part=given.part, notes=notes, slides=tuple(names), files=tuple(files), side=store.side,
        tiles=Tiles(about["unit"], about["anchor"], scale=about["scale"]), extractor=about["extractor"],
        moments=store.moments, counts=store.counts, bag_of_slide=bag_of_slide,
        of_patients=table is not None and keys.bag == "patient",
    )  # fmt: skip
    return found.without_empty()


def _check_rows(slides: Slides, files: Sequence[Path], both_classes: bool) -> None:
    """`UserError` with the contradictions between the rows of a table, and the files that cannot be read with them."""
    rows = slides.rows
    problems = Problems(rows.file, rows=slides.file_rows)
    check_each_once(rows, problems)
    if not problems.found:  # a slide that is there twice contradicts itself in further ways
        check_bags(rows, "slides", problems, both_classes)
    if problems.found:
        note_unreadable(problems, files, describe_files(files))
    problems.stop_if_any()


def _indices(files: Sequence[Path]) -> list[Path]:
    """slideflow's files of places, which lie beside some `.pt`."""
    found = (path.with_name(f"{path.name[:-3]}.index.npz") for path in files if path.name.endswith(".pt"))
    return [path for path in found if path.is_file()]


def _place_files(folder: Folder, files: Sequence[Path]) -> list[Path | None]:
    beside = parallel_folder(folder.path, PLACE_FOLDERS)
    return [None] * len(files) if beside is None else parallel_files(beside, files)


def _truth_files(slides: Slides, folder: Folder, keys: TableKeys) -> list[Path | str | None]:
    """(S,) of each row the file with the labels of its instances, in a column of the table or a folder of their own;
    where the user names none of them, in the folder for rows of which the column says nothing, as for `label`."""
    beside: Path | None
    if any(slides.truth) and (keys.truth is not None or any(map(is_annotation, slides.truth))):
        return slides.truth
    files = [slides.rows.files[p] for p in slides.rows.path.tolist()]
    if keys.truth is None:
        beside = parallel_folder(folder.path, TRUTH_FOLDERS)
    else:
        named = Path(keys.truth).expanduser()
        beside = named if named.is_absolute() and named.is_dir() else parallel_folder(folder.path, (keys.truth,))
    found = [None] * len(files) if beside is None else parallel_files(beside, files)
    return [own or other for own, other in zip(slides.truth, found, strict=True)]


def _check_named_truth(slides: Slides, files: Sequence[Path], name: str) -> None:
    """`UserError` where the user names a column with the truth that is empty in all rows, unless files have labels of
    that name: each of them would be said to lack these."""
    rows = slides.rows
    if "truth" not in rows.columns:
        return
    named = any(isinstance(file, FeatureFile) and file.has_truth for file in describe_files(files, name))
    if not named and any(isinstance(file, FeatureFile) for file in describe_files(files)):
        column = rows.columns.shown["truth"]
        raise UserError(f"{rows.file}: column {column} (data.truth) is empty in all rows, and no feature file has "
                        "labels of that name")  # fmt: skip


def _truth(
    slides: Slides, store: Store, slide_of_row: np.ndarray, separate: Sequence[Path | str | None], keys: TableKeys,
    files: Sequence[Path], beside: Sequence[Path | None],
) -> np.ndarray:  # fmt: skip
    """(N,) int8 the label of each vector of the store, −1 unknown. files, beside: of each slide of the store those of
    its vectors and of its places.

    Where the user names no labels, a slide without any of its own has those inside its file, as for `label`.
    """
    inside = keys.truth is None or not any(separate)
    truth = np.full(len(store.instances), UNKNOWN, np.int8)
    if store.truth is not None and inside:
        truth = np.array(store.truth)
    if not any(separate):
        return truth
    begins = store.begins
    if any(is_annotation(entry) for entry in separate):
        drawn = _annotated(slides, store, slide_of_row, separate, keys, files, beside)
        for entry, s in zip(separate, slide_of_row.tolist(), strict=True):
            if entry is not None:
                truth[begins[s] : begins[s + 1]] = drawn[begins[s] : begins[s + 1]]
        return truth
    problems = Problems(next(path for path in separate if isinstance(path, Path)).parent)
    for path, s in zip(separate, slide_of_row.tolist(), strict=True):
        if not isinstance(path, Path):
            continue
        try:
            truth[begins[s] : begins[s + 1]] = truth_of(path, "it", load_values(path, TRUTHS), int(store.counts[s]))
        except UserError as error:
            problems.add_text(str(error))
    problems.stop_if_any()
    return truth


def _annotated(
    slides: Slides, store: Store, slide_of_row: np.ndarray, entries: Sequence[Path | str | None], keys: TableKeys,
    files: Sequence[Path], beside: Sequence[Path | None],
) -> np.ndarray:  # fmt: skip
    """The same by annotations, which stand in a column of the table."""
    rows, column = slides.rows, slides.rows.columns.shown["truth"]
    others = [entry.name for entry in entries if isinstance(entry, Path) and not is_annotation(entry)]
    if others:
        raise UserError(f"{rows.file}: column {column}: annotations and files of labels, such as "
                        f"{others[0]}; expected one kind of them")  # fmt: skip
    alone = np.bincount(rows.bag.codes)[rows.bag.codes] == 1
    required = alone & (rows.label == 1)  # of several slides one may hold nothing positive
    annotated = []
    for i, s in enumerate(slide_of_row.tolist()):
        its = tuple(path for path in (files[s], beside[s]) if path is not None)
        annotated.append(AnnotatedSlide(s, int(rows.number[i]), entries[i], bool(required[i]), its))
    problems = Problems(rows.file)
    check_all_negative(rows, entries, problems, column)
    return annotated_truth(annotated, store, keys.annotations, problems, column)


def _positions(store: Store, slides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The positions in the store of the vectors of these slides, one slide after the other, and (same length) their
    slides."""
    counts = store.counts[slides]
    slide = np.repeat(slides, counts)
    begins = np.repeat(store.begins[slides] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return begins + np.arange(len(slide)), slide


def _check_empty(store: Store, slides: Slides, slide_of_row: np.ndarray, keys: TableKeys) -> None:
    if keys.skip_empty:
        return
    problems = Problems(slides.rows.file)
    problems.add_rows(slides.rows.number, np.flatnonzero(store.counts[slide_of_row] == 0), lambda i: ("", (
        f"{slides.names[i]!r}: {EMPTY}")))  # fmt: skip
    problems.stop_if_any()


def _check_copies(store: Store, slides: Slides, slide_of_row: np.ndarray) -> None:
    """Files of the same vectors under two names: with one mean and one scatter they are the same slide twice."""
    problems = Problems(slides.rows.file)
    seen: dict[bytes, int] = {}
    for i, s in enumerate(slide_of_row.tolist()):
        if not store.counts[s]:
            continue
        mark = hashlib.sha256(store.moments[s].tobytes() + int(store.counts[s]).to_bytes(8)).digest()
        if (other := seen.setdefault(mark, i)) != i:
            row = int(slides.rows.number[i])
            problems.add(f"row {row}", f"{slides.names[i]!r} has the same vectors as {slides.names[other]!r} (row "
                         f"{slides.rows.number[other]}): the same slide twice", row)  # fmt: skip
    problems.stop_if_any()


def _check_truth(slides: Slides, bags: Bags) -> None:
    problems = Problems(slides.rows.file)
    known = np.bincount(bags.bag_of[bags.instance_label == 1], minlength=len(bags))
    for b in np.flatnonzero((known > 0) & (bags.label == 0)).tolist():
        problems.add(f"bag {slides.rows.bag.values[b]!r}", f"{counted(int(known[b]), 'instance')} labelled 1, but the "
                     "bag has label 0: a bag is positive if any of its instances is")  # fmt: skip
    problems.stop_if_any()


def _notes(slides: Slides, folder: Folder, files: Sequence[Path]) -> list[str]:
    """That files belong to no slide."""
    used = {path.name for path in files if path.parent == folder.path}
    unused = [name for names in folder.names.values() for name in names if name not in used]
    if not unused:
        return []
    of = "is of no slide" if len(unused) == 1 else "are of no slide"
    return [f"{counted(len(unused), 'file')} in {folder.path} {of} of the table: {listed(unused, 5)}"]


def _without_places(store: Store, names: Sequence[str]) -> list[str]:
    """That some slides have no places of tiles, where others have."""
    if store.places is None:
        return []
    full = np.flatnonzero(store.counts > 0)
    bare = [names[s] for s in full[np.isnan(store.places[store.begins[full], 0])].tolist()]
    return [f"no places of tiles: {counted(len(bare), 'slide')}: {listed(bare, 5)}"] if bare else []


def _checksum(
    store: Store, names: list[str], groups: list[str], slides: list[str], arrays: dict[str, np.ndarray | None]
) -> str:
    """Of all that a study of the collection depends on."""
    checksum = hashlib.sha256(f"{store.checksum}|{names}|{groups}|{slides}".encode())
    for key, values in sorted(arrays.items()):
        if values is not None:
            checksum.update(key.encode() + np.ascontiguousarray(values).tobytes())
    return checksum.hexdigest()[:16]
