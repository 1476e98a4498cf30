"""The reference rows: what they train on, their mark, and the scope of attention as a score."""

import dataclasses

import numpy as np
import pytest
import torch

from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, attention_reference, fit_reference, fit_teacher, metrics
from d2l_study.learning.prediction import Compute, Normalise, instance_terms
from d2l_study.learning.teacher_model import teacher_model

CONFIG = StudentConfig(feature_width=16, steps=8, batch_bags=3, learning_rate=2e-3, eval_every=4, dropout=0.2)


@pytest.fixture(scope="module")
def replicates(make_replicate):
    return [make_replicate(r) for r in range(2)]


def with_labels(replicate, of_train):
    """The replicate with the instance labels of its training and validation bags changed."""
    train, val = (dataclasses.replace(bags, instance_label=of_train(bags)) for bags in (replicate.train, replicate.val))
    return dataclasses.replace(replicate, train=train, val=val)


def same(a, b):
    return all(torch.equal(a.params[name], b.params[name]) for name in a.params)


def test_rows_carry_their_stage_and_the_oracle_its_mark(replicates):
    for kind, oracle in (("bag_label", False), ("oracle", True)):
        found = fit_reference(kind, CONFIG, replicates)
        assert [(f.stage, f.oracle, f.status, f.replicate) for f in found] == [
            (kind, oracle, "done", 0), (kind, oracle, "done", 1)
        ]  # fmt: skip
        assert {"instance_auc", "bag_auc", "instance_f1_tuned", "val_distill_loss"} <= found[0].metrics.keys()


def test_single_instance_learning_reads_bag_labels_only(replicates):
    own = replicates[0]
    poisoned = with_labels(own, lambda bags: 1 - bags.instance_label)
    flipped = dataclasses.replace(own, train=dataclasses.replace(own.train, label=1 - own.train.label))
    a, b, c = (fit_reference("bag_label", CONFIG, [r])[0] for r in (own, poisoned, flipped))
    assert same(a, b) and not same(a, c)


def test_where_every_instance_has_its_bags_label_both_learn_the_same(replicates):
    def of_bag(bags):
        return np.repeat(bags.label, bags.sizes)

    alike = with_labels(replicates[0], of_bag)
    (sil,), (oracle,) = (fit_reference(kind, CONFIG, [alike]) for kind in ("bag_label", "oracle"))
    assert same(sil, oracle)
    assert not same(oracle, fit_reference("oracle", CONFIG, replicates[:1])[0])


def test_the_oracle_is_above_bag_labels_where_bags_mix_classes(make_replicate):
    """With 40 bags of 8 digits and the same network, draws and steps."""
    replicate = make_replicate(0, train=40, val=10, mean_bag_size=8, base_seed=5)
    config = StudentConfig(feature_width=32, steps=120, batch_bags=4, learning_rate=3e-3, eval_every=60, augment="none")
    (sil,), (oracle,) = (fit_reference(kind, config, [replicate]) for kind in ("bag_label", "oracle"))
    assert oracle.metrics["instance_auc"] > max(0.9, sil.metrics["instance_auc"])


def test_a_reference_is_a_student_without_teacher():
    config = StudentConfig(
        temperature=4.0, alpha=2.0, beta=1.0, start="teacher", teachers=3, generations=2, dropout=0.2
    )
    expected = StudentConfig(temperature=1.0, alpha=0.0, beta=0.0, dropout=0.2)
    assert config.without_teacher() == expected


def test_unknown_instance_labels_have_no_oracle(replicates):
    hidden = with_labels(replicates[0], lambda bags: np.full(len(bags.instance), -1, np.int8))
    with pytest.raises(
        UserError, match="oracle needs instances of known label of both classes; the train bags of replicate 0"
    ):
        fit_reference("oracle", CONFIG, [hidden])
    assert fit_reference("bag_label", CONFIG, [hidden])[0].status == "done"
    with pytest.raises(UserError, match="'attention' is not trained; expected bag_label, oracle or no_teacher"):
        fit_reference("attention", CONFIG, [hidden])


def test_packed_equals_resumed(replicates):
    states = {}
    packed = fit_reference(
        "oracle", CONFIG, replicates, checkpoint=lambda r, s: states.setdefault(r, s), checkpoint_every=4
    )
    resumed = fit_reference("oracle", CONFIG, replicates, resume=states)
    assert states.keys() == {0, 1} and all(same(a, b) for a, b in zip(packed, resumed, strict=True))


# ---- attention
@pytest.mark.parametrize("pooling", ["attention", "gated_attention"])
def test_attention_is_scored_in_its_two_scopes(replicates, tiny, pooling):
    own, config = replicates[0], dataclasses.replace(tiny, pooling=pooling)
    (teacher,) = fit_teacher(config, [own])
    model = teacher_model(config, own)
    found = attention_reference(model, teacher.params, own)
    assert (found.stage, found.oracle) == ("attention", False)

    def terms(bags):
        return instance_terms(model, teacher.params, own.pool, bags.instance, Normalise.of(own, Compute()), Compute())

    alone = terms(own.test_instances).attention.numpy()
    assert found.metrics["instance_auc"] == pytest.approx(metrics.auc(own.test_instances.label, alone))
    in_bags = terms(own.test)
    raw, truth, weights, within = in_bags.attention.double().numpy(), own.test.instance_label, [], []
    for a, b in zip(own.test.offsets[:-1], own.test.offsets[1:], strict=True):
        weights.append(np.exp(raw[a:b]) / np.exp(raw[a:b]).sum())
        if 0 < truth[a:b].sum() < b - a:
            within.append(metrics.auc(truth[a:b], weights[-1]))
    expected = {
        "bagged_auc_weight": metrics.auc(truth, np.concatenate(weights)),
        "bagged_auc_raw": metrics.auc(truth, raw),
        "bagged_auc_logit": metrics.auc(truth, in_bags.logit.numpy()),
        "bagged_auc_within": np.mean(within),
    }
    assert within and {k: found.metrics[k] for k in expected} == pytest.approx(expected, abs=2e-3)


def test_a_pooling_without_attention_has_no_such_row(replicates, tiny):
    config = dataclasses.replace(tiny, pooling="instance_max")
    model = teacher_model(config, replicates[0])
    with pytest.raises(UserError, match="needs pooling attention or gated_attention; found instance_max"):
        attention_reference(model, {}, replicates[0])
