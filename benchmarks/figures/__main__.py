"""The figures of the documentation, drawn from the records of this repository: `make figures`.

    python benchmarks/figures                       # all of them, into docs/figures/
    python benchmarks/figures --out /tmp/figures --only overview.png

Nothing is trained. The same records give the same files, byte for byte, with the versions of `constraints.txt`. A note
below each figure names its record and its counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import gpu_and_cpu
import numpy as np
import overview
import student_gains
import tissue
import vat
from matplotlib.figure import Figure
from picture_bags import SCALE
from PIL import Image

from analysis.figures.files import save_figure

ROOT = Path(__file__).resolve().parents[2]
FIGURES: dict[str, Callable[[], Figure]] = {
    "overview.png": overview.draw,
    "vat.svg": vat.draw,
    "students.svg": student_gains.draw,
    "tissue.png": tissue.draw,
    "gpu_and_cpu.svg": gpu_and_cpu.draw,
}
"""The file of each figure, and what draws it."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/figures", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures", metavar="DIR", help="where they go")
    parser.add_argument("--only", choices=FIGURES, action="append", help="this one; may be repeated")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or FIGURES:
        path = save_figure(FIGURES[name](), arguments.out / name)
        if path.suffix == ".png":
            _reduce(path)
        print(f"wrote {path}")


def _reduce(path: Path) -> None:
    """A picture in 256 colours, a third of the size: white, 64 of scores, and others as the picture asks."""
    with Image.open(path) as image:
        picture = image.convert("RGB")
    found = picture.quantize(191, Image.Quantize.MEDIANCUT, kmeans=1000).getpalette() or []
    scores = (SCALE(np.linspace(0, 1, 64))[:, :3] * 255).round().astype(int).ravel().tolist()
    palette = Image.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *scores, *found[: 3 * 191]])
    reduced = picture.quantize(palette=palette, dither=Image.Dither.NONE)
    white = (np.asarray(picture) == 255).all(axis=2)  # which the search for the nearest colour may miss by a little
    kept = Image.fromarray(np.where(white, 0, np.asarray(reduced)).astype(np.uint8), "P")
    kept.putpalette(palette.getpalette() or [])
    kept.save(path, optimize=True)


if __name__ == "__main__":
    main()
