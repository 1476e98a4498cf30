"""Finding archives of tissue images as users unpack them: some folder above, or in it, in any case of letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path


def entries_by_lower_name(folder: Path) -> dict[str, Path]:
    """The entries of a folder by their name in lower case; of two that differ in case only, the last in order."""
    return {path.name.lower(): path for path in sorted(folder.iterdir())}


def find_folder(root: Path, places: Sequence[str], holds: Callable[[Path], bool]) -> Path | None:
    """The first of the places below a root (`A/B`, or `.` for the root), in any case of letters, that is a folder
    which `holds` what is looked for; None if there is none."""
    for place in places:
        folder: Path | None = root
        for part in place.split("/"):
            if part != "." and folder is not None:
                folder = entries_by_lower_name(folder).get(part.lower()) if folder.is_dir() else None
        if folder is not None and folder.is_dir() and holds(folder):
            return folder
    return None
