"""Values against scikit-learn, intervals against the resampling written out, and what is said where one is missing."""

import math

import numpy as np
import pytest
from scored_bags import FEW, few_resamples, make_bags, make_scores
from sklearn import metrics as sk

from analysis.evaluation import evaluation
from analysis.evaluation.evaluation import BOOTSTRAP, DELONG, Ensemble, evaluate
from analysis.evaluation.metrics import BAG, HALF, INSTANCE, MODEL_THRESHOLD, SCALED, TRAINED, WITHOUT_END
from analysis.statistics.cluster_bootstrap import LEAST_CLUSTERS, RESAMPLES
from analysis.statistics.delong import delong_interval, delong_test
from analysis.statistics.paired_tests import holm
from d2l_study.inference.evaluated_scores import ensemble_of
from d2l_study.learning.localisation import image_average_precision, image_dice, mean_by_image
from d2l_study.learning.metrics import auc, probability

AUC = (BAG, "auc", "")


@pytest.fixture(autouse=True)
def few():
    with few_resamples():
        yield


@pytest.mark.parametrize("most_bags", [1, 3])
def test_values_are_those_of_scikit_learn(most_bags):
    bags = make_bags(1, 40, most_bags)
    scores = make_scores(bags, digits=1)
    found = evaluate(bags, [scores])
    value = {key: found.value("A", key).value for key in found.keys}
    y, logit = bags.label, scores.bag_logit.astype(float)
    assert value[AUC] == pytest.approx(sk.roc_auc_score(y, logit))
    assert value[BAG, "average_precision", ""] == pytest.approx(sk.average_precision_score(y, logit))
    for at, threshold in ((MODEL_THRESHOLD, 0.4), (HALF, 0.0)):
        called = scores.bag_logit > np.float32(threshold)
        assert value[BAG, "accuracy", at] == pytest.approx(sk.accuracy_score(y, called))
        assert value[BAG, "balanced_accuracy", at] == pytest.approx(sk.balanced_accuracy_score(y, called))
        assert value[BAG, "specificity", at] == pytest.approx(sk.recall_score(y, called, pos_label=0))
        assert value[BAG, "f1", at] == pytest.approx(sk.f1_score(y, called))
    for at, temperature in ((TRAINED, 1.0), (SCALED, 1.7)):
        assert value[BAG, "brier", at] == pytest.approx(sk.brier_score_loss(y, probability(logit / temperature)))
        assert value[BAG, "log_loss", at] == pytest.approx(sk.log_loss(y, probability(logit / temperature)))
    slope = "calibration_slope"
    assert value[BAG, slope, SCALED] == pytest.approx(1.7 * value[BAG, slope, TRAINED])

    known, bag_of = bags.known, bags.bags.bag_of
    y, logit = bags.instance_label[known], scores.instance_logit[known].astype(float)
    assert value[INSTANCE, "auc", ""] == pytest.approx(sk.roc_auc_score(y, logit))
    called = scores.instance_logit[known] > np.float32(0.6)
    assert value[INSTANCE, "precision", MODEL_THRESHOLD] == pytest.approx(sk.precision_score(y, called))
    within = mean_by_image(auc, y, logit, bag_of[known])
    assert value[INSTANCE, "auc_within", ""] == pytest.approx(within)
    precision = mean_by_image(image_average_precision, y, logit, bag_of[known])
    assert value[INSTANCE, "average_precision_within", ""] == pytest.approx(precision)
    dice = mean_by_image(image_dice, y, called, bag_of[known])
    assert value[INSTANCE, "dice_within", MODEL_THRESHOLD] == pytest.approx(dice)


def _drawn_patients(names, resamples):
    """Of each resample the patients that are drawn."""
    rng = np.random.default_rng(0)
    return [names[rng.integers(0, len(names), len(names))] for _ in range(resamples)]


