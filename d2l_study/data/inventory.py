"""The `data` command: which data sets are here, where, and whether they are what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from d2l_study.data import breast, colon, mnist
from d2l_study.data.cutting import BagSource, check_cut
from d2l_study.data.decoded_cache import show_entries
from d2l_study.data.features.embedded import EMBEDDED, embedded_file
from d2l_study.data.features.whole_set import collect_set
from d2l_study.data.pool import UNKNOWN
from d2l_study.environment import DATA, data_root, file_errors_as_user_errors
from d2l_study.errors import UserError, listed
from d2l_study.slides.image_files import read_image


def show_data(mnist_folder: str | None = None, root: str | None = None) -> int:
    """Print MNIST's files (the embedded ones, or those of a folder) with their verification, and what there is of the
    tissue archives below `root`, or the folder of `D2L_DATA`. Returns 1 if an image cannot be used, else 0.

    `UserError` names a file of MNIST that is missing or damaged, or a root that is no folder.
    """
    with file_errors_as_user_errors("data"):
        return _show(mnist_folder, root)


def _show(mnist_folder: str | None, root: str | None) -> int:
    _show_mnist(mnist_folder)
    _show_embedded()
    try:
        folder = data_root(root)
    except UserError:
        if root is not None:
            raise
        show_entries()
        print(f"colon, breast: no folder named; --data DIR or {DATA} says which holds the archives")
        print(f"  {colon.WHERE_FROM}\n  {breast.WHERE_FROM}")
        return 0
    problems = _show_colon(folder) + _show_breast(folder)
    show_entries()
    return 1 if problems else 0


def _show_mnist(folder: str | None) -> None:
    files = mnist.find_files(folder)
    print(f"mnist: {'the embedded copy' if folder is None else folder} (data.dataset: mnist)")
    for name, path in files.items():
        array = mnist.read_idx(path, name)
        shape = f"{len(array):,} " + (
            f"images of {array.shape[1]}×{array.shape[2]} px" if array.ndim == 3 else "labels"
        )
        print(f"  {path}  {shape}, md5 {mnist.FILES[name][0]} verified")


def _show_embedded() -> None:
    for name, text in EMBEDDED.items():
        found = collect_set(embedded_file(name))
        positive = int(found.bags.label.sum())
        print(f"{name}: an embedded copy (data.dataset: features, data.path: {name})\n  {text}")
        print(f"  {embedded_file(name)}  {len(found.names)} bags: {positive} positive, "
              f"{len(found.names) - positive} negative; {len(found.instances):,} instances")  # fmt: skip


def _show_colon(root: Path) -> list[str]:
    folder = colon.image_folder(root)
    if folder is None:
        print(f"colon: not below {root} (looked for {colon.ARCHIVE})\n  to be had from {colon.WHERE_FROM}")
        return []
    print(f"colon: {folder} (data.dataset: colon)")
    problems: list[str] = []
    images = colon.find_images(root, problems)
    numbers = {int(image.name[3:]) for image in images}
    found = list(_described(images, colon.describe, colon.PATCH, problems))
    _counts(found, colon.IMAGES, "negative", "positive")
    sizes = [len(source.cuts[0].xy) for _, source in found]
    kinds = dict.fromkeys(colon.CLASSES, 0)
    for image, _ in found:
        for kind in kinds:
            kinds[kind] += len(colon.read_nuclei(image.nuclei[kind]))
    by_kind = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    if sizes:
        print(f"  {sum(sizes):,} nuclei, {min(sizes)} to {max(sizes)} in an image: {by_kind}")
        print(f"    (positive: {colon.POSITIVE}; the archive's Readme has {colon.NUCLEI:,} in {colon.IMAGES} images)")
    missing = [f"img{n}" for n in range(1, colon.IMAGES + 1) if n not in numbers]
    _rest(len(missing), listed(missing, 24), colon.WHERE_FROM, problems)
    return problems


def _show_breast(root: Path) -> list[str]:
    folder = breast.image_folder(root)
    if folder is None:
        print(f"breast: not below {root} (looked for {breast.ARCHIVE} and {breast.FLAT})")
        print(f"  to be had from {breast.WHERE_FROM}")
        return []
    print(f"breast: {folder} (data.dataset: breast)")
    problems: list[str] = []
    images = breast.find_images(root, problems)
    found = list(_described(images, breast.describe, breast.PATCH, problems))
    _counts(found, breast.IMAGES, "benign", "malignant")
    if found:
        cores = {source.group for _, source in found}
        truths = [
            np.concatenate([source.cuts[0].label for _, source in found]),
            np.concatenate([source.cuts[0].truths["wide"] for _, source in found]),
        ]
        print(f"  {len(truths[0]):,} patches of {len(cores)} tissue cores; their truth")
        for name, truth in zip(("nuclei of malignant against benign images", "wide"), truths, strict=True):
            positive, negative, unknown = (int(np.sum(truth == value)) for value in (1, 0, UNKNOWN))
            print(f"    {name}: {positive:,} positive, {negative:,} negative, {unknown:,} unknown")
    bare = [image.name for image, _ in found if image.mask is None]
    if bare:
        print(f"  {len(bare)} image{'s' if len(bare) > 1 else ''} without a mask: {listed(bare)}")
    _rest(breast.IMAGES - len(images), "", breast.WHERE_FROM, problems)
    return problems


_Image = TypeVar("_Image", colon.ColonImage, breast.BreastImage)


def _described(
    images: Iterable[_Image],
    describe: Callable[[Sequence[_Image]], list[BagSource]],
    patch: tuple[int, int],
    problems: list[str],
) -> Iterable[tuple[_Image, BagSource]]:
    """Each image that can be trained on, with its bag; the others become problems."""
    for image in images:
        try:
            (source,) = describe([image])
            pixels = read_image(image.image)
            for cut in source.cuts:
                check_cut(cut, pixels, patch)
            if not sum(len(cut.xy) for cut in source.cuts):
                raise UserError(f"{image.image}: a bag without instances")
        except UserError as error:
            problems.append(str(error))
            continue
        yield image, source


def _counts(found: Sequence[tuple[object, BagSource]], whole: int, negative: str, positive: str) -> None:
    positives = sum(source.label for _, source in found)
    print(f"  {len(found)} of {whole} images: {positives} {positive}, {len(found) - positives} {negative}")


def _rest(missing: int, names: str, where: str, problems: Sequence[str]) -> None:
    if missing > 0:
        print(f"  {missing} not here{f' ({names})' if names else ''}: {where}")
    for problem in problems:
        print(f"  unusable: {problem}")
