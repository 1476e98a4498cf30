"""Invented studies that several figures are drawn from."""

import pytest
from make_study import make_study

import analysis


@pytest.fixture(scope="module")
def incomplete(tmp_path_factory):
    # Configurations 0–3 are none at K=10, 4–7 none at K=50, 8–11 vat at K=10, 12–15 vat at K=50.
    return make_study(
        tmp_path_factory.mktemp("runs"),
        num_bags=(50, 100, 200, 400),
        missing=((4, 0), *((9, r) for r in range(5))),
    ).rows()


@pytest.fixture(scope="module")
def many_scored(tmp_path_factory):
    """Five arms, more than whose spread is drawn in a panel, with their scores."""
    root = tmp_path_factory.mktemp("runs")
    make_study(root, methods=("none", "a", "b", "c", "d"), num_bags=(50, 100), bag_sizes=(10,), replicates=2,
               with_predictions=True)  # fmt: skip
    return analysis.load("made", root)


@pytest.fixture(scope="module")
def spread_cases(many_scored):
    """Rows of the five arms by what of their spread is drawn: in no panel, in one of two, in both, and none since a
    single run has none."""
    few = many_scored["method"].isin(["none", "a", "b", "c"])
    chosen = {"none": many_scored["replicate"] >= 0, "one": few | (many_scored["num_bags"] == 50), "both": few,
              "single": few & (many_scored["replicate"] == 0)}  # fmt: skip
    cases = {name: many_scored[mine] for name, mine in chosen.items()}
    for rows in cases.values():
        rows.attrs = many_scored.attrs
    return cases
