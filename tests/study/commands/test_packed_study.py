"""A study whose trials hold several configurations: the same as one that is trained by turns, to its users."""

import dataclasses
from functools import partial
from pathlib import Path

import pytest
from empty_store import copied_store
from few_digits import digits
from test_run import children, run, run_here, steps_of

import analysis

pytestmark = pytest.mark.ray

SPACE = """
description: arms that differ in numbers, at two n, one of which diverges
data: {{num_bags: [6, 8], mean_bag_size: 3, test_bags: 50, root: {digits}, verify: false}}
teacher: {{steps: 20, eval_every: 5, feature_width: 16, attention_width: 8}}
methods:
  none: {{}}
  vat: {{teacher: {{lambda_adv: [0.5, 1.0]}}}}
  broken: {{teacher: {{lambda_adv: 1.0, learning_rate: 1.0e+30}}}}
replicates: 2
base_seed: 3
resources: {{checkpoint_every: 5}}
"""
FACTS = ["config_id", "method", "num_bags", "replicate", "status", "cause", "best_step", "steps_run", "attempts"]
AREAS = ["bag_auc", "instance_auc", "val_bag_auc", "bag_nll"]


@dataclasses.dataclass(frozen=True)
class Study:
    folder: Path
    out: str

    @property
    def rows(self):
        return analysis.load("few", self.folder / "runs")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """By turns, and packed in two commands, the first of which is limited. Only the last has Ray."""
    found = []
    for words in ((), ("--set", "resources.pack=8")):
        folder = tmp_path_factory.mktemp("packed" if words else "by-turns")
        (folder / "runs").mkdir()
        copied_store(folder / "runs", tmp_path_factory)
        (folder / "few.yaml").write_text(SPACE.format(digits=digits()))
        if words:
            out = run_here(folder, "--limit", 3, *words)
            assert "16 runs: 0 there already, 6 to run now" in out, out
            counts = analysis.load("few", folder / "runs")["status"].value_counts().to_dict()
            assert counts == {"done": 6, "missing": 10}
        command = partial(run, folder, "--max-concurrent", 1) if words else partial(run_here, folder)
        found.append(Study(folder, command(*words, code=1)))
    return found


def test_a_packed_study_has_the_rows_and_ids_of_one_by_turns(studies):
    alone, packed = studies
    assert packed.rows[FACTS].to_dict("records") == alone.rows[FACTS].to_dict("records")
    for name in AREAS:
        assert packed.rows[name].to_numpy() == pytest.approx(alone.rows[name].to_numpy(), abs=2e-3, nan_ok=True)
    assert packed.rows.groupby("method")["status"].unique().map(list).to_dict() == {
        "none": ["done"], "vat": ["done"], "broken": ["failed"],
    }  # fmt: skip


def test_each_configuration_has_its_own_lines_and_page(studies):
    assert all(f"] {label}: validation AUC" in studies[0].out for label in ("none n=6", "vat n=8 lambda_adv=1"))
    assert all(f"] {label}: validation AUC" in studies[1].out for label in ("vat n=8 lambda_adv=0.5",))
    for study in studies:
        assert study.out.count(": 2 of 2 failed") == 2 and "4 runs failed:" in study.out
        mine, runs = children(study.folder, "few")
        states = {r.info.run_name: r.info.status for r in mine}
        assert len(states) == 8 and len(runs) == 9
        assert {name: state for name, state in states.items() if state == "FAILED"}.keys() == {
            name for name in states if name.startswith("broken")
        }
        for child in mine:
            if child.info.status == "FINISHED":
                for curve in ("curve/val_bag_auc", "curve/val_bag_auc/r000", "curve/bce/r001"):
                    assert steps_of(study.folder, child, curve) == [5, 10, 15, 20], (child.info.run_name, curve)
    pages = [{r.data.tags["d2l.config_id"]: r for r in children(study.folder, "few")[0]} for study in studies]
    for config, page in pages[0].items():
        other = pages[1][config]
        assert page.info.run_name == other.info.run_name and page.data.params == other.data.params
        assert page.data.metrics.keys() == other.data.metrics.keys()
