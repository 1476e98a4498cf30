"""`data.val_bags: 0`: every label trains. Nothing may choose by validation bags, and the same networks come out."""

import numpy as np
import pandas as pd
import pytest
from few_digits import digits
from study_runs import run_here
from whole_root import command

import analysis
from d2l_study import cli
from d2l_study.errors import UserError
from d2l_study.study.space.load import load_space

SPACE = f"""
description: students of teachers without validation bags
data: {{num_bags: 6, val_bags: 0, mean_bag_size: 3, test_bags: 40, root: {digits()}, verify: false}}
teacher: {{steps: 6, eval_every: 3, feature_width: 8, attention_width: 4, select: last}}
student: {{start: teacher, steps: 6, eval_every: 3, feature_width: 8, select: last}}
methods:
  whole: {{}}
  parts: {{student: {{cross_fit: 2}}}}
references: [matched, no_soft_labels, pooled, no_teacher, oracle, bag_label, attention]
replicates: 1
base_seed: 3
"""
ONE = f"""
description: a teacher without validation bags
data: {{num_bags: 6, val_bags: 0, mean_bag_size: 3, test_bags: 40, root: {digits()}, verify: false}}
teacher: {{steps: 6, eval_every: 1, feature_width: 8, attention_width: 4, select: last}}
methods: {{none: {{}}}}
base_seed: 3
"""


def by_method(folder, study):
    """Its rows, without those of part teachers, which see a half of the bags."""
    rows = analysis.load(study, folder / "runs")
    return rows[rows["stage"] != "part_teacher"].set_index("method").sort_index()


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """The folder of two studies, the second with validation bags; what the first said."""
    folder = tmp_path_factory.mktemp("studies")
    (folder / "without.yaml").write_text(SPACE)
    (folder / "with.yaml").write_text(SPACE.replace("val_bags: 0", "val_bags: 4"))
    said = run_here(folder, space="without.yaml")
    run_here(folder, space="with.yaml")
    return folder, said


@pytest.mark.slow
def test_the_networks_are_those_of_a_study_with_validation_bags(studies):
    folder, said = studies
    without, with_them = (by_method(folder, name) for name in ("without", "with"))
    assert (without["status"] == "done").all() and len(without) == 10
    assert (without["labels_used"] == 6).all() and (without["val_bags"] == 0).all()
    same = [name for name in without if name.startswith(("bag_", "instance_")) and without[name].notna().any()]
    assert {"bag_auc", "instance_auc", "instance_ap"} <= set(same)
    # oracle learns from instances of validation bags, too
    alike = without.index != "oracle"
    pd.testing.assert_frame_equal(without.loc[alike, same], with_them.loc[alike, same])
    assert without["val_bag_auc"].isna().all() and with_them["val_bag_auc"].notna().sum() == 9
    assert "Labels used in all: those of training bags (n) alone." in " ".join(said.split())


@pytest.mark.slow
def test_a_model_has_no_threshold_and_scores(studies):
    folder, _ = studies
    rows = analysis.load("without", folder / "runs")
    trial = rows.loc[rows["method"] == "teacher → whole", "trial_id"].iloc[0]
    to = ["--to", folder / "model", "--root", folder / "runs"]
    said = command(cli.main, "export", "--run", trial, *to)
    assert said.code == 0, said.err
    page = (folder / "model" / "README.md").read_text()
    assert "Instances: no threshold could be set" in page and "6 for training, 0 for validation" in page
    np.save(folder / "digits.npy", np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8))
    scored = ["--out", folder / "scores", "--root", folder / "runs"]
    said = command(cli.main, "label", "--run", trial, folder / "digits.npy", *scored)
    assert said.code == 0 and "this model's threshold could not be set" in said.out, said.err
    scores = pd.read_parquet(folder / "scores" / "scores.parquet")
    assert len(scores) == 5 and np.isfinite(scores["logit"]).all() and scores["predicted"].isna().all()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (", select: last", "", "teacher.select: auc chooses a snapshot by validation bags, and data.val_bags: 0"),
        ("methods:", "metric: val_bag_nll\nmethods:", "metric: val_bag_nll is of validation bags"),
        ("methods:", "schedule: asha\nmethods:", "schedule: 'asha' ends trials by validation bags"),
        ("none: {}", "none: {teacher: {dropout: {low: 0, high: 0.5}}}\nsearch: {trials: 2}",
         "search: looks at val_bag_auc, and data.val_bags: 0 leaves none"),
        ("val_bags: 0", "val_bags: 1", "data.prevalence: 0.5 makes 0 of 1 bags (val_bags) positive"),
    ],
)  # fmt: skip
def test_what_chooses_by_validation_bags_is_refused(tmp_path, old, new, said):
    text = ONE if old != "none: {}" else ONE.replace("methods: {none: {}}", "methods:\n  none: {}")
    assert old in text
    (tmp_path / "one.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_space(str(tmp_path / "one.yaml"))
    assert f"one.yaml: {said}" in str(caught.value)
