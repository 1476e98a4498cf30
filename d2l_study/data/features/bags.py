"""Bags of feature vectors: `data: {dataset: features, path: slides.csv}` (docs/own_data.md).

`path` names a table of slides, a folder that holds one (or torchmil's folders), one file of a whole data set, or a data
set that comes with the package. The vectors are copied once per machine into the cache folder and never held in memory
whole; all that is wrong with table and files is said before anything is trained.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from d2l_study.data.annotation_keys import (
    ANNOTATION_KEYS,
    AnnotationKeys,
    coverage_option,
    negative_classes_option,
    positive_classes_option,
)
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.features.embedded import EMBEDDED, embedded_file
from d2l_study.data.given_bags import GivenBags
from d2l_study.data.pool import Pool, Replicate
from d2l_study.data.purpose import MADE_FOLDS, TRAINING, Purpose
from d2l_study.environment import user_path
from d2l_study.errors import UserError, listed, nearest
from d2l_study.nearest_path import missing_folder_text, path_hint
from d2l_study.options import option

BAGS = ("slide", "patient")
NORMALISATIONS = ("standard", "length", "none")
MADE = "made"
"""The value of `splits` that leaves given ones alone."""


@dataclass(frozen=True)
class FeatureBags(GivenBags):
    """The `data` section of a space for feature vectors."""

    dataset: str = option("features", "the data set", choices=("features",))
    path: str | None = option(
        None, "table of slides (.csv, .tsv, .parquet, .xlsx), a folder with one, one file of a whole data set (.npz, "
        f".h5), or a set of the package: {', '.join(EMBEDDED)}", scientific=False,
    )  # fmt: skip
    root: str | None = option(
        None, "folder of the feature files; null: that of the table, or a usual folder in it", scientific=False
    )
    label_table: str | None = option(
        None, "a second table, patient (or slide) and label, that is joined; null: the table has the labels",
        scientific=False,
    )  # fmt: skip
    label_column: str | None = option(None, "column of the labels; null: label, or another usual name")
    positive: str | None = option(None, "name of the positive class; null: labels are 0 and 1")
    bag: str = option("slide", "what a bag is: a slide, or all slides of a patient", choices=BAGS)
    splits: str | None = option(
        None, "given splits: a table with a column split, or fold_0, fold_1 …, or CLAM's splits_0.csv or their folder; "
        f"null: the table's own, else folds are made; {MADE}: folds are made whatever the table has", scientific=False,
    )  # fmt: skip
    skip_empty: bool = option(False, "leave out slides without vectors instead of refusing them", scientific=False)
    truth: str | None = option(
        None, "labels of instances, to evaluate by: a data set in the feature files, a column (files, or annotations "
        "of slides) or a folder; null: found by itself (patch_labels and the like)",
    )  # fmt: skip
    coverage: float = coverage_option("truth: a column of annotations")
    positive_classes: str | None = positive_classes_option("truth: a column of annotations")
    negative_classes: str | None = negative_classes_option("truth: a column of annotations")
    normalise: str = option(
        "standard", "by the training bags' mean and standard deviation of each dimension; to unit length; not at all",
        choices=NORMALISATIONS,
    )  # fmt: skip

    POOL_KEYS: ClassVar[tuple[str, ...]] = (
        "dataset", "path", "root", "label_table", "label_column", "positive", "bag", "splits", "skip_empty", "truth",
        *ANNOTATION_KEYS,
    )  # fmt: skip
    SECTION_DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "teacher": {"extractor": "mlp", "feature_width": 512},
        "student": {"network": "mlp", "feature_width": 512, "augment": "none"},
    }
    """Defaults of other sections with these data: the network of attention MIL on features in the literature (one
    linear layer of 512 with ReLU), and no augmentation, which is of images."""
    PATH_KEYS: ClassVar[tuple[str, ...]] = ("root", "path", "label_table", "splits")

    def resolved(self) -> Self:
        names: dict[str, Any] = {"path": self.path} if self.path in EMBEDDED else {}  # of no file
        names |= {"splits": MADE} if self.splits == MADE else {}
        return dataclasses.replace(super(FeatureBags, self._without(*names)).resolved(), **names)

    def idle_keys(self) -> dict[str, str]:
        return dict.fromkeys(ANNOTATION_KEYS, "truth null") if self.truth is None else {}

    def _without(self, *keys: str) -> Self:
        values: dict[str, Any] = dict.fromkeys(keys)
        return dataclasses.replace(self, **values)

    def collect(self) -> FeatureCollection:
        """All bags; `UserError` says what is wrong with the table, or with a file that it names."""
        return self.collect_for(TRAINING)

    def collect_for(self, purpose: Purpose) -> FeatureCollection:
        if not purpose.given_split:
            return dataclasses.replace(self._without("splits")._collect(purpose), fold=None, part=None)
        if self.splits != MADE:
            return self._collect(purpose)
        found = self._without("splits")._collect(MADE_FOLDS)
        checksum = hashlib.sha256(f"{found.checksum} {MADE}".encode()).hexdigest()[:16]
        given = found.fold is not None or found.part is not None
        return dataclasses.replace(found, fold=None, part=None, checksum=checksum if given else found.checksum)

    def _collect(self, purpose: Purpose) -> FeatureCollection:
        # The readers are imported by whom reads: every command knows this class.
        from d2l_study.data.features.finding import feature_folder
        from d2l_study.data.features.single_file import is_single_file
        from d2l_study.data.features.slide_bags import collect_slides, find_table
        from d2l_study.data.features.tables import TABLES, TableKeys
        from d2l_study.data.features.whole_set import collect_set

        if self.path is None:
            raise UserError("data.path: missing; name the table of slides, a folder, a file of a whole data set, or "
                            f"one of the package: {listed(EMBEDDED)}")  # fmt: skip
        path = embedded_file(self.path) if self.path in EMBEDDED else self._file("path")
        assert path is not None
        if not path.exists():
            near = path_hint(path) or nearest(path.name, EMBEDDED)
            raise UserError(f"data.path: {path}: no such file or folder{near}")
        if path.is_file() and is_single_file(path):
            self._check_idle("a file of a whole data set")
            return collect_set(path, self.truth, self.skip_empty, purpose)
        if path.is_file() and path.suffix.lower() not in TABLES:
            raise UserError(f"data.path: {path}: neither a table ({listed(TABLES)}) nor a file of a whole data set "
                            "(with bag_index and bag_label)")  # fmt: skip
        annotations = AnnotationKeys.of(self.coverage, self.positive_classes, self.negative_classes)
        keys = TableKeys(self.label_column, self.positive, self.bag, self._file("label_table"), self.truth,
                         self._file("splits"), self.skip_empty, annotations, purpose)  # fmt: skip
        table, keys = find_table(path, keys)
        if table is None:
            self._check_idle("a folder of torchmil, with a label for each slide in labels/",
                             ("label_table", "label_column", "positive"))  # fmt: skip
        root = self._file("root")
        if root is not None and not root.is_dir():
            raise UserError(missing_folder_text("data.root", self.root, root))
        base = root or (path if path.is_dir() else path.parent)
        return collect_slides(table, feature_folder(base, "data.path" if root is None else "data.root"), keys)

    def _file(self, key: str) -> Path | None:
        value = getattr(self, key)
        return None if value is None else user_path(value, f"data.{key}").absolute()

    def _check_idle(
        self, what: str, names: tuple[str, ...] = ("root", "label_table", "label_column", "positive", "splits")
    ) -> None:  # fmt: skip
        given = [name for name in names if getattr(self, name) is not None]
        given += ["bag"] if self.bag != "slide" else []
        if given:
            raise UserError(f"data.{given[0]}: {getattr(self, given[0])!r} does nothing: data.path is {what}; leave it "
                            "out")  # fmt: skip

    def replicate(self, pool: Pool, number: int, base_seed: int) -> Replicate:
        """As of all given bags, normalised as `normalise` says."""
        found = super().replicate(pool, number, base_seed)
        if self.normalise == "standard":
            return found
        return dataclasses.replace(
            found, mean=np.zeros(pool.shape), std=np.ones(pool.shape), unit_length=self.normalise == "length"
        )
