"""The cells of a table with the stored scores of their runs, for figures that need more than a metric of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS, Cell, Label, Layout, default_columns, default_panel, panel_title
from analysis.rows.stored_predictions import run_predictions
from analysis.rows.study_folders import RunFolders, RunKey, finished_replicates
from analysis.statistics.scores import Scores
from d2l_study.errors import DamagedError, UserError, counted, listed
from d2l_study.study.ledger.instance_labels import NO_INSTANCE_LABELS, lacks_instance_labels

if TYPE_CHECKING:
    import pandas

MOST_CELLS = 60
"""Cells beyond which a figure of curves is none; each reads the predictions of all its replicates."""


@dataclass(frozen=True)
class ScoredCell:
    """A cell with the scores of its finished replicates."""

    panel: Label
    row: Label
    column: Label
    cell: Cell
    test: Mapping[int, Scores]
    validation: Mapping[int, Scores]
    """Of the validation bags, with their labels as training saw them (label noise included), the only ones that may set
    a temperature or a threshold; empty where none is kept."""


def scored_cells(rows: pandas.DataFrame, level: str, kind: str) -> tuple[Layout, list[ScoredCell]]:
    """The layout of a study's rows and its cells with their predictions; cells whose runs have none of this level are
    left out. kind: of the figure, for messages.

    UserError if the rows came without a study's folder, there are too many cells, or no run kept predictions.
    """
    folders = RunFolders.of(rows)
    columns = default_columns(rows)
    panel = default_panel(rows)
    metric = f"{level}_auc"
    if metric not in rows or rows[metric].isna().all():
        why = f": {NO_INSTANCE_LABELS}" if level == "instance" and lacks_instance_labels(rows) else ""
        study = rows.attrs.get("study")
        raise UserError(f"--kind {kind}: no finished run has scores of the level {level} in study {study!r}{why}")
    layout = arrange(rows, [metric] if columns == METRICS else metric, "method", columns, panel)
    there = {key: cell for key, cell in layout.cells.items() if cell.values or cell.status == "undefined"}
    if len(there) > MOST_CELLS:
        raise UserError(
            f"--kind {kind}: {len(there)} configurations are too many to be told apart (at most {MOST_CELLS}); "
            "choose some with --where KEY=VALUE"
        )
    found = []
    replicates = finished_replicates(rows)
    for (panel_label, row, column), cell in there.items():
        test: dict[int, Scores] = {}
        validation: dict[int, Scores] = {}
        config = cell.origin.config_id
        done = rows[(rows["config_id"] == config) & (rows["status"] == "done")]
        noisy = "label_noise" in done and bool((done["label_noise"] > 0).any())
        for replicate in replicates.get((config, row.study), ()):
            parts = _of_run(folders, (config, replicate, row.study), noisy)
            if parts is None:
                continue
            if len(parts["test", level][0]):
                test[replicate] = parts["test", level]
            if len(parts["val", "bag"][0]):
                validation[replicate] = parts["val", "bag"]
        if test:
            found.append(ScoredCell(panel_label, row, column, cell, test, validation))
    if not found:
        raise UserError(
            f"--kind {kind}: no finished run of study {layout.study!r} kept predictions of the level {level}"
        )
    return layout, found


def _of_run(folders: RunFolders, run: RunKey, noisy: bool) -> dict[tuple[str, str], Scores] | None:
    """(split, level) -> scores of a run; None if it kept no predictions. noisy: its labels were, so that an earlier
    version's file, which has the true ones only, has none of validation to fit anything to."""
    try:
        frame = run_predictions(folders.folder(*run), *run[:2])
    except DamagedError:
        raise  # to leave it out would change a figure without a word
    except UserError:
        return None
    frame = frame[frame["label"].notna() & (frame["label"] >= 0)]
    split, level = frame["split"].to_numpy(str), frame["level"].to_numpy(str)
    label, logit = frame["label"].to_numpy(int), frame["logit"].to_numpy(float)
    finite = np.isfinite(logit)
    found = {}
    for one in ("test", "val"):
        for of in ("bag", "instance"):
            mine = (split == one) & (level == of) & finite
            found[one, of] = label[mine], logit[mine]
    val = (split == "val") & (level == "bag") & finite
    if "seen_label" in frame:
        found["val", "bag"] = frame["seen_label"].to_numpy(float)[val].astype(int), logit[val]
    elif noisy:
        found["val", "bag"] = label[:0], logit[:0]
    return found


def left_out_note(layout: Layout, found: Sequence[ScoredCell], besides: int = 0) -> str:
    """For the note of a figure: how many finished cells, and how many runs of those that it shows, it is without, since
    they kept no predictions. besides: cells that are left out for another reason."""
    there = sum(bool(cell.values) for cell in layout.cells.values()) - besides
    cells = there - sum(bool(one.cell.values) for one in found)
    runs = sum(len(one.cell.values.keys() - one.test.keys()) for one in found)
    shown = sum(len(one.cell.values) for one in found)
    text = f"; without {counted(cells, 'configuration')} that kept no predictions" if cells > 0 else ""
    if runs and text:
        return f"{text}, and {runs} of the other {counted(shown, 'run')}"
    return text or (f"; without {runs} of {counted(shown, 'run')}, which kept no predictions" if runs else "")


def scores_by_panel(layout: Layout, found: Sequence[ScoredCell]) -> list[tuple[str, list[ScoredCell]]]:
    """The cells by panel and column, with the title that says both; in the order of the layout."""
    order = {row: i for i, row in enumerate(layout.rows)}
    titled = {}
    for panel in layout.panels:
        for column in layout.columns:
            mine = [one for one in found if one.panel == panel and one.column == column]
            if mine:
                title = panel_title(panel, column) or listed(layout.datasets)
                titled[title] = sorted(mine, key=lambda one: order[one.row])
    return list(titled.items())
