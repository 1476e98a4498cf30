"""The stored predictions behind the cells of a table, for figures that need more than a metric of each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.cells.arrange import arrange
from analysis.cells.layout import METRICS as METRIC_COLUMNS
from analysis.cells.layout import Cell, Label, Layout, default_columns, default_panel
from analysis.rows.results import folders_of, run_predictions
from analysis.statistics.intervals import Interval, mean_difference
from analysis.statistics.scores import Scores
from d2l_study.errors import DamagedError, UserError, listed

if TYPE_CHECKING:
    import pandas

    from d2l_study.study.ledger.study_folder import StudyFolder

MOST_CELLS = 60
"""Cells beyond which a figure of curves is none; each reads the predictions of all its replicates."""


@dataclass(frozen=True)
class Scored:
    """A cell with the scores of its finished replicates."""

    panel: Label
    row: Label
    column: Label
    cell: Cell
    test: Mapping[int, Scores]
    validation: Mapping[int, Scores]
    """Of the validation bags, with their labels as training saw them (label noise included), the only ones that may set
    a temperature or a threshold; empty where none is kept."""


def scored_cells(rows: pandas.DataFrame, level: str, kind: str) -> tuple[Layout, list[Scored]]:
    """The layout of a study's rows and its cells with their predictions; cells whose runs have none of this level are
    left out. kind: of the figure, for messages.

    UserError if the rows came without a study's folder, there are too many cells, or no run kept predictions.
    """
    folders = folders_of(rows)
    columns = default_columns(rows)
    panel = default_panel(rows)
    metric = f"{level}_auc"
    if metric not in rows or rows[metric].isna().all():
        raise UserError(
            f"--kind {kind}: no finished run has scores of the level {level} in study {rows.attrs.get('study')!r}"
        )
    layout = arrange(rows, [metric] if columns == METRIC_COLUMNS else metric, "method", columns, panel)
    there = {place: cell for place, cell in layout.cells.items() if cell.values or cell.status == "undefined"}
    if len(there) > MOST_CELLS:
        raise UserError(
            f"--kind {kind}: {len(there)} configurations are too many to be told apart (at most {MOST_CELLS}); "
            "choose some with --where KEY=VALUE"
        )
    owner = _owners(rows)
    found = []
    for (panel_label, row, column), cell in there.items():
        test: dict[int, Scores] = {}
        validation: dict[int, Scores] = {}
        done = rows[(rows["config_id"] == cell.origin.config_id) & (rows["status"] == "done")]
        noisy = "label_noise" in done and bool((done["label_noise"] > 0).any())
        for replicate in sorted(set(done["replicate"].astype(int))):
            parts = _of_run(folders[owner[cell.origin.config_id]], cell.origin.config_id, replicate, noisy)
            if parts is None:
                continue
            if len(parts["test", level][0]):
                test[replicate] = parts["test", level]
            if len(parts["val", "bag"][0]):
                validation[replicate] = parts["val", "bag"]
        if test:
            found.append(Scored(panel_label, row, column, cell, test, validation))
    if not found:
        raise UserError(
            f"--kind {kind}: no finished run of study {layout.study!r} kept predictions of the level {level}"
        )
    return layout, found


def _owners(rows: pandas.DataFrame) -> dict[str, str]:
    return dict(zip(rows["config_id"].astype(str), rows["study"].astype(str), strict=True))


def _of_run(folder: StudyFolder, config: str, replicate: int, noisy: bool) -> dict[tuple[str, str], Scores] | None:
    """(split, level) -> scores of a run; None if it kept no predictions. noisy: its labels were, so that an earlier
    version's file, which has the true ones only, has none of validation to fit anything to."""
    try:
        frame = run_predictions(folder, config, replicate)
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


def left_out(layout: Layout, found: Sequence[Scored], besides: int = 0) -> str:
    """For the note of a figure: how many finished cells it cannot show, since their runs kept no predictions.
    besides: cells that are left out for another reason."""
    there = sum(bool(cell.values) for cell in layout.cells.values()) - besides
    lost = there - sum(bool(one.cell.values) for one in found)
    return f"; without {lost} configuration{'s' if lost > 1 else ''} that kept no predictions" if lost > 0 else ""


def band(curves: np.ndarray, ratio: float | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and pointwise 95 % t interval (for folds: corrected), within [0, 1], of curves (units, points); below
    two of them the bounds are NaN, as where a point has too few values."""
    found: list[Interval] = [mean_difference(curves[:, i], test_train_ratio=ratio) for i in range(curves.shape[1])]
    mean, lower, upper = (np.array([getattr(i, name) for i in found]) for name in ("mean", "lower", "upper"))
    return mean, np.clip(lower, 0, 1), np.clip(upper, 0, 1)


def panels_of(layout: Layout, found: Sequence[Scored]) -> list[tuple[str, list[Scored]]]:
    """The cells by panel and column, with the title that says both; in the order of the layout."""
    order = {row: i for i, row in enumerate(layout.rows)}
    groups: dict[tuple[Label, Label], list[Scored]] = {}
    for panel in layout.panels:
        for column in layout.columns:
            mine = [one for one in found if one.panel == panel and one.column == column]
            if mine:
                groups[panel, column] = sorted(mine, key=lambda one: order[one.row])
    named = {}
    for (panel, column), mine in groups.items():
        heads = [panel.text, "" if layout.column_key == METRIC_COLUMNS else column.text]
        named[", ".join(filter(None, heads)) or listed(layout.datasets)] = mine
    return list(named.items())
