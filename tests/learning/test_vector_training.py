"""Training on bags whose instances are vectors: teacher, regularizers, packed training, student and references."""

import dataclasses

import numpy as np
import pytest
import torch
from packed_losses import assert_packed_losses
from vector_bags import vector_replicate, vector_replicates

from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig, fit_student, fit_teacher, packing, teacher_targets
from d2l_study.learning.batches import draw_batch
from d2l_study.learning.config import NOISE_KINDS
from d2l_study.learning.noise_instances import noise_instances, other_negatives
from d2l_study.learning.packed.training import fit_teachers
from d2l_study.learning.packing import packed_or_by_turns
from d2l_study.learning.prediction import Compute, Normalise
from d2l_study.learning.references import attention_reference, fit_reference
from d2l_study.learning.teacher_model import teacher_model
from d2l_study.poolings import POOLINGS

ALL = {"lambda_adv": 0.7, "lambda_noise": 1.3, "lambda_ent": 0.4, "drop_rate": 0.4, "epsilon": 0.5}
SMALL = {"extractor": "mlp", "feature_width": 12, "attention_width": 5, "steps": 60, "eval_every": 20,
         "learning_rate": 1e-2}  # fmt: skip


# ---- normalisation
def test_vectors_are_normalised_by_the_training_part():
    replicate = vector_replicate()
    x = Normalise.of(replicate, Compute())(replicate.pool.instances[replicate.train.instance])
    assert x.dtype == torch.float32
    torch.testing.assert_close(x.mean(0), torch.zeros(7), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0, unbiased=False), torch.ones(7), atol=1e-4, rtol=0)


def test_vectors_of_unit_length():
    replicate = vector_replicate(unit_length=True)
    instances = np.concatenate([replicate.pool.instances[:5], np.zeros((1, 7), np.float16)])
    x = Normalise.of(replicate, Compute())(instances)
    torch.testing.assert_close(x.norm(dim=1), torch.tensor([1.0] * 5 + [0.0]))
    torch.testing.assert_close(
        x[0] * np.linalg.norm(instances[0].astype(float)), torch.from_numpy(instances[0]).float()
    )


# ---- noise instances
def test_other_negatives_are_all_instances_of_other_bags_of_label_0_alike():
    train = vector_replicate(train=6).train
    rng = np.random.default_rng(0)
    for owner in range(6):
        found = other_negatives(rng, np.full(20_000, owner), train)
        allowed = [b for b in range(6) if train.label[b] == 0 and b != owner]
        expected = np.concatenate([train.instance[train.offsets[b] : train.offsets[b + 1]] for b in allowed])
        values, counts = np.unique(found, return_counts=True)
        assert values.tolist() == sorted(expected.tolist())
        assert np.abs(counts / counts.mean() - 1).max() < 0.2


def test_the_only_negative_bag_draws_from_itself():
    replicate = vector_replicate(train=2)
    found = other_negatives(np.random.default_rng(0), np.array([0, 0, 1]), replicate.train)
    assert set(found) <= set(range(int(replicate.train.offsets[1])))


@pytest.mark.parametrize("packed", [False, True])
def test_without_a_negative_bag_the_key_is_named(packed):
    """A few bags whose labels are flipped may all be positive."""
    config = TeacherConfig(**SMALL, lambda_noise=1.0, noise_kind="negatives")
    first, second = vector_replicates([6, 6])
    second = dataclasses.replace(second, train=dataclasses.replace(second.train, label=np.ones(6, np.int8)))
    said = "noise_kind: negatives needs a training bag of label 0; replicate 1 has none of 6"
    with pytest.raises(UserError, match=said):
        fit_teacher(config, [first, second], compute=Compute(packed=packed))
    with pytest.raises(UserError, match=said):
        fit_teachers([(config, first), (config, second)])
    short = dataclasses.replace(config, noise_kind="gaussian", steps=2)
    assert fit_teacher(short, [second])[0].status == "done"