def test_intervals_are_the_resampling_of_patients_written_out(monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", RESAMPLES)  # as many as users get
    bags = make_bags(2, 12, 3)
    scores = make_scores(bags)
    found = evaluate(bags, [scores])
    assert not found.levels[BAG].single
    y, logit, patient = bags.label, scores.bag_logit.astype(float), bags.patient
    areas, briers = [], []
    error = (probability(logit) - y) ** 2
    higher = np.sign(logit[:, None] - logit) / 2 + 0.5  # of each pair of bags
    for chosen in _drawn_patients(np.unique(patient), RESAMPLES):
        rows = np.concatenate([np.flatnonzero(patient == p) for p in chosen])
        briers.append(error[rows].mean())
        ones, zeros = rows[y[rows] == 1], rows[y[rows] == 0]
        if len(ones) and len(zeros):
            areas.append(higher[np.ix_(ones, zeros)].mean())
    one = found.value("A", AUC)
    assert (one.lower, one.upper) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))
    assert (one.interval, one.resamples) == (BOOTSTRAP, len(areas))
    brier = found.value("A", (BAG, "brier", TRAINED))
    assert (brier.lower, brier.upper) == pytest.approx(tuple(np.quantile(briers, [0.025, 0.975])))


def test_instances_are_drawn_with_their_patients():
    bags = make_bags(3, 12, 3)
    scores = make_scores(bags)
    known = np.flatnonzero(bags.known)
    patient = bags.patient[bags.bags.bag_of[known]]
    y, logit = bags.instance_label[known], scores.instance_logit[known].astype(float)
    areas = []
    for chosen in _drawn_patients(np.unique(patient), FEW):
        rows = np.concatenate([np.flatnonzero(patient == p) for p in chosen])
        if np.ptp(y[rows]):
            areas.append(sk.roc_auc_score(y[rows], logit[rows]))
    one = evaluate(bags, [scores]).value("A", (INSTANCE, "auc", ""))
    assert (one.lower, one.upper) == pytest.approx(tuple(np.quantile(areas, [0.025, 0.975])))


def test_where_each_patient_has_one_bag_the_auc_is_delongs():
    bags = make_bags(4, 40)
    first, second = make_scores(bags), make_scores(bags, 1, "B", 2.0)
    found = evaluate(bags, [first, second])
    one = found.value("A", AUC)
    assert (one.value, one.lower, one.upper) == delong_interval(bags.label, first.bag_logit)
    (difference,) = [d for d in found.differences if d.key == AUC]
    test = delong_test(bags.label, first.bag_logit, second.bag_logit)
    assert (difference.p, difference.lower, difference.upper) == (test.p, test.lower, test.upper)
    assert one.interval == difference.test == DELONG
    assert {d.test for d in found.differences if d.key != AUC} == {BOOTSTRAP, ""}  # FROC: no grid


def test_differences_are_paired_and_corrected_for_all_that_are_tested():
    bags = make_bags(5, 15, 3)
    models = make_scores(bags), make_scores(bags, 1, "B", 1.5)
    found = evaluate(bags, models)
    (difference,) = [d for d in found.differences if d.key == AUC]
    values = []
    for chosen in _drawn_patients(np.unique(bags.patient), FEW):
        rows = np.concatenate([np.flatnonzero(bags.patient == p) for p in chosen])
        if np.ptp(bags.label[rows]):
            a, b = (sk.roc_auc_score(bags.label[rows], model.bag_logit[rows]) for model in models)
            values.append(a - b)
    values = np.round(values, 12)
    assert (difference.lower, difference.upper) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))
    side = min((values <= 0).sum(), (values >= 0).sum())
    assert difference.p == pytest.approx(min(1, 2 * (side + 1) / (len(values) + 1)))
    assert difference.p_holm == difference.p  # the primary comparison
    others = [d for d in found.differences if d.key != AUC]
    p = [d.p for d in others]
    assert [d.p_holm for d in others] == pytest.approx(holm(p), nan_ok=True)
    assert found.tests == sum(not math.isnan(value) for value in p) >= 20


