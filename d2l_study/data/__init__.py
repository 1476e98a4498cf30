"""Bags and where they come from: arrays, no training.

`DATASETS` maps a data set's name (`data.dataset` in a space) to the configuration of its bags.
"""

from collections.abc import Mapping
from typing import Any

from d2l_study.data.breast import BreastBags
from d2l_study.data.collection import BagCollection
from d2l_study.data.colon import ColonBags
from d2l_study.data.colon_synthetic import SyntheticColonBags
from d2l_study.data.features.bags import MADE, FeatureBags
from d2l_study.data.features.collection import FeatureCollection
from d2l_study.data.features.embedded import EMBEDDED
from d2l_study.data.manifest import ManifestBags
from d2l_study.data.mnist_bags import MnistBags
from d2l_study.data.pool import Bags, Pool, Replicate
from d2l_study.data.streams import Streams
from d2l_study.errors import listed

DATASETS: dict[str, Any] = {
    "mnist": MnistBags,
    "colon": ColonBags,
    "breast": BreastBags,
    "colon_synthetic": SyntheticColonBags,
    "manifest": ManifestBags,
    "features": FeatureBags,
}


def holds_vectors(dataset: str | None) -> bool:
    """Whether the instances of a data set, by its name, are vectors: then there is no picture of them."""
    return isinstance(found := DATASETS.get(dataset or ""), type) and issubclass(found, FeatureBags)


def instance_classes(data: Mapping[str, Any]) -> tuple[str, str]:
    """What the positive and the negative instances of a data set are called, for pictures. data: the section `data` of
    a configuration; the classes that it names come before the words of the kind of data set."""
    positive, negative = getattr(DATASETS.get(data.get("dataset", "")), "INSTANCE_CLASSES", ("positive", "negative"))
    named = [name.strip() for name in str(data.get("positive_classes") or data.get("positive") or "").split(",")]
    return listed(filter(None, named), 2) or positive, negative


PATH_KEYS = frozenset(key for cls in DATASETS.values() for key in (*getattr(cls, "PATH_KEYS", ()), "root"))
"""The keys of data sections that name files or folders."""

WORDS_FOR_PATHS: dict[str, tuple[str, ...]] = {"path": tuple(EMBEDDED), "splits": (MADE,)}
"""Values of such keys that are words, not paths."""

__all__ = [
    "DATASETS", "PATH_KEYS", "WORDS_FOR_PATHS", "BagCollection", "Bags", "BreastBags", "ColonBags", "FeatureBags",
    "FeatureCollection", "ManifestBags", "MnistBags", "Pool", "Replicate", "Streams", "SyntheticColonBags",
    "holds_vectors", "instance_classes",
]  # fmt: skip
