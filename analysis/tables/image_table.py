"""How well instances are found in the test images, with intervals over images: the table behind `tables --intervals
images`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.cells.bag_groups import group_sentences
from analysis.cells.bootstrap_intervals import OF_IMAGES, resamples_sentences, too_few_sentences
from analysis.cells.image_intervals import RESAMPLES, ImageIntervals, image_intervals
from analysis.cells.labels_used import labels_used_sentences
from analysis.cells.layout import Label, Layout
from analysis.rows.csv_text import to_csv
from analysis.statistics.cluster_bootstrap import FEW_CLUSTERS
from analysis.tables.caption import metric_meanings, no_interval_sentences, what_of_metrics
from analysis.tables.formatted import FormattedTable
from analysis.tables.number_style import BOTH_BOUNDS
from analysis.tables.sheet import EMPTY, Caption, Entry, Line, Panel, Sheet
from analysis.tables.study_sheet import grouped_by_stage
from d2l_study.errors import counted, listed
from d2l_study.study.ledger.ledger import trial_id

if TYPE_CHECKING:
    import pandas


@dataclass
class ImageTable(FormattedTable):
    """Configurations against metrics of instances, with intervals over images; shows itself in a notebook."""

    layout: Layout
    found: list[ImageIntervals]
    left_out: list[str]
    """The repeats that lack a fold."""

    def sheet(self) -> Sheet:
        """Groups of rows by stage, and a caption; pooled metrics and those by image in panels of their own."""
        panels = []
        for panel in self.layout.panels:
            names = [metric.name for metric in self.layout.metrics]
            by_image = [name for name in names if "within" in name.split("_") or name.endswith("_froc")]
            pooled = [name for name in names if name not in by_image]
            for head, shown in (("all test instances", pooled), ("by image", by_image)):
                if shown and self._of(panel):
                    panels.append(self._panel(panel, head, shown))
        study = self.layout.study
        return Sheet(f"{study}: instances, with intervals over images", f"{study}-images", panels, self._caption())

    def _of(self, panel: Label) -> dict[Label, ImageIntervals]:
        return {one.row: one for one in self.found if one.panel == panel}

    def _panel(self, panel: Label, head: str, names: Sequence[str]) -> Panel:
        mine = self._of(panel)
        titles = {metric.name: metric.title for metric in self.layout.metrics}
        columns = [titles[name].removeprefix("instance ").replace(" within images", "") for name in names]
        groups = grouped_by_stage(list(mine), lambda row: Line(row, [_entry(mine[row], name) for name in names]))
        return Panel(", ".join(filter(None, (panel.text, head))), list(columns), groups)

    def _caption(self) -> Caption:
        images = sorted({one.groups.text("image") for one in self.found})
        tested = sorted({one.tested for one in self.found})
        folds = any(one.cell.partition.fold_count is not None for one in self.found)
        unit = "repeat" if folds else "replicate"
        cells = (
            f"Value on the test instances ({what_of_metrics(self.layout.metrics)}) [95 % interval over "
            f"{listed(images)}]."
        )
        beside = [
            "The intervals are about other images, not about other trainings; too narrow below about "
            f"{FEW_CLUSTERS} {'groups' if any(one.groups.named for one in self.found) else 'images'}.",
            *too_few_sentences((one.groups.count for one in self.found), OF_IMAGES),
            *group_sentences((one.groups for one in self.found), "image"),
            *resamples_sentences([drawn for one in self.found for drawn in one.drawn.values()]),
        ]
        own = [one.fewest for one in self.found if one.fewest < len(one.groups.group)]
        if own and min(own) < FEW_CLUSTERS:
            few = counted(min(own), "image")
            beside.append(f"A {unit} tests as few as {few} of these: such intervals are too narrow, and of metrics "
                          "over all instances too high.")  # fmt: skip
        beside += no_interval_sentences(i for one in self.found for i in one.by_metric.values())
        if self.left_out:
            beside.append(f"Left out: {listed(self.left_out, 6)}.")
        details = [f"Interval: percentiles of {RESAMPLES} bootstrap samples of whole images."]
        if folds:
            details.append("The test parts of all folds of a repeat are taken together; models of different folds "
                             "need not agree in scale, which metrics over all instances pay for.")  # fmt: skip
        if tested != [1]:
            details.append(f"Means over {listed(tested)} {unit}s, for which the same images are drawn.")
        details += metric_meanings([metric.name for metric in self.layout.metrics])
        return Caption(cells, beside + labels_used_sentences(self.layout), details)

    def frame(self) -> pandas.DataFrame:
        """One row per configuration and metric, numbers unrounded."""
        import pandas as pd

        rows: list[dict[str, Any]] = []
        for one in self.found:
            keys = {label.key: label.value for label in (one.panel, one.row) if label.key is not None}
            keys |= dict(one.row.keys)
            for name, interval in one.by_metric.items():
                rows.append({
                    "study": self.layout.study, "metric": name, **keys, "row": one.row.text,
                    "trial_id": trial_id(one.cell.origin.config_id), "stage": one.cell.origin.stage,
                    "config_id": one.cell.origin.config_id, "value": interval.mean,
                    "lower": interval.lower, "upper": interval.upper, "interval": interval.kind,
                    "images": len(one.groups.group), "groups": one.groups.count if one.groups.known else None,
                    "instances": one.instances, "tested": one.tested,
                })  # fmt: skip
        return pd.DataFrame(rows)

    def csv(self) -> str:
        """`frame` as CSV."""
        return to_csv(self.frame())


def image_table(rows: pandas.DataFrame, metric: str | Sequence[str] | None = None) -> ImageTable:
    """The table of a study's rows (`analysis.load`). metric: of `WEIGHTED_METRICS`, by default all that there are.
    UserError as of `image_intervals`."""
    return ImageTable(*image_intervals(rows, [metric] if isinstance(metric, str) else metric))


def _entry(one: ImageIntervals, name: str) -> Entry:
    interval = one.by_metric.get(name)
    if interval is None:
        return EMPTY
    return Entry(BOTH_BOUNDS.mean(interval), BOTH_BOUNDS.interval_text(interval), value=interval.mean)
