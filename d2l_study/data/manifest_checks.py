"""What the rows of a manifest say together: contradictions, and whatever would let what is trained on be tested on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from d2l_study.data.manifest_problems import Problems
from d2l_study.data.manifest_rows import ALL_NEGATIVE, PARTS, Rows
from d2l_study.data.manifest_table import CategoricalColumn
from d2l_study.errors import UserError, counted, listed, nearest
from d2l_study.slides.image_files import read_image

MOST_FOLDS = 1000

LARGEST_WHOLE = 256
"""Pixels a side of an image that can be an instance as it is; a larger one is taken for one that should be cut."""
_PAIRS = 20


def check_bags(rows: Rows, cut: str, noted: Problems | None = None, both_classes: bool = True) -> None:
    """`UserError` with all contradictions between the rows of a manifest, and what `cut` does not go with. noted: takes
    the contradictions instead; both_classes: bags of both are needed."""
    problems = Problems(rows.file) if noted is None else noted
    shown = rows.columns.shown
    if cut == "points" and "x" not in rows.columns:
        problems.add("header", "no columns x and y, which data.cut: points needs")
    if cut == "grid" and "instance_label" in rows.columns:
        problems.add("header", f"column {shown['instance_label']}: rows are whole images under data.cut: grid, not "
                     "instances; use cut points or whole, or take the column out")  # fmt: skip
    if noted is None:
        problems.stop_if_any()
    check_agreement(rows, problems)
    wrong = np.flatnonzero((rows.instance_label == 1) & (rows.label == 0))
    problems.add_rows(rows.number, wrong, lambda i: (
        shown["instance_label"], f"1 in bag {rows.bag.text(i)!r}, which has label 0: a bag is positive if any of its "
        "instances is"))  # fmt: skip
    check_instances(rows, cut, problems)
    _check_apart(rows, rows.path, problems)
    for name, related in rows.related.items():
        _check_within_groups(rows, name, related, problems)
    if "split" in rows.columns:
        check_split(rows, problems)
    first = rows.first_of_bag()
    if both_classes and len(labels := np.unique(rows.label[first])) == 1:
        problems.add(f"column {shown['label']}", f"all {len(first)} bags have label {labels[0]}; both classes are "
                     "needed")  # fmt: skip
    if noted is None:
        problems.stop_if_any()


def check_instances(
    rows: Rows, cut: str, problems: Problems, why_whole: str = "data.cut: points reads the columns x and y"
) -> None:
    """Notes points without a place, and instances that are in a bag twice. why_whole: why x and y are not read where
    they are there, in words."""
    if cut == "points":
        for column, values in (("x", rows.x), ("y", rows.y)):
            problems.add_rows(
                rows.number, np.flatnonzero(np.isnan(values)),
                lambda i, column=column: (  # type: ignore[misc]
                    rows.columns.shown[column], "empty; data.cut: points needs a place"
                ),
            )  # fmt: skip
    _check_repeats(rows, cut, rows.path, problems, why_whole)


def check_resolutions(rows: Rows, problems: Problems) -> None:
    """Notes slides that have several µm per pixel."""
    first = np.unique(rows.path, return_index=True)[1][rows.path]
    same = (rows.mpp == rows.mpp[first]) | (np.isnan(rows.mpp) & np.isnan(rows.mpp[first]))
    problems.add_rows(rows.number, np.flatnonzero(~same), lambda i: (
        rows.columns.shown["mpp"], f"{rows.files[rows.path[i]].name} has another one in row {rows.number[first[i]]}"
    ))  # fmt: skip


def check_all_negative(rows: Rows, entries: Sequence[object], problems: Problems, column: str) -> None:
    """Notes bags of label 1 of which every slide is said to hold nothing positive. entries: (n) what a column says of
    the truth of the slides' tiles; column: as messages call it."""
    said = np.array([entry == ALL_NEGATIVE for entry in entries], bool)
    count = np.bincount(rows.bag.codes)
    wrong = (np.bincount(rows.bag.codes, said) == count)[rows.bag.codes] & (rows.label == 1)
    first = rows.first_of_bag()

    def tell(i: int) -> tuple[str, str]:
        alone = count[rows.bag.codes[i]] == 1
        others = "no other slide" if alone else "the same is said of its other slides"
        return column, f"{ALL_NEGATIVE!r}, but bag {rows.bag.text(i)!r} has label 1, and {others}"

    problems.add_rows(rows.number, np.sort(first[wrong[first]]), tell)


