"""`d2l`, the one command of an installed package: all of `python -m d2l_study` and of `python -m analysis`.

d2l run --space vat_quick      # as python -m d2l_study run
d2l tables vat_quick           # as python -m analysis tables
d2l export --run 3fa92c --to m # a model, as python -m d2l_study export
d2l export vat_quick --out r.csv   # the rows of a study, as python -m analysis export
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from d2l_study import cli
from d2l_study.command_line import D2L, leave

ANALYSIS = {
    "tables": "print a table with intervals, counts and paired differences",
    "compare": "test every method against one of them",
    "figure": "draw a figure of a study",
    "report": "write one HTML file with tables, tests and figures",
    "export": "write the rows of runs as one file",
}
"""The commands that `python -m analysis` answers, with a line each for `d2l --help`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of either command line; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ANALYSIS and not _is_about_a_model(words):
        from analysis import cli as analysis_cli

        return analysis_cli.main(words, D2L)
    return cli.main(words, D2L, ANALYSIS)


def _is_about_a_model(words: Sequence[str]) -> bool:
    """Both command lines have an `export`: that of a model names it by `--run`, that of rows begins with a study."""
    return words[0] == "export" and (len(words) == 1 or words[1].startswith("-"))


def run() -> None:
    """The entry of the installed script: ends the process with the command's exit code."""
    leave(main())
