"""Invented studies that are read from their folders, from files and from MLflow."""

import pytest
from make_study import make_distillation, make_study


@pytest.fixture(scope="module")
def stored_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), replicates=3, missing=((0, 1),), with_predictions=True)
    make_study(root, "bare", num_bags=(50,), bag_sizes=(10,), replicates=2, seed=9)
    return root


@pytest.fixture(scope="module")
def failing_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    make_study(root, num_bags=(50, 100), bag_sizes=(10,), missing=((0, 1),), failed=((2, 2),))
    make_distillation(root, num_bags=(50,), replicates=2, failed=(("vat", 1),))
    return root