def check_sizes(
    rows: Rows, sizes: Sequence[tuple[int, int] | str], cut: str, patch: tuple[int, int], patch_is: str
) -> list[tuple[int, int]]:
    """(width, height) of every file, checked against what is to be cut from it: `UserError` names all images that
    cannot be opened or are of another size, and all points outside.

    sizes: of each file, or why it cannot be read; patch: (h, w); patch_is: where its size is from, in words.
    """
    problems = Problems(rows.file)
    reasons = {f: size for f, size in enumerate(sizes) if isinstance(size, str)}
    shown, number = rows.columns.shown, rows.number
    problems.add_values(number, rows.path, reasons, lambda f: (shown["path"], reasons[f]))
    found = [(0, 0) if isinstance(size, str) else size for size in sizes]
    width, height = np.array(found, np.int64).T
    h, w = patch

    def told(f: int) -> str:
        return f"{rows.files[f].name} has {width[f]}×{height[f]} pixels"

    def wrong(mask: np.ndarray) -> list[int]:
        return [f for f in np.flatnonzero(mask).tolist() if f not in reasons]

    if cut == "whole":
        problems.add_values(number, rows.path, wrong((height != h) | (width != w)), lambda f: (
            shown["path"], f"{told(f)}, that of row {number[0]} {w}×{h}; whole images (data.cut: whole) must be of one "
            "size"))  # fmt: skip
        large = (np.maximum(width, height) > LARGEST_WHOLE) & (height == h) & (width == w)
        problems.add_values(number, rows.path, wrong(large), lambda f: (
            shown["path"], f"{told(f)}; an instance has at most {LARGEST_WHOLE} a side (data.cut: grid cuts patches "
            "from larger images)"))  # fmt: skip
    else:
        small = (width < w) | (height < h)
        problems.add_values(number, rows.path, wrong(small), lambda f: (
            shown["path"], f"{told(f)}, smaller than a patch ({patch_is})"))  # fmt: skip
        if cut == "points":
            fits = np.ones(len(found), bool)
            fits[[*reasons, *np.flatnonzero(small)]] = False
            # A centre up to a pixel outside is let pass: annotators click on the rim.
            for column, values, most in (("x", rows.x, width[rows.path]), ("y", rows.y, height[rows.path])):
                outside = np.flatnonzero(fits[rows.path] & ~((values >= -1) & (values <= most)))
                problems.add_rows(number, outside, lambda i, column=column, values=values: (  # type: ignore[misc]
                    shown[column], f"{values[i]:g} is outside: {told(int(rows.path[i]))}, counted from 0"))  # fmt: skip
    problems.stop_if_any()
    return found


def check_each_once(rows: Rows, problems: Problems) -> None:
    """Notes files that stand in two rows, whatever bags they are of."""
    first = _earlier(rows.path)
    problems.add_rows(rows.number, np.flatnonzero(first != np.arange(len(rows))), lambda i: (
        "", f"{rows.files[rows.path[i]].name} is in row {rows.number[first[i]]}, too: the same {rows.noun} twice"
    ))  # fmt: skip


def check_agreement(
    rows: Rows, problems: Problems, names: Collection[str] = ("label", "group", "split")
) -> None:  # fmt: skip
    """All rows of a bag have the same in the columns of these names."""
    first = rows.first_of_bag()[rows.bag.codes]
    texts: dict[str, tuple[np.ndarray, Callable[[int], object]]] = {
        "label": (rows.label, lambda i: int(rows.label[i])), "group": (rows.group.codes, rows.group.text),
        "split": (rows.split.codes, rows.split.text),
    }  # fmt: skip
    for column, (values, text) in texts.items():
        if column in names and column in rows.columns.shown:
            shown = rows.columns.shown[column]
            problems.add_rows(
                rows.number, np.flatnonzero(values != values[first]),
                lambda i, text=text, shown=shown: (shown, f"bag {rows.bag.text(i)!r} has {text(i)!r} here and "  # type: ignore[misc]
                f"{text(first[i])!r} in row {rows.number[first[i]]}; all rows of a bag must agree"),
            )  # fmt: skip


