"""What bags are read for, on which depends what is asked of their table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Purpose:
    """given_split: the splits that come with the bags are used, and so must be such that can be trained by;
    both_classes: bags of both are needed."""

    given_split: bool = True
    both_classes: bool = True


TRAINING = Purpose()
MADE_FOLDS = Purpose(given_split=False)
"""Training on folds that are made, whatever comes with the bags."""
EVALUATION = Purpose(given_split=False, both_classes=False)
"""Nothing is trained: all bags are evaluated, and each metric says what it lacks."""
