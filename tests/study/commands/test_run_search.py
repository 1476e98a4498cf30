"""A search with real Ray whose trials are ended early. Those that are killed are in `tests/soak`."""

import pytest
from empty_store import copied_store
from few_digits import digits
from test_run import children, run, run_here

import analysis
from d2l_study.study.ledger.search_document import read_document
from d2l_study.study.ledger.studies import find_study

pytestmark = pytest.mark.ray

SPACE = """
description: a search of a few seconds
data: {{num_bags: 12, mean_bag_size: 3, test_bags: 50, root: {digits}, verify: false}}
teacher: {{steps: 36, eval_every: 4, feature_width: 16, attention_width: 8}}
methods:
  vat: {{teacher: {{lambda_adv: {{low: 0.1, high: 3}}, learning_rate: {{low: 1e-6, high: 1e-2, log: true}}}}}}
replicates: 2
base_seed: 3
search: {{method: tpe, trials: 8, startup: 4}}
schedule: asha
resources: {{checkpoint_every: 4}}
"""


def searched(folder):
    return read_document(find_study("few", str(folder / "runs")))


def test_a_search_ends_trials_early_and_reports_the_best(tmp_path, tmp_path_factory):
    (tmp_path / "few.yaml").write_text(SPACE.format(digits=digits()))
    (tmp_path / "runs").mkdir()
    copied_store(tmp_path / "runs", tmp_path_factory)
    out = run(tmp_path, "--max-concurrent", 1)  # which trials are ended depends on the order of reports
    document = searched(tmp_path)
    states = [trial["state"] for trial in document["trials"]]
    assert len(states) == 8 and set(states) == {"complete", "pruned"}
    rows = analysis.load("few", tmp_path / "runs").set_index("config_id")
    for trial in document["trials"]:
        wanted = "done" if trial["state"] == "complete" else "pruned"
        assert set(rows.loc[trial["config_id"], "status"]) == {wanted}
    complete = [t for t in document["trials"] if t["state"] == "complete"]
    best = max(complete, key=lambda t: t["values"][0])
    assert best["trial_id"] in out and f"{len(complete)} complete, {8 - len(complete)} ended early" in out
    mine, runs = children(tmp_path, "few")
    assert len(mine) == 8 and "RUNNING" not in {r.info.status for r in runs}
    again = run_here(tmp_path)  # nothing is left: the same trials, the same words
    assert searched(tmp_path) == document and "8 trials told, 0 to go on with, 0 to ask" in again
