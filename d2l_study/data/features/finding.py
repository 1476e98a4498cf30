"""Which file of a folder belongs to which slide."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from d2l_study.data.features.opening import ENDINGS, stem_of
from d2l_study.errors import listed
from d2l_study.slides.opening import SLIDE_SUFFIXES

SLIDE_ENDINGS = (*SLIDE_SUFFIXES, ".tif", ".tiff", ".isyntax", ".png", ".jpg", ".jpeg")
"""How names of slides end, which tables may give with or without."""

INDEX = ".index.npz"
"""slideflow's file of places beside a `.pt` file."""

SUBFOLDERS = ("features", "feats", "h5_files", "pt_files", "features_*", "*/features_*")
"""Where feature files usually lie below a folder: torchmil's, CLAM's and TRIDENT's."""

TRUTH_FOLDERS = ("patch_labels", "inst_labels", "instance_labels")
PLACE_FOLDERS = ("coords", "patches")
"""torchmil's, and CLAM's and TRIDENT's from before an encoder has seen the slides."""


@dataclass(frozen=True)
class Folder:
    """The feature files of a folder. names: stem -> names of files; base: where relative paths begin; doubt: why no
    folder was chosen, empty if one was."""

    path: Path
    names: dict[str, list[str]]
    base: Path
    doubt: str = ""

    @classmethod
    def of(cls, path: Path, base: Path) -> Folder:
        found: dict[str, list[str]] = {}
        for entry in sorted(path.iterdir(), key=lambda p: p.name):
            name = entry.name
            if name.lower().endswith(ENDINGS) and not name.endswith(INDEX) and not name.startswith("."):
                found.setdefault(stem_of(name), []).append(name)
        return cls(path, found, base)

    def find(self, text: str) -> tuple[Path | None, str]:
        """The file of the slide that a table calls so, or None with what is wrong."""
        if "\0" in text or "://" in text:
            return None, f"{text!r} is no path of a file here"
        found: list[str] = []
        for stem in dict.fromkeys((text, stem_of(text), _without_slide_ending(text))):
            found = found or self.names.get(stem, [])
        if text in found or len(found) == 1:
            return self.path / (text if text in found else found[0]), ""
        for written in (text, text.replace("\\", "/")):
            for place in (self.path, self.base):
                path = place / written
                if _is_file(path) and not path.name.lower().endswith(SLIDE_ENDINGS):
                    return path, ""
        if found:
            return None, f"{text!r}: {listed(found)} are files of it; leave one, or name it in a column path"
        return None, f"{text!r}: no feature file in {self.path}"


def _is_file(path: Path) -> bool:
    """False, too, for a text that can be no path: a cell of a table may hold anything."""
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _without_slide_ending(text: str) -> str:
    lower = text.lower()
    return next((text[: -len(ending)] for ending in SLIDE_ENDINGS if lower.endswith(ending)), text)


def bare_name(text: str) -> str:
    """A slide's name without the ending of the slide or of its features."""
    bare = _without_slide_ending(text)
    return bare if bare != text else stem_of(text)


def feature_folder(
    base: Path, key: str, naming: str = "as data.root (in a space, or --set data.root=FOLDER)"
) -> Folder:
    """The folder of feature files that is `base`, or lies below it under a usual name; in `doubt` if there is none, or
    several. key: how messages call what named `base`; naming: how they say that one is named."""
    found = [folder for path in _candidates(base) if (folder := Folder.of(path, base)).names]
    by_name = {folder.path.name: folder for folder in found}
    if len(found) == 2 and set(by_name) == {"h5_files", "pt_files"}:  # CLAM writes both; only one has places
        return by_name["h5_files"]
    if len(found) == 1:
        return found[0]
    if found:
        lines = "".join(f"\n  {folder.path} ({len(folder.names):,} files)" for folder in found)
        doubt = f"{key}: several folders of features are in {base}; name one of them {naming}:{lines}"
    else:
        doubt = (
            f"{key}: no feature files in {base} (looked for {listed(f'*{e}' for e in ENDINGS)} there and in "
            f"{listed(SUBFOLDERS)}); name their folder {naming}"
        )
    return Folder(base, {}, base, doubt)


def _candidates(base: Path) -> list[Path]:
    below = [path for pattern in SUBFOLDERS for path in sorted(base.glob(pattern)) if path.is_dir()]
    return [base, *dict.fromkeys(below)]


def parallel_folder(features: Path, names: Iterable[str]) -> Path | None:
    """A folder beside the features, or in them, that has one of these names; None if there is none."""
    for name in names:
        for place in (features.parent / name, features / name):
            if place.is_dir():
                return place
    return None


def parallel_files(folder: Path, files: Sequence[Path]) -> list[Path | None]:
    """Of each feature file the one of the same name in another folder, None where there is none."""
    there = {
        stem_of(path.name).removesuffix("_patches"): path for path in sorted(folder.iterdir())
        if path.name.lower().endswith(ENDINGS)
    }  # fmt: skip
    return [there.get(stem_of(path.name)) for path in files]