def test_shuffled_vectors_keep_their_normalised_values():
    replicate = vector_replicate()
    normalise = Normalise.of(replicate, Compute())
    seen = replicate.pool.instances[:4]
    bag_of, owner = np.array([0, 0, 1, 1]), np.array([0, 1, 1])
    noise = noise_instances("shuffled", np.random.default_rng(0), owner, seen, bag_of, np.array([0, 1]),
                            replicate.pool, replicate.train, normalise)  # fmt: skip
    x = normalise(seen)
    for one, own in zip(noise, owner, strict=True):
        sources = [x[i] for i in range(4) if bag_of[i] == own]
        same = [torch.equal(one.sort().values, source.sort().values) for source in sources]
        assert any(same)
        assert not any(torch.equal(one, source) for source in sources)


@pytest.mark.parametrize("kind", [*NOISE_KINDS, "zeros"])
def test_every_kind_of_noise_that_a_space_may_ask_for_is_made_and_no_other(kind):
    replicate = vector_replicate()
    seen, owner = replicate.pool.instances[:4], np.array([0, 1, 1])

    def made():
        return noise_instances(kind, np.random.default_rng(0), owner, seen, np.array([0, 0, 1, 1]), np.array([0, 1]),
                               replicate.pool, replicate.train, Normalise.of(replicate, Compute()))  # fmt: skip

    if kind in NOISE_KINDS:
        assert made().shape == (3, *replicate.pool.shape)
    else:
        with pytest.raises(ValueError, match="noise_kind: 'zeros'; expected one of gaussian, uniform"):
            made()


# ---- teacher
@pytest.mark.parametrize("extractor", ["none", "mlp"])
def test_a_teacher_finds_the_positive_instances(extractor):
    replicate = vector_replicate(train=40, val=20, test=40, shift=20.0)
    config = TeacherConfig(**{**SMALL, "extractor": extractor, "steps": 300, "eval_every": 50, "lambda_adv": 0.5})
    (fitted,) = fit_teacher(config, [replicate])
    assert fitted.metrics["bag_auc"] > 0.9
    assert fitted.metrics["instance_auc"] > 0.9


@pytest.mark.parametrize("layers", [1, 3])
def test_every_term_and_noise_trains(layers):
    replicate = vector_replicate()
    for kind in ("gaussian", "shuffled", "negatives"):
        config = TeacherConfig(**SMALL, **ALL, hidden_layers=layers, noise_kind=kind, instance_noise=0.1, dropout=0.2,
                               mixup=0.3, batch_bags=4, instances_per_bag=3, direction="power")  # fmt: skip
        (fitted,) = fit_teacher(config, [replicate])
        assert fitted.status == "done"
        assert all(point[part] > 0 for point in fitted.curve for part in ("r_adv", "r_noise", "r_ent"))


def test_dropout_without_an_extractor_drops_dimensions():
    replicate = vector_replicate()
    config = TeacherConfig(**{**SMALL, "extractor": "none", "dropout": 0.5})
    batch = draw_batch(config, replicate.pool, replicate.train, replicate.streams, 0,
                       Normalise.of(replicate, Compute()))  # fmt: skip
    assert batch.masks.dropout.shape == batch.x.shape
    assert set(batch.masks.dropout.unique().tolist()) == {0.0, 2.0}


# ---- packed
@pytest.mark.parametrize("unit_length", [False, True])
@pytest.mark.parametrize(
    ("extractor", "more"),
    [
        ("none", {}),
        ("mlp", {"hidden_layers": 2, "dropout": 0.3, "instance_noise": 0.2}),
        ("mlp", {"pooling": "gated_attention", "noise_kind": "negatives", "mixup": 0.4}),
        ("mlp", {"direction": "power", "noise_kind": "shuffled"}),
        *(("none", {"pooling": pooling, "dropout": 0.3}) for pooling in POOLINGS),
    ],
)
@pytest.mark.parametrize("formulation", [None, "matmul", "grouped"])
def test_packed_losses_are_those_of_one_by_one_in_float64(extractor, more, unit_length, formulation):
    config = TeacherConfig(
        **{**SMALL, **ALL, "extractor": extractor, "batch_bags": 4, "eval_every": 1, "steps": 4, **more}
    )
    replicates = vector_replicates([8, 9, 10], unit_length=unit_length)
    assert_packed_losses(config, replicates, Compute(packed=True, formulation=formulation))


