"""The first sheet of a spreadsheet (.xlsx) as rows of text."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

from d2l_study.errors import UserError, first_line

SPREADSHEETS = (".xlsx", ".xlsm")


def sheet_rows(file: Path) -> Iterator[tuple[int, int, list[str]]]:
    """(number, number, values) of each row of the first sheet, counted from 1; empty cells at its right end are left
    out where the header has none there. Formulas count as the values that were last computed for them. `UserError` for
    a file that cannot be read."""
    from openpyxl import load_workbook

    try:
        book = load_workbook(file, read_only=True, data_only=True)
    except Exception as error:  # openpyxl's own, of zipfile and of XML; AttributeError for charts without a drawing
        raise UserError(f"{file}: cannot be read as a spreadsheet: {first_line(error)}") from None
    width = 0
    try:
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # the size that a file says of itself may be wrong: rows beyond would be left out
        for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
            values = [_text(cell) for cell in cells]
            while len(values) > width and not values[-1]:
                values.pop()
            width = width or len(values)
            yield number, number, values + [""] * (width - len(values))
    except Exception as error:
        raise UserError(f"{file}: cannot be read as a spreadsheet: {first_line(error)}") from None
    finally:
        book.close()


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(int(cell))
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))  # spreadsheets know floats only
    if isinstance(cell, datetime.datetime) and cell.time() == datetime.time():
        return cell.date().isoformat()
    return str(cell)
