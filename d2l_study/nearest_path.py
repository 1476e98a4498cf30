"""What a message adds where a path is not there: the name beside it that is probably meant."""

from __future__ import annotations

from pathlib import Path

from d2l_study.errors import hint_text, nearest_name


def path_hint(path: Path, alike: float = 0.7) -> str:
    """`"; did you mean 't.csv'?"`; of a folder on the way that is misspelt, the whole path to the one that is meant.

    Empty if the path is there, or no name is alike enough. alike: the least likeness, from 0 to 1.
    """
    try:
        if path.exists():
            return ""
        missing = path
        while not (parent := missing.parent).exists():
            if parent == missing:
                return ""
            missing = parent
        found = nearest_name(missing.name, sorted(one.name for one in parent.iterdir()), alike)
    except OSError:
        return ""
    if found is None:
        return ""
    return hint_text(missing.name, found) if missing == path else hint_text(missing, str(parent / found))


def missing_folder_text(what: str, written: object, path: Path) -> str:
    """The message on a path that has to be a folder. what: the key or option that it was given for; written: as it was
    given."""
    found = "a file, not a folder" if path.is_file() else f"not a folder{path_hint(path)}"
    return f"{what}: {str(written)!r} is {found}"
