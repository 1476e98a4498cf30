"""What a bootstrap of images gives a table: its interval, and what a reader has to know of how few images there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from analysis.statistics.cluster_bootstrap import FEW_CLUSTERS, LEAST_CLUSTERS, ClusterBootstrap
from analysis.statistics.intervals import Interval, Kind, without_void_bounds

OF_IMAGES = "images or groups of images"


def bootstrap_interval(found: ClusterBootstrap, length: float) -> Interval:
    """The interval of a value or a difference, without bounds that would say nothing; `count` is that of the clusters.

    length: of the range of what it is of (`without_void_bounds`)
    """
    kind: Kind = "image bootstrap"
    if found.clusters < LEAST_CLUSTERS:
        kind = "none"
    elif found.seldom_defined:
        kind = "seldom defined"
    return without_void_bounds(Interval(found.difference, found.lower, found.upper, found.clusters, kind), length)


def few_clusters_sentences(counts: Iterable[int], noun: str) -> list[str]:
    """What the few clusters of some tests do not allow; none or more sentences. noun: what the clusters are."""
    found = set(counts)
    sentences = too_few_sentences(found, noun)
    if any(LEAST_CLUSTERS <= count < FEW_CLUSTERS for count in found):
        sentences.append(f"Fewer than {FEW_CLUSTERS} {noun}: intervals are too narrow, and p-values too small.")
    return sentences


def too_few_sentences(counts: Iterable[int], noun: str) -> list[str]:
    """That some are without interval and test, since they are of too few clusters; none or one."""
    few = any(count < LEAST_CLUSTERS for count in counts)
    return [f"Of fewer than {LEAST_CLUSTERS} {noun} there is no interval and no test."] if few else []


def resamples_sentences(drawn: Sequence[ClusterBootstrap]) -> list[str]:
    """How many bootstrap samples count, where some do not; where there are too few images none do."""
    some = [one for one in drawn if one.clusters >= LEAST_CLUSTERS and one.resamples < one.drawn]
    if not some:
        return []
    least = min(some, key=lambda one: one.resamples)
    untested = " Where fewer than half do, nothing is tested." if least.seldom_defined else ""
    return [
        f"Bootstrap samples in which a value is not defined are left out: at least {least.resamples:,} of "
        f"{least.drawn:,} count.{untested}"
    ]