def _earlier(*keys: np.ndarray) -> np.ndarray:
    """(n,) the first row with the same keys as each row, itself if there is none before."""
    order = np.lexsort(keys[::-1])  # stable: of equal ones the first comes first
    new = np.ones(len(order), bool)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    found = np.empty(len(order), np.int64)
    found[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return found


def _check_repeats(
    rows: Rows, cut: str, image: np.ndarray, problems: Problems,
    why_whole: str = "data.cut: points reads the columns x and y",
) -> None:  # fmt: skip
    """No instance is in a bag twice. image: (n,) which image each row has; why_whole: as of `check_instances`."""
    points = cut == "points"
    first = _earlier(rows.bag.codes, image, *((rows.x, rows.y) if points else ()))
    again = np.flatnonzero(first != np.arange(len(rows)))
    if (
        cut == "whole"
        and "x" not in rows.columns
        and len(again) > 1
        and not (rows.path - rows.path[first])[again].any()
    ):
        problems.add("header", "there are no columns x and y, so each row is taken for a whole image; "
                     f"{len(again):,} rows name an image again (row {rows.number[again[0]]} that of row "
                     f"{rows.number[first[again[0]]]})")  # fmt: skip
        return
    hint = f"; {why_whole}" if not points and "x" in rows.columns else ""

    def tell(i: int) -> tuple[str, str]:
        what = "the same point of the same image" if points else f"the same {rows.noun}"
        return "", f"{what} as row {rows.number[first[i]]}{_copy(rows, i, first[i])}{hint}"

    problems.add_rows(rows.number, again, tell)


def _copy(rows: Rows, row: int, other: int) -> str:
    if rows.path[row] == rows.path[other]:
        return ""
    return f" ({rows.files[rows.path[row]]} and {rows.files[rows.path[other]]} have the same content)"


def _check_apart(rows: Rows, image: np.ndarray, problems: Problems) -> None:
    """An image in two bags that may come into different folds would be trained and tested on. image: (n,) which image
    each row has."""
    group, first = rows.group_codes(), _earlier(image)
    apart = np.flatnonzero(group != group[first])
    pairs = np.stack([rows.bag.codes[first[apart]], rows.bag.codes[apart]], axis=1)
    apart = apart[np.sort(np.unique(pairs, axis=0, return_index=True)[1])] if len(apart) else apart

    def tell(i: int) -> tuple[str, str]:
        other = first[i]
        return rows.columns.shown.get("path", rows.columns.shown["bag"]), (
            f"{rows.files[rows.path[i]].name} is in bag {rows.bag.text(i)!r} and in bag {rows.bag.text(other)!r} (row "
            f"{rows.number[other]}){_copy(rows, i, other)}; give both bags the same group, so that no {rows.noun} "
            "is both trained and tested on"
        )

    problems.add_rows(rows.number, apart, tell)


def _check_within_groups(rows: Rows, name: str, column: CategoricalColumn, problems: Problems) -> None:
    """What else belongs together, such as a patient, is in one group."""
    group, first = rows.group_codes(), _earlier(column.codes)
    said = np.array([bool(value) for value in column.values])[column.codes]
    apart = np.flatnonzero((group != group[first]) & said)
    apart = apart[np.sort(np.unique(column.codes[apart], return_index=True)[1])] if len(apart) else apart
    problems.add_rows(rows.number, apart, lambda i: (
        name, f"{column.text(i)!r} is in group {rows.group_of(i)!r} and in group {rows.group_of(first[i])!r} (row "
        f"{rows.number[first[i]]}), so that it may be both trained and tested on; give them the same group, or rename "
        f"the column, as in old_{name}, if it does not say what belongs together"))  # fmt: skip


def check_content(rows: Rows, cut: str, digests: Mapping[Path, bytes]) -> None:
    """`UserError` if files of the same content, whatever they are called, are in bags that may come into different
    folds, or twice in one bag. Patches of one colour (glass, in data.cut: whole) may be alike."""
    known: dict[bytes, int] = {}
    image_of = np.array([known.setdefault(digests[path], len(known)) for path in rows.files], np.int64)
    if len(known) == len(rows.files):
        return
    if cut == "whole":
        copies = np.flatnonzero(np.bincount(image_of)[image_of] > 1)
        plain = {int(image_of[f]): _one_colour(rows.files[f]) for f in {int(image_of[f]): f for f in copies}.values()}
        for f in copies.tolist():
            if plain[int(image_of[f])]:
                image_of[f] = len(known) + f
    problems = Problems(rows.file)
    image = image_of[rows.path]
    _check_repeats(rows, cut, image, problems)
    _check_apart(rows, image, problems)
    problems.stop_if_any()


def _one_colour(path: Path) -> bool:
    pixels = read_image(path)
    return bool((pixels == pixels[0, 0]).all())


def fold_number(text: str) -> int | None:
    """The number of a fold that a split says, None if it says none."""
    return int(text) if re.fullmatch("[0-9]{1,4}", text) and int(text) < MOST_FOLDS else None


def with_usable_split(rows: Rows) -> Rows:
    """The rows, without the column `split` where that says no split that can be trained by. A usable one stays, since
    ids of studies depend on it even where its parts are not used."""
    if "split" not in rows.columns:
        return rows
    problems = Problems(rows.file)
    check_agreement(rows, problems, ("split",))
    check_split(rows, problems)
    if not problems.found:
        return rows
    place = {name: index for name, index in rows.columns.place.items() if name != "split"}
    shown = {name: text for name, text in rows.columns.shown.items() if name != "split"}
    columns = dataclasses.replace(rows.columns, place=place, shown=shown)
    return dataclasses.replace(rows, columns=columns, split=CategoricalColumn(np.zeros(len(rows), np.int64), [""]))


def check_split(rows: Rows, problems: Problems) -> None:
    """Notes what is wrong with the column `split`."""
    shown = rows.columns.shown["split"]
    first = rows.first_of_bag()
    before = problems.count
    values = rows.split.values
    numbers = [fold_number(value) for value in values]
    folds = None not in numbers
    wrong = [code for code, value in enumerate(values) if value not in PARTS and not folds]

    def tell(code: int) -> tuple[str, str]:
        value = values[code]
        hint = "; did you mean 'val'?" if value.startswith("val") else nearest(value[:60], PARTS)
        found = repr(value if len(value) <= 60 else value[:60] + "…") if value else "empty"
        return shown, (f"{found}; expected train, val or test (or the number of a fold, from 0 to {MOST_FOLDS - 1}, in "
                       f"all rows){hint}")  # fmt: skip

    problems.add_values(rows.number[first], rows.split.codes[first], wrong, tell)
    if problems.count > before:
        return
    group = rows.group_codes()[first]
    other = first[_earlier(group)]
    apart = np.flatnonzero(rows.split.codes[first] != rows.split.codes[other])

    def told(k: int) -> tuple[str, str]:
        i, j = first[k], other[k]
        return shown, (f"group {rows.group.text(i)!r} is in {rows.split.text(i)} (bag {rows.bag.text(i)!r}) and in "
                       f"{rows.split.text(j)} (bag {rows.bag.text(j)!r}, row {rows.number[j]}); a group must not be "
                       "split")  # fmt: skip

    problems.add_rows(rows.number[first], apart, told)
    if folds:
        there = {number for number in numbers if number is not None}
        if missing := sorted(set(range(max(there) + 1)) - there):
            problems.add(f"column {shown}", f"no bag is in fold {listed(missing)}; folds count from 0 without gaps")
        elif len(there) < 3:
            problems.add(f"column {shown}", f"{counted(len(there), 'fold')}; at least 3 are needed (train, validation, "
                         "test)")  # fmt: skip
        return
    for part in ("train", "test"):
        if part not in values:
            problems.add(f"column {shown}", f"no bag is in {part}")
    train = [code for code, value in enumerate(values) if value == "train"]
    labels = np.unique(rows.label[first][np.isin(rows.split.codes[first], train)])
    if len(labels) == 1:
        problems.add(f"column {shown}", f"all bags in train have label {labels[0]}; both classes are needed")


def check_pixels(rows: Rows, reasons: Sequence[str]) -> None:
    """`UserError` that names all images which cannot be read; reasons: of each file, empty where there is none."""
    problems = Problems(rows.file)
    wrong = [f for f, reason in enumerate(reasons) if reason]
    problems.add_values(rows.number, rows.path, wrong, lambda f: (rows.columns.shown["path"], reasons[f]))
    problems.stop_if_any()


def reason_of(read: Callable[[Path], object], path: Path) -> str:
    """Why an image cannot be read; empty if it can."""
    try:
        read(path)
    except UserError as error:
        return str(error)
    return ""
