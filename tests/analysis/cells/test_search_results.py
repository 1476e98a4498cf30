"""The best trials of a search, ties included."""

from analysis.cells.search_results import tied_trials


def test_trials_that_tie_are_all_named_once():
    trials = [{"number": i, "config_id": c, "state": "complete", "values": [v]}
              for i, (c, v) in enumerate([("a", 0.9), ("b", 0.9), ("a", 0.9), ("c", 0.8)])]  # fmt: skip
    assert [t["config_id"] for t in tied_trials(trials, ["max"])] == ["a", "b"]
    assert [t["config_id"] for t in tied_trials(trials, ["min"])] == ["c"]
    assert tied_trials([], ["max"]) == []
