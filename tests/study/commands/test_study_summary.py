"""What a study says at its end."""

import pandas as pd
import pytest

from d2l_study import cli
from d2l_study.study.commands.study_summary import further_metric


@pytest.mark.parametrize("columns, expected", [
    ({"bag_auc": [0.9, 0.8], "instance_auc": [None, 0.7]}, "instance_auc"),
    ({"bag_auc": [0.9, 0.8], "instance_auc": [None, None]}, "bag_auc"),
    ({"bag_auc": [0.9, 0.8]}, "bag_auc"),
])  # fmt: skip
def test_no_table_of_instances_is_suggested_where_none_is_labelled(columns, expected):
    assert further_metric(pd.DataFrame(columns)) == expected


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
