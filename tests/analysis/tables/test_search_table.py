"""Whatever shows the results of a search that looked at true instance labels says so."""

import pytest

import analysis
from analysis.cli import main
from analysis.tables.search_table import search_table
from d2l_study.study.ledger.local_storage import LocalStorage
from d2l_study.study.ledger.study_folder import StudyFolder
from d2l_study.study.plan.plan import Plan
from d2l_study.study.search.search import Search
from d2l_study.study.space.load import load_space

SPACE = """
description: a search
data: {{num_bags: 50}}
teacher: {{learning_rate: {{low: 1e-4, high: 1e-2, log: true}}}}
methods:
  none: {{}}
  vat: {{teacher: {{lambda_adv: {{low: 0.1, high: 3}}}}}}
search: {{method: tpe, trials: 3, {looks}}}
replicates: 3
"""


def made(root, looks):
    (root / "s.yaml").write_text(SPACE.format(looks=looks))
    space, folder = load_space(root / "s.yaml"), StudyFolder(LocalStorage(root / "runs"), "s")
    search = Search(space, folder, "sum")
    while search.left:
        trial = search.ask()
        for r, shift in enumerate((-0.01, 0.02, 0.0)):
            value = 0.8 + 0.01 * trial.number + shift
            row = {"status": "done", "val_bag_auc": value, "instance_auc": value, "bag_auc": value, "made_by": "s"}
            folder.ledger.commit(trial.config_id, r, row, {})
        search.tell_ended({t.config_id: [0, 1, 2] for t in search.trials})
    folder.write(space.text, {"space": space.to_dict()}, Plan(search.configurations, 3).entries())
    return folder


@pytest.mark.parametrize(
    ("looks", "marked"), [("metric: instance_auc, oracle: true", True), ("metric: val_bag_auc", False)]
)
def test_every_table_says_that_true_labels_were_looked_at(looks, marked, tmp_path):
    folder, root = made(tmp_path, looks), ["--root", str(tmp_path / "runs")]
    rows = analysis.load("s", tmp_path / "runs")
    assert ("ORACLE" in search_table(folder, rows)) == marked
    assert "Values: 0 to 1, higher is better." in " ".join(search_table(folder, rows).split())
    for name in ("t.md", "t.csv", "t.tex", "t.html"):
        assert main(["tables", "s", *root, "--out", str(tmp_path / name)]) == 0
        assert ("oracle" in (tmp_path / name).read_text().lower()) == marked, name
    assert ("search_oracle" in analysis.table(rows).frame()) == marked
    assert ("search_oracle" in analysis.compare(rows, {"method": "none"}, "bag_auc").frame()) == marked
    for name in ("rows.csv", "rows.parquet"):  # and so does what is made of an exported file
        assert main(["export", "s", *root, "--out", str(tmp_path / name)]) == 0
        assert main(["tables", str(tmp_path / name), "--out", str(tmp_path / "again.md")]) == 0
        assert ("oracle" in (tmp_path / "again.md").read_text().lower()) == marked, name