@pytest.mark.parametrize("most_bags", [1, 3])
def test_a_model_does_not_differ_from_itself(most_bags):
    bags = make_bags(6, 20, most_bags)
    found = evaluate(bags, [make_scores(bags), make_scores(bags, name="A again")])
    tested = [d for d in found.differences if not math.isnan(d.p)]
    assert len(tested) == found.tests + 1 > 20
    for one in tested:
        assert (one.value, one.p, one.p_holm) == (0, 1, 1) and math.isnan(one.lower) and math.isnan(one.upper)
        assert one.reason.startswith("no interval: ")


@pytest.mark.parametrize("most_bags", [1, 3])
def test_a_difference_that_never_varies_is_not_tested(most_bags):
    """A perfect model against one of a constant score, and against another perfect one."""
    bags = make_bags(9, 20, most_bags)
    perfect = (bags.label * 4.0 - 2 + np.linspace(0, 1, len(bags.label))).astype(np.float32)
    models = [make_scores(bags, name=name, bag_logit=logit, bag_threshold=1.0)
              for name, logit in (("A", perfect), ("B", np.full_like(perfect, -5)), ("C", 2 * perfect))]  # fmt: skip
    apart = {one.key: one for one in evaluate(bags, models[:2]).differences}
    why = "DeLong's variance of the difference is 0" if most_bags == 1 else "all resamples give the same value"
    for key, value in ((AUC, 0.5), ((BAG, "sensitivity", MODEL_THRESHOLD), 1.0)):
        one = apart[key]
        assert one.value == value and all(map(math.isnan, (one.lower, one.upper, one.p, one.p_holm)))
        assert one.reason == f"not tested: {why if key == AUC else 'all resamples give the same value'}"
    (alike,) = [one for one in evaluate(bags, [models[0], models[2]]).differences if one.key == AUC]
    assert (alike.value, alike.p) == (0, 1) and math.isnan(alike.lower) and alike.reason == f"no interval: {why}"


@pytest.mark.soak
def test_intervals_of_few_bags_a_patient_cover_what_those_of_many_do_not():
    """Bags of a patient share a shift of their scores: who counts bags is too sure."""
    truth, covered = 0.5, 0
    for seed in range(60):
        bags = make_bags(seed, 30, 4, 1)
        shift = np.random.default_rng(seed).normal(0, 2, bags.patients)[bags.patient]
        scores = make_scores(bags, seed, gain=0.0)
        scores = make_scores(bags, seed, gain=0.0, bag_logit=(scores.bag_logit + shift).astype(np.float32))
        one = evaluate(bags, [scores]).value("A", AUC)
        covered += one.lower <= truth <= one.upper
    assert covered / 60 > 0.85


def test_an_ensemble_is_the_mean_probability_beside_its_members():
    bags = make_bags(7, 30)
    members = [make_scores(bags, seed, f"m{seed}", bag_threshold=threshold) for seed, threshold in ((0, -1.0), (1, 2))]
    whole = ensemble_of(members, "both", {})
    mean = np.mean([probability(m.bag_logit) for m in members], axis=0)
    np.testing.assert_allclose(probability(whole.bag_logit), mean, rtol=1e-6)
    np.testing.assert_allclose(
        probability(whole.instance_logit), np.mean([probability(m.instance_logit) for m in members], axis=0), rtol=1e-6
    )
    assert probability(whole.bag_threshold) == pytest.approx(np.mean(probability(np.array([-1.0, 2.0]))))
    found = evaluate(bags, [Ensemble(whole, tuple(members))])
    assert found.value("both", AUC).value == pytest.approx(sk.roc_auc_score(bags.label, mean))
    alone = [sk.roc_auc_score(bags.label, m.bag_logit) for m in members]
    assert found.members_of("both", AUC) == pytest.approx(alone)
    assert "no temperature" in found.value("both", (BAG, "brier", SCALED)).reason
    lacking = ensemble_of([members[0], make_scores(bags, 1, "x", bag_threshold=None)], "both", {})
    assert lacking.bag_threshold is None and lacking.instance_threshold is not None


