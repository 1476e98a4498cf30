"""What a study says at its end."""

import pandas as pd
import pytest

from d2l_study.study.commands.study_summary import further_metric


@pytest.mark.parametrize("columns, expected", [
    ({"bag_auc": [0.9, 0.8], "instance_auc": [None, 0.7]}, "instance_auc"),
    ({"bag_auc": [0.9, 0.8], "instance_auc": [None, None]}, "bag_auc"),
    ({"bag_auc": [0.9, 0.8]}, "bag_auc"),
])  # fmt: skip
def test_no_table_of_instances_is_suggested_where_none_is_labelled(columns, expected):
    assert further_metric(pd.DataFrame(columns)) == expected
