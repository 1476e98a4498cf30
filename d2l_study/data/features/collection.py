"""Bags of feature vectors: what `data: {dataset: features}` gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from d2l_study.data.collection import BagCollection
from d2l_study.data.features.feature_file import Tiles
from d2l_study.data.pool import Bags
from d2l_study.errors import counted, listed


@dataclass(frozen=True, kw_only=True)
class FeatureCollection(BagCollection):
    """Bags of vectors, S slides in all.

    instances: (N, D) memory-mapped, float16, float32 or float64 as they came; xy: (I, 2) float64 place of each tile as
    its file has it, in `tiles.unit`: of `tiles.anchor`, NaN where there is none; image: (I,) the slide that an instance
    comes from, an index into `slides`, the slides' names; images is empty, since no pictures are read; files: (S,) the
    feature files, empty where one file has all;
    tiles: what is said of the tiles; side: (S,) float64 their side in that unit (level-0 pixels differ between slides),
    NaN where it is not known; extractor: the encoder, empty where it is not said;
    bag_of_slide: (S,) the bag that each slide is in;
    moments: (S, 2, D) float64, of each slide's vectors the mean, and the sum of the squared deviations from it;
    counts: (S,) the number of vectors of each; of_patients: whether a bag holds all slides of a patient.
    """

    slides: tuple[str, ...]
    files: tuple[Path, ...] = ()
    tiles: Tiles
    side: np.ndarray
    extractor: str = ""
    bag_of_slide: np.ndarray
    moments: np.ndarray
    counts: np.ndarray
    of_patients: bool = False

    @property
    def coordinate_unit(self) -> str:
        """`level-0 pixels`, `µm`, or empty where it is not known."""
        return self.tiles.unit

    def image_of(self, bag: int) -> Path | None:
        """None: no pictures are read."""
        return None

    def normalisation(self, bags: Bags) -> tuple[np.ndarray, np.ndarray]:
        """mean and standard deviation per dimension, (D,) float64 each, of the vectors of whole bags of the collection;
        the standard deviation of a dimension that does not vary is 1."""
        slides = np.flatnonzero(np.isin(self.bag_of_slide, bags.number) & (self.counts > 0))
        counts = self.counts[slides].astype(np.float64)[:, None]
        means, scatters = self.moments[slides, 0], self.moments[slides, 1]
        mean = (counts * means).sum(axis=0) / counts.sum()
        scatter = scatters.sum(axis=0) + (counts * (means - mean) ** 2).sum(axis=0)
        std = np.sqrt(scatter / counts.sum())
        return mean, np.where(std > 1e-9 * np.abs(mean), std, 1.0)

    def without_empty(self) -> FeatureCollection:
        """Without bags that have no instance, and with a note that names the slides that have none."""
        bare = [self.slides[s] for s in np.flatnonzero(self.counts == 0).tolist()]
        if not bare:
            return self
        kept = np.flatnonzero(self.bags.sizes > 0)
        new = np.full(len(self.bags), -1, np.int64)
        new[kept] = np.arange(len(kept))
        bags = dataclasses.replace(
            self.bags, offsets=np.concatenate([self.bags.offsets[:1], self.bags.offsets[1:][kept]]),
            label=self.bags.label[kept], true_label=self.bags.true_label[kept], number=np.arange(len(kept)),
        )  # fmt: skip
        note = f"left out (data.skip_empty): {counted(len(bare), 'slide')} without vectors: {listed(bare, 5)}"
        return dataclasses.replace(
            self, bags=bags, names=tuple(self.names[b] for b in kept.tolist()), group=self.group[kept],
            fold=None if self.fold is None else self.fold[..., kept],
            part=None if self.part is None else self.part[..., kept], bag_of_slide=new[self.bag_of_slide],
            notes=(*self.notes, note),
        )  # fmt: skip