def test_certain_members_keep_their_logits():
    """Probabilities that are 1 to rounding still have a mean with a finite logit."""
    bags = make_bags(7, 4)
    certain = np.full(len(bags.label), 60.0, np.float32)
    members = [make_scores(bags, name=name, bag_logit=certain) for name in "ab"]
    np.testing.assert_allclose(ensemble_of(members, "both", {}).bag_logit, certain)
    away = ensemble_of([members[0], make_scores(bags, bag_logit=-certain)], "both", {}).bag_logit
    np.testing.assert_allclose(away, 0, atol=1e-6)


# ---- what has no value
def test_one_class_has_no_auc_and_the_reason_is_told():
    bags = make_bags(8, 12, label=1)
    found = evaluate(bags, [make_scores(bags)])
    one = found.value("A", AUC)
    assert math.isnan(one.value) and math.isnan(one.lower) and one.reason == "all 12 bags are positive"
    assert found.value("A", (BAG, "specificity", HALF)).reason == "no bag is negative"
    assert found.value("A", (BAG, "sensitivity", HALF)).value > 0
    assert "one class" in found.value("A", (BAG, "calibration_slope", TRAINED)).reason


def test_separated_classes_have_no_slope_and_no_delong_interval():
    bags = make_bags(9, 20)
    scores = make_scores(bags, bag_logit=(bags.label * 4.0 - 2 + np.linspace(0, 1, 20)).astype(np.float32))
    found = evaluate(bags, [scores])
    slope, area = found.value("A", (BAG, "calibration_slope", TRAINED)), found.value("A", AUC)
    assert math.isnan(slope.value) and "separate" in slope.reason
    assert area.value == 1 and math.isnan(area.lower) and "variance is 0" in area.reason
    accuracy = found.value("A", (BAG, "accuracy", MODEL_THRESHOLD))
    assert accuracy.value == 1 and math.isnan(accuracy.lower) and "same value" in accuracy.reason


def test_why_delongs_variance_is_0_is_told_as_it_is():
    bags = make_bags(9, 20)
    for logit, where in ((np.zeros(20), "all bags have the same score"),
                         (-4.0 * bags.label, "all positive bags score below all negative ones")):  # fmt: skip
        one = evaluate(bags, [make_scores(bags, bag_logit=logit.astype(np.float32))]).value("A", AUC)
        assert math.isnan(one.lower) and one.reason == f"no interval: DeLong's variance is 0 where {where}"


def test_what_a_model_or_the_data_lack_is_named():
    bags = make_bags(10, 60, known=0.0)
    bare = make_scores(bags, bag_threshold=None, instance_threshold=None, temperature=None)
    found = evaluate(bags, [bare])
    assert "no threshold for bags" in found.value("A", (BAG, "f1", MODEL_THRESHOLD)).reason
    assert "no temperature" in found.value("A", (BAG, "ece", SCALED)).reason
    assert all("no instance labels" in found.value("A", key).reason for key in found.keys if key[0] == INSTANCE)
    assert all(math.isnan(one.value) or one.reason == "" for one in found.values.values() if one.key[1] != "ece")


def test_froc_is_of_grids_alone():
    scattered, grid = make_bags(11, 12), make_bags(11, 12, grid=True, known=1.0)
    key = (INSTANCE, "froc", "")
    assert "no tiles of a grid" in evaluate(scattered, [make_scores(scattered)]).value("A", key).reason
    one = evaluate(grid, [make_scores(grid, gain=1.0)]).value("A", key)
    assert 0 < one.lower < one.value < one.upper <= 1


