"""The sizes of figures: for a column, a page or a slide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PANEL_HEIGHT = 2.4
"""Of one panel, in inches on paper; a wide one is higher."""
LOWEST_PANEL, HIGHEST_PANEL, HEIGHT_TO_WIDTH = 1.8, 3.2, 0.5
NARROWEST_PANEL = 1.2


@dataclass(frozen=True)
class Size:
    """Where a figure is to stand: its width in inches on paper, how many panels go beside each other, and by how much
    all of it, letters too, is enlarged. Every figure has exactly this width."""

    name: str
    width: float
    across: int
    scale: float = 1.0
    height: float = 0.0
    """On paper, of sizes that have one: only a figure whose rows need more is higher. 0: as the content asks for."""

    def columns(self, panels: int, most: int = 9) -> int:
        """How many of so many panels stand beside each other, at most `most`."""
        return max(1, min(panels, self.across, most))

    def panel_width(self, panels: int, beside: float = 0.0, most: int = 9) -> float:
        """Inches on paper for one of so many panels; beside: what stands beside all of them."""
        return max(NARROWEST_PANEL, (self.width - beside) / self.columns(panels, most))

    def panel_height(self, width: float, height: float = PANEL_HEIGHT) -> float:
        """Inches on paper for a panel of this width, `height` at least."""
        return max(height, min(HEIGHT_TO_WIDTH * width, HIGHEST_PANEL))

    def set_size_of(self, figure: Any, height: float, least: float | None = None) -> None:
        """Give a figure this size. height, least: in inches on paper, what its content is good with and needs."""
        tall = max(self.height, height if least is None else least) if self.height else height
        figure.set_size_inches(self.width * self.scale, tall * self.scale)


SIZES = {
    "column": Size("column", 3.4, 1),
    "page": Size("page", 7.0, 3),
    "slide": Size("slide", 40 / 3 / 1.6, 4, scale=1.6, height=7.5 / 1.6),  # 13 1/3 × 7.5 inches
}
