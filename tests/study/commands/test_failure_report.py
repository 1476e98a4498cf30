"""A metric that is not defined is named at the end of a run."""

import math

import pandas as pd
import pytest

from d2l_study.study.commands.failure_report import show_undefined


def _rows(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({"status": "done", "stage": "teacher", **columns})


def test_a_fold_of_one_class_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    areas = [0.7, math.nan, 0.8, 0.9, math.nan, 0.6]
    show_undefined(_rows(replicate=[0, 1, 2, 0, 1, 2], bag_auc=areas, instance_auc=[0.5] * 6))
    said = capsys.readouterr().out.strip()
    assert said == (
        "bag_auc is not defined (NaN) for 2 of 6 runs, those of replicate 1: the test bags are of one class; means "
        "over runs leave them out"
    )


def test_data_without_instance_labels_are_told_from_instances_of_one_class(capsys: pytest.CaptureFixture[str]) -> None:
    areas = {"replicate": [0, 1], "bag_auc": [0.7, 0.8], "instance_auc": [math.nan] * 2}
    show_undefined(_rows(**areas, instance_accuracy=[math.nan] * 2))
    said = capsys.readouterr().out.strip()
    assert said == "no instance labels: the data have none, so that nothing was measured of single instances"
    show_undefined(_rows(**areas, instance_accuracy=[0.9, 1.0]))
    said = capsys.readouterr().out.strip()
    assert said == "instance_auc is not defined for any run: no test part has instances of both classes"


def test_defined_failed_and_attention_runs_are_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = _rows(replicate=[0, 0, 1], bag_auc=[0.7, math.nan, math.nan], instance_auc=[0.9, 0.8, math.nan])
    rows["stage"] = ["teacher", "attention", "teacher"]
    rows["status"] = ["done", "done", "failed"]
    show_undefined(rows)
    assert capsys.readouterr().out == ""
