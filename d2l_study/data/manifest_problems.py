"""What is wrong with a manifest, collected so that it can be mended in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from d2l_study.errors import UserError

MOST_PROBLEMS = 20
"""Problems shown of one manifest; the others are counted."""

_LONGEST = 800
"""Letters of a problem that are shown."""


@dataclass(frozen=True)
class FileRows:
    """Where a table names its files. column: as messages call it; row_of: file -> the first row that names it."""

    column: str
    row_of: Mapping[Path, int]


@dataclass
class Problems:
    """What is wrong with a manifest. `count` is of all, `found` holds the first ones of each kind, with the row that
    they are shown in the order of. rows: where the files that a table names stand in it, if they do."""

    file: Path
    rows: FileRows | None = field(default=None, kw_only=True)
    found: list[tuple[int, str]] = field(default_factory=list)
    count: int = 0

    def add(self, place: str, what: str, row: int = 0) -> None:
        self.add_text(f"{place}: {what}", row)

    def add_text(self, text: str, row: int = 0) -> None:
        self.count += 1
        if len(text) > _LONGEST:  # a value may be of any length
            text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 4 :]}"
        self.found.append((row, text))

    def add_file(self, path: Path, what: str) -> None:
        """What is wrong with a file that the table names, with its row."""
        row = self.rows.row_of.get(path, 0) if self.rows is not None else 0
        place = f"row {row}, column {self.rows.column}: " if self.rows is not None and row else ""
        self.add(f"{place}{path.name}", what, row)

    def add_rows(self, number: np.ndarray, rows: np.ndarray, tell: Callable[[int], tuple[str, str]]) -> None:
        """One for each of the rows (indices, rising); number: (n,) of all rows in the file; tell: a row's index ->
        column or "", and what is wrong."""
        for i in rows[:MOST_PROBLEMS].tolist():
            column, what = tell(i)
            place = f"row {number[i]}" + (f", column {column}" if column else "")
            self.add(place, what, int(number[i]))
        self.count += max(0, len(rows) - MOST_PROBLEMS)

    def add_values(
        self, number: np.ndarray, codes: np.ndarray, wrong: Iterable[int], tell: Callable[[int], tuple[str, str]]
    ) -> None:
        """One for each of the wrong values (codes), at the first row that has it."""
        wrong = list(wrong)
        if not wrong:
            return
        rows = np.bincount(codes, minlength=max(wrong) + 1)
        for code in wrong[:MOST_PROBLEMS]:
            if not rows[code]:
                continue
            at = int(number[np.argmax(codes == code)])
            column, what = tell(code)
            more = f" (and so in {rows[code] - 1:,} more rows)" if rows[code] > 1 else ""
            self.add(f"row {at}, column {column}", what + more, at)
        self.count += max(0, len(wrong) - MOST_PROBLEMS)

    def stop_if_any(self) -> None:
        """`UserError` with the first of them, each on a line of its own if there are several."""
        if not self.found:
            return
        if self.count == 1:
            raise UserError(f"{self.file}: {self.found[0][1]}")
        shown = [text for _, text in sorted(self.found, key=lambda entry: entry[0])][:MOST_PROBLEMS]
        more = self.count - len(shown)
        lines = [f"{self.file}: {self.count:,} problems", *shown, *([f"… and {more:,} more"] if more else [])]
        raise UserError("\n  ".join(lines))
