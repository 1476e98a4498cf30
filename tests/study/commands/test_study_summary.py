"""What a study says at its end."""

import pandas as pd
import pytest

from d2l_study import cli
from d2l_study.study.commands.study_summary import further_table


@pytest.mark.parametrize("columns, taught, expected", [
    ({"num_bags": 50, "bag_auc": [0.9, 0.8], "instance_auc": [None, 0.7]}, False, "--metric instance_auc"),
    ({"num_bags": 50, "bag_auc": [0.9, 0.8], "instance_auc": [None, 0.7]}, True, "--metric bag_auc"),
    ({"num_bags": 50, "bag_auc": [0.9, 0.8], "instance_auc": [None, None]}, False, "--metric bag_auc"),
    ({"num_bags": 50, "bag_auc": [0.9, 0.8]}, False, "--metric bag_auc"),
    ({"fold": [0, 1], "fold_count": 2, "bag_auc": [0.9, 0.8], "instance_auc": [None, 0.7]}, True, "--intervals images"),
    ({"fold": [0, 1], "fold_count": 3, "bag_auc": [0.9, 0.8], "instance_auc": [None, 0.7]}, True, "--explain"),
    ({"fold": [0, 1], "fold_count": 2, "bag_auc": [0.9, 0.8]}, False, "--explain"),
])  # fmt: skip
def test_the_table_that_is_suggested_shows_what_the_first_does_not(columns, taught, expected):
    assert further_table(pd.DataFrame({"status": "done"} | columns), taught=taught) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "teacher.steps=7"], True),
        (["--set", "teacher.steps=7", "--study", "mine"], False),
        (["--set", "resources.threads=1"], False),
        ([], False),
    ],
)
def test_run_says_before_its_work_where_the_results_of_set_go(words, said, tmp_path, capsys):
    # An address that is refused ends the command before anything is trained.
    assert cli.main(["run", "--space", "smoke", *words, "--tracking-uri", "", "--root", str(tmp_path)]) == 2
    out = capsys.readouterr().out
    assert out.startswith("--set makes another study of smoke: its results go to smoke-") == said
    assert ("--study NAME gives it another name" in out) == said
