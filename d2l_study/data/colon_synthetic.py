"""A data set of synthetic colon images: written into the cache folder, then read as the archive would be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from d2l_study.data import colon
from d2l_study.data.collection import PatchCollection
from d2l_study.data.decoded_cache import (
    FORMAT,
    UNUSABLE,
    check_once,
    new_entry,
    one_at_a_time,
    read_meta,
    warn_if_altered,
    write_meta,
)
from d2l_study.data.given_bags import PatchBags
from d2l_study.environment import cache_dir
from d2l_study.errors import UserError
from d2l_study.options import option

_DRAWING = 1
"""Of what `synthetic_tissue` draws: part of the address of the images in the cache."""


@dataclass(frozen=True)
class SyntheticColonBags(PatchBags):
    """The `data` section of a space for synthetic colon images, which needs no archive."""

    dataset: str = option("colon_synthetic", "the data set", choices=("colon_synthetic",))
    images: int = option(40, "number of images, every other one positive", least=6, most=1000)
    side: int = option(160, "side of an image in pixels", least=27, most=2000)
    nuclei: float = option(20.0, "mean number of nuclei in an image", least=1.0, most=2000.0)
    witnesses: float = option(0.3, "share of epithelial nuclei in a positive image", above=0.0, most=1.0)
    drawing: int = option(0, "seed of the images, the same for all replicates", least=0)

    POOL_KEYS: ClassVar[tuple[str, ...]] = ("dataset", "images", "side", "nuclei", "witnesses", "drawing")
    INSTANCE_CLASSES: ClassVar[tuple[str, str]] = ("epithelial", "other nuclei")

    def collect(self) -> PatchCollection:
        folder = self._written()
        try:
            return colon.load(folder, "colon_synthetic", lambda: check_once(folder, read_meta(folder)))
        except (UserError, *UNUSABLE) as error:
            try:
                check_once(folder, read_meta(folder))
            except UNUSABLE as altered:
                warn_if_altered(folder, altered)
                with one_at_a_time(folder.with_name(f"{folder.name}.lock")) as alone:
                    self._draw(folder, alone)
                return colon.load(folder, "colon_synthetic")
            raise error from None

    def _written(self) -> Path:
        """The folder of the images, which one process writes while the others wait."""
        values = {key: getattr(self, key) for key in self.POOL_KEYS} | {"version": _DRAWING, "format": FORMAT}
        mark = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
        folder = cache_dir() / f"colon_synthetic-images-{mark}"
        if not folder.is_dir():
            with one_at_a_time(folder.with_name(f"{folder.name}.lock")) as alone:
                if not folder.is_dir():
                    self._draw(folder, alone)
        return folder

    def _draw(self, folder: Path, alone: bool) -> None:
        from d2l_study.data.synthetic_tissue import write_colon

        with new_entry(folder, alone) as place:
            write_colon(place, self.images, side=self.side, nuclei=self.nuclei, witnesses=self.witnesses,
                        seed=self.drawing)  # fmt: skip
            write_meta(place, {})
