"""Keys of a `data` section that say what annotations of slides mean, for images and for features alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from d2l_study.options import option
from d2l_study.slides.annotation_classes import AnnotationClasses

ANNOTATION_KEYS = ("coverage", "positive_classes", "negative_classes")

COVERAGE = 0.5


def coverage_option(where: str) -> Any:
    """The option `coverage`. where: what it acts with, for its documentation; and so below."""
    text = f"share of a patch that is annotated as positive, from which on it is positive ({where})"
    return option(COVERAGE, text, above=0, most=1, neutral=COVERAGE)


def positive_classes_option(where: str) -> Any:
    text = f"classes of annotations that are positive, separated by commas; null: the only one ({where})"
    return option(None, text, neutral=None)


def negative_classes_option(where: str) -> Any:
    text = f"classes that are negative, and all else unknown; null: all that is not positive ({where})"
    return option(None, text, neutral=None)


@dataclass(frozen=True)
class AnnotationKeys:
    """The values of these keys. positive, negative: names of classes."""

    coverage: float = COVERAGE
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    @classmethod
    def of(cls, coverage: float, positive_classes: str | None, negative_classes: str | None) -> Self:
        """With the names of classes as a section has them."""
        return cls(coverage, _names(positive_classes), _names(negative_classes))

    def classes(self, required: bool) -> AnnotationClasses:
        """required: whether a slide must have something positive."""
        return AnnotationClasses(self.positive, self.negative, required=required)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
