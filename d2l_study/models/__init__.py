"""Feature extractors, pooling and bag classifiers: pure functions of (parameters, inputs, masks)."""

from d2l_study.models.extractors import Masks, Params
from d2l_study.models.mil import EXTRACTORS, PATCH_EXTRACTORS, VECTOR_EXTRACTORS, MilModel, hidden_width
from d2l_study.models.pooling import POOLINGS, Terms

__all__ = [
    "EXTRACTORS",
    "PATCH_EXTRACTORS",
    "POOLINGS",
    "VECTOR_EXTRACTORS",
    "Masks",
    "MilModel",
    "Params",
    "Terms",
    "hidden_width",
]
