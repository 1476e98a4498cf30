"""Invented studies that the tests of several rooms read."""

import pytest
from make_folds import make_folds
from make_study import make_distillation, make_study

import analysis


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), replicates=4, with_predictions=True)
    return analysis.load("made", root)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A study whose space names an arm and a key for print, and one of students."""
    root = tmp_path_factory.mktemp("runs")
    folder = make_study(root, num_bags=(20, 50), bag_sizes=(10,))
    labels = {"none": "Attention MIL", "teacher.lambda_adv": "λ"}
    folder.write("description: d\n", {"space": {"description": "d", "labels": labels}}, folder.plan())
    make_distillation(root, num_bags=(50,), replicates=3)
    return root


@pytest.fixture(scope="module")
def given_folds(tmp_path_factory):
    """Three given folds, twice."""
    root = tmp_path_factory.mktemp("given")
    make_folds(root, dataset="manifest", images=30, folds=3, repeats=2, seed=2, partition="given folds")
    return analysis.load("folded", root)


@pytest.fixture(scope="module")
def folds_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_folds(root, failed=((0, 3),), oracle=True)
    make_folds(root, "breasted", dataset="breast", images=40, repeats=2)
    return root


@pytest.fixture(scope="module")
def fold_rows(folds_root):
    return analysis.load("folded", folds_root)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    return make_distillation(tmp_path_factory.mktemp("runs"), temperatures=(1.0, 4.0)).rows()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    failed = (*(("vat", r) for r in range(5)), ("none", 1), ("none → plain", 3), *(("oracle", r) for r in range(5)))
    return make_distillation(tmp_path_factory.mktemp("runs"), failed=failed).rows()
