"""Sets of feature bags that come with the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parent.parent / "mil_benchmarks"

EMBEDDED = {
    "musk1": "UCI Musk (version 1): molecules whose shapes smell of musk, or do not; 92 bags of 166 dimensions "
             "(Dietterich, Lathrop, Lozano-Pérez, Artificial Intelligence 1997; CC BY 4.0)",
}  # fmt: skip
"""Name -> what it is."""


def embedded_file(name: str) -> Path:
    """The file of an embedded set."""
    return FOLDER / f"{name}.npz"
