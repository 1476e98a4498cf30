"""How well instances are found in the test images, with intervals over images: whole images are drawn, with all their
instances (`statistics.cluster_bootstrap`); images of one group (patient) together.

Of folds the test parts of a repeat are taken together, as in `cells.out_of_fold`; of given splits each replicate is by
itself. The value is the mean over repeats or replicates, and the images are drawn for all of them at once. Such an
interval says how much the value would move with other images; the trainings stay as they are.

Where given splits differ, each value is over the few images of its split. An image that is drawn twice is compared with
itself, which is easier than with another, so that resampled metrics over all instances lie too high. Simulated (an AUC
of 0.91, images that shift their scores by a standard deviation, 80 and 120 draws): of 60 splits of 5 images intervals
lay 0.014 too high and held the truth 74 times in 100, of 10 splits of 10 images 0.006 and 85 times.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.bag_groups import BagGroups
from analysis.cells.bootstrap_intervals import bootstrap_interval
from analysis.cells.layout import METRICS, Cell, Label, Layout, default_panel
from analysis.cells.out_of_fold import whole_repeats
from analysis.cells.partitions import DRAWN, partitions_of
from analysis.cells.scored_instances import NEEDS, RunInstances, read_instances, scored_instances, thresholds_of
from analysis.rows.study_folders import RunFolders
from analysis.statistics.cluster_bootstrap import ClusterBootstrap, bootstrap_clusters
from analysis.statistics.intervals import Interval
from analysis.statistics.weighted_metrics import WEIGHTED_METRICS, WeightedMetric, weighted_metric
from d2l_study.errors import UserError, listed, nearest
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS, lacks_instance_labels

if TYPE_CHECKING:
    import pandas

RESAMPLES = 999
MOST_CONFIGURATIONS = 60
"""Beyond which a table is none; each reads the predictions of all its replicates."""
OPTION = "--intervals images"


@dataclass(frozen=True)
class ImageIntervals:
    """One configuration.

    by_metric: the values that are defined, `count` of an interval is the number of groups of images; groups: of the
    images; instances: of known label, of one repeat or replicate; tested: how many of these the values are means over;
    fewest: images of one of these at least, fewer than there are where each has a test part of its own; drawn: what
    came of the bootstrap of each metric.
    """

    panel: Label
    row: Label
    cell: Cell
    by_metric: dict[str, Interval]
    groups: BagGroups
    instances: int
    tested: int
    fewest: int
    drawn: dict[str, ClusterBootstrap]


def image_intervals(
    rows: pandas.DataFrame, metrics: Sequence[str] | None = None, *, resamples: int = RESAMPLES
) -> tuple[Layout, list[ImageIntervals], list[str]]:
    """The layout of the rows, each of its configurations with its intervals, and what was left out, in words.

    The values are of the stored predictions, so that runs of earlier versions have those that need no places.
    rows: of `analysis.load` from study folders; metrics: of `WEIGHTED_METRICS`, by default all that there are.
    UserError for another metric, drawn bags, more than `MOST_CONFIGURATIONS`, or where no run has such a metric.
    """
    folders = RunFolders.of(rows)
    names = _checked_names(metrics)
    known = rows.assign(**{name: math.nan for name in names if name not in rows})
    layout = arrange(known, names, "method", METRICS, default_panel(rows))
    partitions, thresholds = partitions_of(rows), thresholds_of(rows)
    if not partitions:
        raise UserError(f"{OPTION}: the bags of study {layout.study!r} are drawn, so its instances are of no images")
    if len({key[:2] for key in layout.cells}) > MOST_CONFIGURATIONS:
        raise UserError(f"{OPTION}: at most {MOST_CONFIGURATIONS} configurations, found more")
    found: list[ImageIntervals] = []
    notes: list[str] = []
    for panel in layout.panels:
        for row in layout.rows_of(panel):
            cell = next(layout.cells[panel, row, one] for one in layout.columns if (panel, row, one) in layout.cells)
            config = cell.origin.config_id
            done = rows[(rows["config_id"] == config) & (rows["status"] == "done")]
            done = (done if row.study is None else done[done["study"] == row.study]).drop_duplicates("replicate")
            folds = partitions.get(config, DRAWN).fold_count
            if folds is None:
                groups = [[replicate] for replicate in sorted(map(int, done["replicate"]))]
            else:
                whole, lacking = whole_repeats(done, folds)
                notes += [f"{row.text}, {text}" for text in lacking]
                groups = [[int(replicate) for replicate in runs["replicate"]] for runs in whole.values()]
            parts = [
                [read_instances(folders.folder(config, r, row.study), config, r,
                                thresholds.get((config, r, row.study), math.nan), OPTION) for r in group]
                for group in groups
            ]  # fmt: skip
            if any(len(run.bags) for runs in parts for run in runs):
                found.append(_intervals(panel, row, cell, parts, names, resamples))
    found = [one for one in found if one.by_metric]
    if not found:
        if lacks_instance_labels(rows):
            raise UserError(f"{OPTION}: {NO_INSTANCE_LABELS} in the data of study {layout.study!r}")
        if notes:
            raise UserError(f"{OPTION}: no repeat of the folds of study {layout.study!r} is whole ({listed(notes, 3)})")
        needed = listed(dict.fromkeys(NEEDS.get(name, "instances of known label") for name in names))
        raise UserError(f"{OPTION}: no run of study {layout.study!r} has {listed(names)}: it needs {needed}")
    layout.metrics = [one for one in layout.metrics if any(one.name in mine.by_metric for mine in found)]
    return layout, found, notes


def _checked_names(metrics: Sequence[str] | None) -> list[str]:
    for name in metrics or ():
        if name not in WEIGHTED_METRICS:
            known = listed(WEIGHTED_METRICS)
            raise UserError(f"{OPTION}: --metric {name}: is not of images{nearest(name, WEIGHTED_METRICS)} ({known})")
    return list(metrics or WEIGHTED_METRICS)


def _intervals(
    panel: Label, row: Label, cell: Cell, parts: Sequence[Sequence[RunInstances]], names: Sequence[str], resamples: int
) -> ImageIntervals:
    """parts: the runs of each repeat or replicate."""
    bags = np.unique(np.concatenate([run.bags for runs in parts for run in runs]))
    groups = BagGroups.of(bags, [(run.bag, run.group) for runs in parts for run in runs])
    tested = [scored_instances(runs, bags) for runs in parts]
    instances = int(np.sum(tested[0].label >= 0))
    found = {}
    for name in names:
        metrics = [one for one in (weighted_metric(name, scored) for scored in tested) if one is not None]
        if not metrics:
            continue
        drawn = bootstrap_clusters(groups.drawn(_mean(metrics)), None, groups.count, instances, resamples=resamples)
        if not math.isnan(drawn.first):
            found[name] = drawn
    by_metric = {name: bootstrap_interval(drawn, 1.0) for name, drawn in found.items()}
    fewest = min(len(np.unique(np.concatenate([run.bags for run in runs]))) for runs in parts)
    return ImageIntervals(panel, row, cell, by_metric, groups, instances, len(parts), fewest, found)


def _mean(metrics: Sequence[WeightedMetric]) -> WeightedMetric:
    """The mean of those that are defined."""
    if len(metrics) == 1:
        return metrics[0]

    def value(weight: np.ndarray) -> float:
        values = [v for v in (metric(weight) for metric in metrics) if not math.isnan(v)]
        return float(np.mean(values)) if values else math.nan

    return value
