"""Feature extractors, pooling and bag classifiers: pure functions of (parameters, inputs, masks)."""

from d2l_study.models.extractors import Masks, Params
from d2l_study.models.mil import EXTRACTORS, MilModel
from d2l_study.models.pooling import POOLINGS, Terms

__all__ = ["EXTRACTORS", "POOLINGS", "Masks", "MilModel", "Params", "Terms"]
