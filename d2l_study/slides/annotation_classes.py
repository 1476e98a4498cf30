"""Which classes of an annotation are positive, which negative, and of which nothing is known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from d2l_study.errors import UserError, listed, nearest

POSITIVE, NEGATIVE, UNKNOWN = 1, 0, -1
UNCLASSIFIED = "(no class)"
"""What an annotation without a class is called in messages; as a name it stands for them."""
JOINT = ": "
"""Between the parts of a derived class of QuPath, such as `Tumor: Positive`, and between groups of ASAP."""


@dataclass(frozen=True)
class AnnotationClasses:
    """What classes mean, by their names. Upper and lower case are the same; a name that ends in `*` means all that
    begin so; a name means a derived class too, if it is one of its parts (`Tumor` of `Tumor: Positive`).

    positive: none named takes the one class that an annotation has, which should be the same of all slides
    (`other_classes`); negative: none named takes all that is not positive, annotated or not; if some are named, what
    lies in no annotation is unknown; excluded: of these nothing is known; required: whether a slide must have something
    positive, False for one that may have nothing to annotate.
    """

    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ("Ignore*", "Exclude*")
    required: bool = True

    def kinds(self, path: Path, found: Iterable[str]) -> dict[str, int | None]:
        """`POSITIVE`, `NEGATIVE` or `UNKNOWN` for each class that an annotation has, None for one that says nothing.

        found: the classes of shapes, an empty text for those that have none. `UserError` if none is positive, or two
        meanings fit one.
        """
        names = list(dict.fromkeys(found))
        positive = self.positive or self._only(path, names)
        kinds = {name: self._kind(path, name, positive) for name in names}
        if self.required and POSITIVE not in kinds.values():
            wanted = " or ".join(f"'{name}'" for name in positive) or "a positive class"
            shown = [name or UNCLASSIFIED for name in names]
            parts = dict.fromkeys(part for name in names for part in (name, *name.split(JOINT)) if part)
            close = next(filter(None, (nearest(name, parts) for name in positive)), "")
            raise UserError(f"{path}: no annotation of {wanted} (found: {listed(shown) or 'none at all'}){close}")
        return kinds

    def taken(self, path: Path, found: Iterable[str]) -> tuple[str, ...]:
        """The class that is taken for positive as the only one of an annotation; none where classes are named. found,
        `UserError`: as of `kinds`."""
        return () if self.positive else self._only(path, list(dict.fromkeys(found)))

    def _only(self, path: Path, names: list[str]) -> tuple[str, ...]:
        """The one class that can be meant where none is named: of shapes without a class only if no other has one."""
        meant = [name for name in names if not name.endswith("*") and not _any((*self.excluded, *self.negative), name)]
        alike: dict[str, str] = {}
        for name in [name for name in meant if name] or meant:
            alike.setdefault(_bare(name), name)
        meant = list(alike.values())
        if len(meant) > 1:
            raise UserError(f"{path}: {len(meant)} classes ({listed(meant)}); say which are positive")
        return tuple(name or UNCLASSIFIED for name in meant)

    def _kind(self, path: Path, name: str, positive: tuple[str, ...]) -> int | None:
        if _any(self.excluded, name):
            return UNKNOWN
        fits = [kind for kind, names in ((POSITIVE, positive), (NEGATIVE, self.negative)) if _any(names, name)]
        if len(fits) > 1:
            raise UserError(f"{path}: the class '{name or UNCLASSIFIED}' is named as positive and as negative")
        if fits:
            return fits[0]
        # A class with a star is a helper of QuPath (`Region*`); of a shape without a class nobody said what it is.
        return None if not name or name.endswith("*") or self.negative else NEGATIVE


def other_classes(taken: Mapping[Path, Iterable[str]]) -> str:
    """What is wrong where the only class of one annotation is not that of another, in words; "" if nothing is.

    taken: of each file, as of `AnnotationClasses.taken`. One slide may have its tumour drawn, another what is healthy.
    """
    first: dict[str, str] = {}
    for path, names in taken.items():
        for name in names:
            first.setdefault(_bare(name), f"{name} in {path.name}")
    if len(first) < 2:
        return ""
    return f"{len(first)} classes, each alone on its slide ({listed(first.values(), 5)}); say which are positive"


def _bare(name: str) -> str:
    return name.strip().casefold()


def _any(names: Iterable[str], found: str) -> bool:
    """Whether one of the names means the class."""
    parts = [found, *found.split(JOINT)] if found else [UNCLASSIFIED]
    parts = [_bare(part) for part in parts]
    for name in map(_bare, names):
        if name in parts or (name.endswith("*") and any(part.startswith(name[:-1]) for part in parts)):
            return True
    return False
