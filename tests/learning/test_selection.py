"""Which snapshot of a training is kept, and when it stops."""

import dataclasses
import math

import numpy as np
import pytest
from fitted_comparison import differ

from d2l_study.learning import fit_teacher, sequential


@pytest.fixture
def scripted(monkeypatch):
    """Validation logits from a script of (loss, AUC)-making logits, one per validation; the parameters stay real."""

    def use(validations, label):
        script = iter(validations)
        real = sequential.predict_bags

        def predict(model, params, pool, sets, normalise, compute):
            if len(sets) > 1:  # the final evaluation
                return real(model, params, pool, sets, normalise, compute)
            return [np.where(label == 1, *next(script)).astype(np.float32)]

        monkeypatch.setattr(sequential, "predict_bags", predict)

    return use


GOOD, SURE, SURER, WORSE, LOW = (1.0, -1.0), (3.0, -3.0), (4.0, -4.0), (0.5, -0.5), (-1.0, 1.0)
"""The logits of positive and of negative validation bags."""


@pytest.mark.parametrize(
    ("select", "patience", "script", "best", "run"),
    [
        ("loss", 0, [GOOD, SURE, WORSE, LOW], 2, 4),
        ("loss", 0, [SURE, SURE, WORSE, LOW], 1, 4),  # the earliest of equals
        ("auc", 0, [LOW, GOOD, WORSE, LOW], 2, 4),  # AUC 1 twice, the lower loss first
        ("auc", 0, [LOW, WORSE, GOOD, LOW], 3, 4),  # of equal AUC the lower loss
        ("last", 0, [SURE, GOOD, WORSE, LOW], 4, 4),
        ("loss", 1, [GOOD, WORSE, SURE, SURE], 1, 2),
        ("loss", 2, [GOOD, WORSE, SURE, LOW, SURER], 5, 5),  # improvement starts the patience anew
        ("loss", 2, [SURE, WORSE, LOW, GOOD], 1, 3),
        ("last", 1, [SURE, GOOD, WORSE, LOW], 4, 4),
    ],
)
def test_the_right_snapshot_is_kept(make_replicate, tiny, scripted, select, patience, script, best, run):
    config = dataclasses.replace(tiny, steps=3 * len(script), eval_every=3, select=select, patience=patience)
    replicate = make_replicate(0)
    scripted(script, replicate.val.label)
    (result,) = fit_teacher(config, [replicate])
    assert (result.status, result.best_step, result.steps_run) == ("done", 3 * best, 3 * run)
    assert [c["step"] for c in result.curve] == [3 * (i + 1) for i in range(run)]
    # The parameters are those of that step: a run that ends there has the same.
    scripted(script, replicate.val.label)
    (short,) = fit_teacher(dataclasses.replace(config, steps=3 * best, select="last", patience=0), [replicate])
    assert not differ(result, short)
    np.testing.assert_equal(result.logits, short.logits)


def test_one_replicate_stops_early_without_the_others(make_replicate, tiny, monkeypatch):
    config = dataclasses.replace(tiny, steps=12, eval_every=3, patience=1)
    replicates = [make_replicate(r) for r in range(2)]
    real = sequential.predict_bags
    first = {0: iter([SURE, GOOD]), 1: iter([WORSE, GOOD, SURE, LOW])}

    def predict(model, params, pool, sets, *rest):
        (number,) = [r.number for r in replicates if r.val is sets[0]]
        if len(sets) > 1:
            return real(model, params, pool, sets, *rest)
        return [np.where(sets[0].label == 1, *next(first[number])).astype(np.float32)]

    monkeypatch.setattr(sequential, "predict_bags", predict)
    reports = []
    results = fit_teacher(config, replicates, report=lambda step, values: reports.append((step, sorted(values))))
    assert [(r.best_step, r.steps_run) for r in results] == [(3, 6), (9, 12)]
    assert reports == [(3, [0, 1]), (6, [0, 1]), (9, [1]), (12, [1])]


def test_test_bags_choose_nothing(make_replicate, tiny):
    """Other test bags, all else equal: the same curve, snapshot and parameters."""
    a = make_replicate(0)
    b = dataclasses.replace(a, test=make_replicate(5).test, test_instances=make_replicate(5).val)
    one, two = (fit_teacher(dataclasses.replace(tiny, select="auc"), [r])[0] for r in (a, b))
    assert one.curve == two.curve and one.best_step == two.best_step and not differ(one, two)


def test_one_class_in_validation_leaves_the_loss_to_select(make_replicate, tiny):
    replicate = make_replicate(0, val=4, prevalence=0.2)
    replicate = dataclasses.replace(replicate, train=make_replicate(0).train)
    assert not replicate.val.label.any()
    (result,) = fit_teacher(dataclasses.replace(tiny, select="auc"), [replicate])
    assert result.status == "done" and all(math.isnan(c["val_bag_auc"]) for c in result.curve)
    losses = [c["val_bag_nll"] for c in result.curve]
    assert result.best_step == 4 * (1 + int(np.argmin(losses)))
