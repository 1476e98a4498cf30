"""Bags and where they come from: arrays, no training.

`DATASETS` maps a data set's name (`data.dataset` in a space) to the configuration of its bags.
"""

from d2l_study.data.mnist_bags import MnistBags
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.data.streams import Streams

DATASETS = {"mnist": MnistBags}

__all__ = ["DATASETS", "Bags", "MnistBags", "Pool", "Replicate", "Streams"]
