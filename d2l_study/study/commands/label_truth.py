"""The truth of images and slides that `label` is given, where they belong to the data set of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from d2l_study.data import DATASETS, BagCollection
from d2l_study.data.features.bags import FeatureBags
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.features.embedded import EMBEDDED, embedded_file
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.inference.feature_scores import UNUSED
from d2l_study.nearest_path import missing_folder_text
from d2l_study.study.ledger.ledger import Ledger
from d2l_study.study.trial.replicates import trained_replicate
from d2l_study.study.trial.study_of_trial import where_data_are

if TYPE_CHECKING:
    from d2l_study.inference.feature_scores import KnownSlide
    from d2l_study.inference.image_labelling import ImageAnnotations

PART_TEXT = {
    "training": "that this model was trained on", "unlabelled": "that this model was trained on without their labels",
    "validation": "that this model was selected by", "test": "that this model was tested on",
    UNUSED: "of this model's data that it was not trained, selected or tested on",
}  # fmt: skip
"""What bags, or slides, of a part of a model's data are to it."""


def part_note(part: str, what: str) -> str:
    """What one image, or slide, was to the model, in words; "" if it is not of its data. part: as of `PART_TEXT`."""
    return f"a{'n' * part.startswith('u')} {part} {what} of this model" if part else ""


@dataclass(frozen=True)
class KnownData:
    """The data set of a model, and what each bag of it was to the model.

    pool: None if nothing is known; reason then says why. part_of: bag -> a key of `PART_TEXT`; empty if the data are
    not those that the model was trained with; path: what the section calls so, where it has such a key.
    """

    pool: BagCollection | None
    dataset: str
    part_of: Mapping[int, str]
    reason: str = ""
    path: str | None = None

    @classmethod
    def of_model(cls, ledger: Ledger, config_id: str, replicate: int, root: str | None) -> Self:
        """The data set of a run's model. root: its folder; None takes the one that the model was trained with, else
        `D2L_DATA`. `UserError` if a folder is named that does not hold the data set."""
        try:
            content = where_data_are(ledger, config_id, ledger.read_config(config_id))
        except FileNotFoundError:  # of a model that came from elsewhere
            reason = f"the study of this model is not under --root {ledger.storage.root}"
            if root is not None:
                raise UserError(f"--data: what it would hold is not known: {reason}") from None
            return cls(None, "", {}, reason)
        data = dict(content["sections"]["data"])
        name = data["dataset"]
        if root is not None and not (folder := user_path(root, "--data")).is_dir():
            raise UserError(missing_folder_text("--data", root, folder) + "; it names the folder that holds the data")
        if root is not None and name == "features":
            data |= _moved_features(data, user_path(root, "--data").absolute())
        elif root is not None and "root" in data:
            data["root"] = root
        try:
            pool = DATASETS[name](**data).load_pool()
        except UserError as error:
            if root is not None:
                raise UserError(f"--data: {error}") from None
            return cls(None, name, {}, str(error))
        if not isinstance(pool, BagCollection):
            return cls(None, name, {}, f"data set {name} has no images")
        parts: dict[int, str] = {}
        if pool.checksum == content["data_checksum"]:
            sections = {**content["sections"], "data": data}
            made = trained_replicate(sections, pool, replicate, content["base_seed"])
            parts = dict.fromkeys(range(len(pool.bags)), UNUSED)
            for word, bags in (("training", made.train), ("unlabelled", made.unlabelled), ("validation", made.val),
                               ("test", made.test)):  # fmt: skip
                parts |= dict.fromkeys(bags.number.tolist(), word)
        return cls(pool, name, parts, path=data.get("path"))


def _moved_features(data: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The keys of a `data` section of features that name files or folders, as they are in another folder."""
    if data["path"] in EMBEDDED:
        return {}
    there = {key: folder / Path(data[key]).name for key in FeatureBags.PATH_KEYS if data.get(key) is not None}
    found = {key: str(place) for key, place in there.items() if place.exists()}
    return {"path": str(folder)} | found


@dataclass(frozen=True)
class KnownImages(KnownData):
    """The images of a model's data set, and the true instances of each."""

    @cached_property
    def _numbers(self) -> dict[Path, int]:
        """The number of each image of the data set; the first, where a file is there twice."""
        images = self.pool.images if self.pool is not None else ()
        return {image.resolve(): i for i, image in reversed(list(enumerate(images)))}

    def part(self, path: Path) -> str:
        """What an image, or slide, was to the model: a key of `PART_TEXT`, of an image in bags of several parts the one
        that was used; "" if it is not of the model's data, or in several parts that were used."""
        number = self._numbers.get(path.resolve())
        if self.pool is None or number is None:
            return ""
        bags = np.unique(self.pool.bags.bag_of[self.pool.image == number])
        words = {self.part_of.get(int(b), "") for b in bags}
        words = words - {UNUSED} or words
        return words.pop() if len(words) == 1 else ""

    def __call__(self, path: Path) -> ImageAnnotations | None:
        """The truth of an image; None if it does not belong to the data set."""
        from d2l_study.inference.image_labelling import ImageAnnotations
        from d2l_study.inference.overlay import Places

        if self.pool is None:
            return None
        number = self._numbers.get(path.resolve())
        if number is None:
            return None
        xy, label = self.pool.instances_in_image(number)
        known = label >= 0
        word = self.part(path)
        note = part_note(word, "image")
        return ImageAnnotations(Places(xy[known], label[known]), note)


@dataclass(frozen=True)
class KnownSlides(KnownData):
    """The slides of a model's data set of features."""

    @cached_property
    def _numbers(self) -> dict[Path, int]:
        """The number of each slide whose vectors have a file of their own."""
        files = self.pool.files if isinstance(self.pool, FeatureCollection) else ()
        return {file.resolve(): s for s, file in enumerate(files)}

    @cached_property
    def whole_set(self) -> Path | None:
        """The file that holds the whole data set, if it is one."""
        if not isinstance(self.pool, FeatureCollection) or self.pool.files or self.path is None:
            return None
        return (embedded_file(self.path) if self.path in EMBEDDED else user_path(self.path, "path")).resolve()

    def __call__(self, path: Path, bag: int | None) -> KnownSlide | None:
        """What is known of a slide; None if it does not belong to the data set. bag: its number in a file that holds
        a whole data set, None for a file of one slide."""
        from d2l_study.inference.feature_scores import KnownSlide

        slide = self._numbers.get(path.resolve()) if bag is None else bag if path.resolve() == self.whole_set else None
        if slide is None or not isinstance(self.pool, FeatureCollection) or self.pool.bag_of_slide[slide] < 0:
            return None
        number, bags = int(self.pool.bag_of_slide[slide]), self.pool.bags
        rows = slice(*bags.offsets[number : number + 2].tolist())
        truth = bags.instance_label[rows][self.pool.image[rows] == slide]
        slides = int((self.pool.bag_of_slide == number).sum())
        return KnownSlide(self.part_of.get(number, ""), int(bags.label[number]), truth, slides)
