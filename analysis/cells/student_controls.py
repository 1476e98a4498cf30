"""What a student is compared with: its teacher, and the reference rows that are controls of it."""

from __future__ import annotations

from analysis.cells.best import TASK_KEYS
from analysis.cells.layout import Cell, CellKey, Layout, study_of
from analysis.rows.metrics import level_of
from analysis.rows.stages import NO_TEACHER, POOLED, SMOOTHED, STUDENT


class StudentControls:
    """Finds the cells of a layout that stand on the right of a student's differences; None where there is none.

    A configuration that two arms share is the same runs in both.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._by_config = {
            (cell.origin.config_id, cell.metric.name, study_of(cell_key)): cell
            for cell_key, cell in layout.cells.items()
        }
        self._keys = {id(cell): cell_key for cell_key, cell in layout.cells.items()}

    def key_of(self, cell: Cell) -> CellKey:
        """Where a cell stands."""
        return self._keys[id(cell)]

    def teacher(self, cell: Cell) -> Cell | None:
        """The teacher that it learned from, of an ensemble the first."""
        origin = cell.origin
        if origin.stage != STUDENT or origin.teacher_id is None:
            return None
        return self._cell_of(_first_teacher(cell), cell)

    def control(self, stage: str, cell: Cell) -> Cell | None:
        """Its control of a stage of `learning.controls.OWN_REFERENCES`, as its rows name it."""
        config = cell.origin.control_ids.get(stage) if cell.origin.stage == STUDENT else None
        return None if config is None else self._cell_of(config, cell)

    def _cell_of(self, config: str, cell: Cell) -> Cell | None:
        """A configuration's cell of the metric and the study of another one."""
        return self._by_config.get((config, cell.metric.name, study_of(self.key_of(cell))))

    def smoothed(self, cell: Cell) -> Cell | None:
        """Its teacher with scores averaged over neighbours, of which bags know nothing; None if there are
        several, and its rows name none, as those of version 0.1."""
        if repeats_teacher(SMOOTHED, cell.metric.name):
            return None
        return self.control(SMOOTHED, cell) or self._teacher_as(SMOOTHED, cell)

    def pooled(self, cell: Cell) -> Cell | None:
        """Its teacher with bags read by their highest instance; instances know nothing of it."""
        return self._teacher_as(POOLED, cell)

    def _teacher_as(self, stage: str, cell: Cell) -> Cell | None:
        if cell.origin.stage != STUDENT or repeats_teacher(stage, cell.metric.name):
            return None
        found = self._beside(cell, stage)
        return self._only([one for one in found if _first_teacher(one) == _first_teacher(cell)])

    def no_teacher(self, cell: Cell) -> Cell | None:
        """The student that never had a teacher, of the same task; None if there are several, and its rows name
        none."""
        if cell.origin.stage != STUDENT:
            return None
        return self.control(NO_TEACHER, cell) or self._only(self._beside(cell, NO_TEACHER))

    def _beside(self, cell: Cell, stage: str) -> list[Cell]:
        """The cells of a stage, of the same metric, task and test bags."""
        mine = self.key_of(cell)
        across = next((i for i, label in enumerate(mine) if label.key == "method"), None)
        if across is None:
            return []
        ours = {key: value for key, value in mine[across].keys if key in TASK_KEYS}
        found = []
        for key, other in self.layout.cells.items():
            same = all(key[i] == mine[i] for i in range(3) if i != across)
            same = same and not cell.source.differences(other.source)
            if other.origin.stage == stage and same and key[across].study == mine[across].study:
                theirs = dict(key[across].keys)
                if all(theirs.get(name, value) == value for name, value in ours.items()):
                    found.append(other)
        return found

    @staticmethod
    def _only(found: list[Cell]) -> Cell | None:
        return found[0] if len(found) == 1 else None


def _first_teacher(cell: Cell) -> str:
    """The id of the teacher that a student is compared with, and that reference rows read: the first of an ensemble,
    and before those of parts."""
    return (cell.origin.teacher_id or "").split(",")[0]


def repeats_teacher(stage: str, metric: str) -> bool:
    """Whether a reference row has the very scores of its teacher, so that a comparison with it says nothing new."""
    return (stage, level_of(metric)) in ((POOLED, "instance"), (SMOOTHED, "bag"))
