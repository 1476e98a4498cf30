"""How images and slides are cut for a model: as its own data were, but for what a command is asked for.

cutting = Cutting.of(stored, AskedCut(stride=20))
cut_tiles(slide, cutting.tiles())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from d2l_study.errors import UserError
from d2l_study.inference.model_file import StoredModel
from d2l_study.inference.slide_inputs import patch_resolution
from d2l_study.slides.tiles import LEAST_TISSUE, TileSettings


@dataclass(frozen=True)
class AskedCut:
    """The options of a command that say how images are cut; None: as the model was trained."""

    stride: int | None = None
    mpp: float | None = None
    slide_mpp: float | None = None
    tissue: bool = True


@dataclass(frozen=True)
class Cutting:
    """How images are cut for a model. patch: (h, w); stride: pixels of a patch from one to the next of a grid; mpp: µm
    per pixel of the patches, None: pixels as they are; slide_mpp: that of slides that do not say it; tissue,
    least_tissue: as of `TileSettings`; cut: as it was trained, where its data say so; white_above: as of `PatchBags`.
    """

    patch: tuple[int, int]
    channels: int
    stride: int
    mpp: float | None
    slide_mpp: float | None
    tissue: bool
    least_tissue: float
    cut: str | None
    white_above: float | None

    @classmethod
    def of(cls, stored: StoredModel, asked: AskedCut) -> Self:
        """As the model was trained, but for what is asked. `UserError` for an option that does nothing."""
        channels, height, width = stored.model.patch_shape
        data = stored.card.sections.get("data", {})
        of_slides = data.get("mpp") is not None
        mpp = patch_resolution(stored, asked.mpp)
        tissue = bool(data.get("tissue", False)) if of_slides else True
        if asked.slide_mpp is not None and mpp is None:
            raise UserError("--slide-mpp: does nothing without --mpp, the µm per pixel of the model's patches")
        if not (asked.tissue or tissue):
            raise UserError("--no-tissue: does nothing, this model was trained on all tiles, and scores all")
        least = data.get("least_tissue")
        return cls(
            (height, width), channels, asked.stride or data.get("stride") or min(height, width), mpp, asked.slide_mpp,
            tissue and asked.tissue, LEAST_TISSUE if least is None else least,
            "grid" if data.get("dataset") == "breast" else data.get("cut"), data.get("white_above"),
        )  # fmt: skip

    @property
    def side(self) -> str:
        """Of a patch, in words."""
        return f"{self.patch[1]}×{self.patch[0]}"

    @property
    def overlap(self) -> int:
        """Pixels that a tile of a slide shares with the next; below 0 there are gaps."""
        return self.patch[0] - self.stride

    def tiles(self) -> TileSettings:
        return TileSettings(self.mpp, self.patch[0], self.overlap, self.tissue, self.least_tissue)
