"""The truth of images that `label` is given, where they belong to the data set of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from d2l_study.data import DATASETS, BagCollection
from d2l_study.data.folds import parts_of
from d2l_study.environment import user_path
from d2l_study.errors import UserError
from d2l_study.study.ledger.ledger import Ledger

if TYPE_CHECKING:
    from d2l_study.inference.dense_label import Truth


@dataclass(frozen=True)
class KnownImages:
    """The images of a model's data set: the true instances of each, and whether the model was trained, validated or
    tested on it.

    pool: None if nothing is known; reason then says why. part_of: bag -> training, validation or test; empty if the
    data are not those that the model was trained with.
    """

    pool: BagCollection | None
    dataset: str
    part_of: Mapping[int, str]
    reason: str = ""

    @classmethod
    def of_model(cls, ledger: Ledger, config_id: str, replicate: int, root: str | None) -> KnownImages:
        """The images of the data set of a run's model. root: the folder of the data set; None takes the one that the
        model was trained with, else `D2L_DATA`. `UserError` if a folder is named that does not hold the data set."""
        content = ledger.read_config(config_id)
        data = dict(content["sections"]["data"])
        name = data["dataset"]
        if "root" in data and root is not None:
            data["root"] = root
        if root is not None and not user_path(root, "--data").is_dir():
            raise UserError(f"--data: {root!r} is not a folder")
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
            found = parts_of(pool, replicate, content["base_seed"], data.get("folds", 3))[:3]
            for word, bags in zip(("training", "validation", "test"), found, strict=True):
                parts |= dict.fromkeys((int(b) for b in bags), word)
        return cls(pool, name, parts)

    @cached_property
    def _numbers(self) -> dict[Path, int]:
        """The number of each image of the data set; the first, where a file is there twice."""
        images = self.pool.images if self.pool is not None else ()
        return {image.resolve(): i for i, image in reversed(list(enumerate(images)))}

    def __call__(self, path: Path) -> Truth | None:
        """The truth of an image; None if it does not belong to the data set."""
        from d2l_study.inference.dense_label import Truth
        from d2l_study.inference.overlay import Places

        if self.pool is None:
            return None
        number = self._numbers.get(path.resolve())
        if number is None:
            return None
        xy, label = self.pool.instances_in_image(number)
        known = label >= 0
        bags = np.unique(self.pool.bags.bag_of[self.pool.image == number])
        words = {self.part_of.get(int(b)) for b in bags} - {None}
        note = f"a {words.pop()} image of this model" if len(words) == 1 else ""
        positive, negative = DATASETS[self.dataset].INSTANCE_CLASSES
        return Truth(Places(xy[known], label[known]), positive, negative, note)
