"""What the options of tables and comparisons allow. Little is imported, so that `--help` and wrong options are answered
at once."""

from __future__ import annotations

from d2l_study.errors import UserError, nearest

FORMATS = ("markdown", "csv", "latex", "html", "parquet")
FORMAT_OF_SUFFIX = {".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html", ".parquet": "parquet"}
TESTS = ("paired", "delong", "clusters")
"""Of a comparison (`cells.comparisons`)."""
IMAGES = "images"
INTERVALS = ("replicates", IMAGES)
"""What the intervals of a table are over (`cells.image_intervals`)."""
EXPLAIN = "--explain"
"""The option of commands that prints the details of a table's caption too."""
AUTO = "auto"
"""The axis that the kind of study asks for."""


def check_format(format: str) -> None:
    """`UserError` for a format that is not known."""
    if format not in FORMATS:
        raise UserError(f"format {format!r}: not known{nearest(str(format), FORMATS)} (formats: {', '.join(FORMATS)})")
