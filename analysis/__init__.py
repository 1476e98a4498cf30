"""From the stored results of a study to tables, intervals and figures. Reads results, never trains.

    import analysis
    rows = analysis.load("vat_quick")                            # one row per run, as a DataFrame
    scores = analysis.load_predictions("vat_quick", method="vat", split="test", level="bag")

The commands are in `python -m analysis --help`; behind them stand `tables.render`, `figures.draw` and
`intervals`. Nothing heavy is imported here.
"""

from analysis.results import load, load_predictions

__all__ = ["load", "load_predictions"]