def test_a_packed_training_ends_as_one_by_one():
    config = TeacherConfig(**SMALL, lambda_adv=0.5, epsilon=0.5)
    replicates = vector_replicates([10, 13, 16, 19])
    alone = fit_teacher(config, replicates, compute=Compute(packed=False))
    packed = fit_teacher(config, replicates, compute=Compute(packed=True))
    for one, other in zip(alone, packed, strict=True):
        assert one.best_step == other.best_step
        for name in ("bag_auc", "instance_auc", "val_bag_auc"):
            assert one.metrics[name] == pytest.approx(other.metrics[name], abs=1e-9)


def test_small_bags_of_vectors_are_packed_by_themselves_and_large_ones_are_not(monkeypatch):
    replicates = vector_replicates([10, 13, 16])
    config = TeacherConfig(**SMALL)
    assert packed_or_by_turns(config, replicates, Compute()) == Compute(packed=True, pack=3)
    assert packed_or_by_turns(config, replicates, Compute(pack=2)) == Compute(packed=True, pack=2)
    assert packed_or_by_turns(config, replicates, Compute(packed=False)) == Compute(packed=False)
    assert packed_or_by_turns(config, replicates[:1], Compute()) == Compute()
    one = 7 * max(int(r.train.sizes.max()) for r in replicates)
    monkeypatch.setattr(packing, "STACK_VALUES", 2 * one)
    assert packed_or_by_turns(config, replicates, Compute()) == Compute(packed=True, pack=2)
    monkeypatch.setattr(packing, "STACK_VALUES", 2 * one - 1)
    assert packed_or_by_turns(config, replicates, Compute()) == Compute()
    few = dataclasses.replace(config, instances_per_bag=1)
    assert packed_or_by_turns(few, replicates, Compute()).pack == 3


# ---- student and references
@pytest.mark.parametrize(("network", "start"), [("mlp", "teacher"), ("mlp", "fresh"), ("none", "fresh")])
def test_a_student_learns_from_a_teacher_of_vectors(network, start):
    replicate = vector_replicate(train=40, val=20, test=40, shift=20.0)
    (teacher,) = fit_teacher(TeacherConfig(**{**SMALL, "steps": 200}), [replicate])
    model = teacher_model(TeacherConfig(**SMALL), replicate)
    targets = {0: [teacher_targets(model, teacher.params, replicate)]}
    config = StudentConfig(network=network, feature_width=12, augment="none", steps=150, eval_every=50, start=start,
                           learning_rate=1e-2, dropout=0.1, input_noise=0.1, mixup=0.2)  # fmt: skip
    (student,) = fit_student(config, [replicate], targets)
    assert student.metrics["instance_auc"] > 0.9


def test_references_of_vectors():
    replicate = vector_replicate(train=40, val=20, test=40, shift=20.0)
    config = StudentConfig(network="mlp", feature_width=12, augment="none", steps=100, eval_every=50,
                           learning_rate=1e-2)  # fmt: skip
    (oracle,) = fit_reference("oracle", config, [replicate])
    assert oracle.metrics["instance_auc"] > 0.95
    (teacher,) = fit_teacher(TeacherConfig(**SMALL), [replicate])
    found = attention_reference(teacher_model(TeacherConfig(**SMALL), replicate), teacher.params, replicate)
    assert np.isfinite(found.metrics["instance_auc"])
