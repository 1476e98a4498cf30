"""A table in any of its formats, from its sheet (for readers) and its rows (for programs)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from analysis.tables.html import STYLE, html_fragment, write_html
from analysis.tables.latex import write_latex
from analysis.tables.markdown import write_markdown
from analysis.tables.options import check_format
from analysis.tables.sheet import Sheet
from d2l_study.errors import UserError

if TYPE_CHECKING:
    import pandas


class FormattedTable(ABC):
    """What the tables of a study and its comparisons have in common: text in every format, and themselves as HTML in a
    notebook."""

    @abstractmethod
    def sheet(self) -> Sheet:
        """The table as its reader sees it."""

    @abstractmethod
    def frame(self) -> pandas.DataFrame:
        """The table for programs, numbers unrounded."""

    @abstractmethod
    def csv(self) -> str:
        """`frame` as CSV that ends with a newline."""

    def text(self, format: str = "markdown", *, explain: bool = True) -> str:
        """The table as text that ends with a newline.

        explain: of Markdown; False leaves the details of the caption out, as commands do when they print a table
        UserError for an unknown format, or parquet, which is none.
        """
        check_format(format)
        if format == "csv":
            return self.csv()
        if format == "parquet":
            raise UserError("format 'parquet': is no text; write it with .frame().to_parquet(FILE)")
        if format == "markdown":
            return write_markdown(self.sheet(), explain=explain)
        return {"latex": write_latex, "html": write_html}[format](self.sheet())

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>{html_fragment(self.sheet())}"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What a notebook shows: HTML, or Markdown where it shows text only."""
        return {"text/plain": self.text(), "text/html": self._repr_html_()}
