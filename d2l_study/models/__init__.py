"""Feature extractors, pooling and bag classifiers: pure functions of (parameters, inputs, masks)."""

from d2l_study.models.mil import MilModel
from d2l_study.models.pooling import POOLINGS, Terms

__all__ = ["POOLINGS", "MilModel", "Terms"]