def test_an_interval_over_half_of_the_range_is_left_out_with_the_reason():
    bags = make_bags(10, 8)
    found = evaluate(bags, [make_scores(bags, gain=0.5), make_scores(bags, 5, "B", gain=0.5)])
    wide = [one for one in found.values.values() if "more than half of all possible values" in one.reason]
    assert wide and all(math.isnan(one.lower) and not math.isnan(one.value) for one in wide)
    bounded = [one for one in found.values.values() if one.key[1] not in WITHOUT_END and not math.isnan(one.lower)]
    assert bounded and all(one.upper - one.lower <= 0.5 for one in bounded)
    others = [one for one in found.differences if one.key[1] not in WITHOUT_END and not math.isnan(one.lower)]
    assert all(one.upper - one.lower <= 1 for one in others)


def _all_found(bags, seed=0):
    found = evaluate(bags, [make_scores(bags, seed), make_scores(bags, seed + 1, "B", 2.0)])
    return found, [*found.values.values(), *found.differences]


def test_a_calibration_error_has_no_interval_and_no_test():
    """Resampled ones lie too high, so that an interval could leave out the value that it is of."""
    found, both = _all_found(make_bags(14, 60))
    errors = [one for one in both if one.key[1] == "ece"]
    assert len(errors) == 6 and not any(math.isnan(one.value) for one in errors)  # as trained and scaled
    for one in errors:
        assert math.isnan(one.lower) and math.isnan(one.upper) and one.resamples == 0
        assert one.reason.partition(": ")[2] == "resampled bags look less calibrated than they are"
    assert all(math.isnan(one.p) and math.isnan(one.p_holm) for one in found.differences if one.key[1] == "ece")
    brier = found.value("A", (BAG, "brier", TRAINED))
    assert brier.lower < brier.value < brier.upper


def test_too_few_patients_have_no_bootstrap():
    for patients in (LEAST_CLUSTERS - 1, LEAST_CLUSTERS):
        found, both = _all_found(make_bags(15, patients, 9, known=1.0))
        assert {level.patients for level in found.levels.values()} == {patients}
        drawn = [one for one in both if one.resamples]
        if patients < LEAST_CLUSTERS:
            assert not drawn and all(math.isnan(one.lower) for one in both)
            assert all(math.isnan(one.p) for one in found.differences) and found.tests == 0
            why = "of 7 patients, and a bootstrap asks for 8"
            assert found.value("A", AUC).reason == f"no interval: {why}"
            assert f"not tested: {why}" in {one.reason for one in found.differences}
        else:
            assert drawn and not math.isnan(found.value("A", AUC).lower)
            # In hardly a resample of so few patients is B the worse model, and yet it is no rarer that all agree.
            tested = [one.p for one in found.differences if one.test == BOOTSTRAP and not math.isnan(one.p)]
            assert min(tested) >= 2.0 ** (1 - patients)


def test_delongs_test_stays_where_patients_with_a_bag_each_are_few():
    """It does not reject too often there, as a bootstrap does."""
    found, _ = _all_found(make_bags(16, LEAST_CLUSTERS - 2))
    (area,) = [one for one in found.differences if one.key == AUC]
    assert area.test == DELONG and not math.isnan(area.p)
    assert all(math.isnan(one.p) for one in found.differences if one.key != AUC)


def test_one_patient_has_values_without_intervals():
    bags = make_bags(12, 1, 9)
    assert len(bags.label) > 2
    one = evaluate(bags, [make_scores(bags)]).value("A", (BAG, "accuracy", HALF))
    assert not math.isnan(one.value) and math.isnan(one.lower) and "one patient" in one.reason


def test_two_models_of_one_name_are_refused():
    bags = make_bags(13, 8)
    with pytest.raises(ValueError, match="one name"):
        evaluate(bags, [make_scores(bags), make_scores(bags)])
