"""Columns of a manifest that are not read, but look as if they named what belongs together: a patient under a name that
`manifest_columns` does not know would be both trained and tested on, and nothing else would say so."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from d2l_study.errors import listed

_MOST_COLUMNS = 50
_MOST_BAGS = 100_000
"""A column is looked at in so many bags."""

_FEWEST = 3
"""Values that a column has at least: fewer cannot be put into training, validation and test."""


class Ignored:
    """The values of ignored columns by bag, as long as each bag has one."""

    def __init__(self, columns: Iterable[str]) -> None:
        self.values: dict[str, dict[str, str]] = {name: {} for name in list(columns)[:_MOST_COLUMNS]}

    def add(self, column: str, bags: Sequence[str], values: Sequence[str]) -> None:
        """Values of rows, with the rows' bags; a column that has two values in one bag is dropped."""
        known = self.values.get(column)
        if known is None:
            return
        for bag, value in zip(bags, values, strict=True):
            if not value or (len(known) >= _MOST_BAGS and bag not in known):
                continue
            if known.setdefault(bag, value) != value:
                del self.values[column]
                return

    def notes(self) -> tuple[str, ...]:
        """What is said of the columns whose value is the same for several bags."""
        found = [name for name, of in self.values.items() if _FEWEST <= len(set(of.values())) < len(of)]
        if not found:
            return ()
        one = len(found) == 1
        return (
            f"column{'' if one else 's'} {listed(found)} {'is' if one else 'are each'} the same for several bags: if "
            f"{'it' if one else 'one'} names patients, call it group",
        )
