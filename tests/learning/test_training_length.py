"""A length in epochs is a number of steps, of each replicate's training bags, and trains as that number does."""

import dataclasses

import pytest
from fitted_comparison import assert_same
from vector_bags import vector_replicates

from d2l_study.data import SyntheticColonBags
from d2l_study.errors import UserError
from d2l_study.learning import StudentConfig, TeacherConfig, fit_student, fit_teacher, teacher_targets
from d2l_study.learning.class_maps import fit_class_map
from d2l_study.learning.packed.training import fit_teachers
from d2l_study.learning.prediction import Compute
from d2l_study.learning.references import fit_reference
from d2l_study.learning.teacher_model import teacher_model

EPOCHS = TeacherConfig(feature_width=16, attention_width=8, epochs=3, batch_bags=3, learning_rate=2e-3, decay="cosine")
STUDENT = {"feature_width": 16, "augment": "none", "batch_bags": 3}


def as_steps(config, steps, every):
    return dataclasses.replace(config, epochs=None, min_steps=1, steps=steps, eval_every=every)


@pytest.mark.parametrize(
    ("bags", "batch", "epochs", "least", "steps", "every"),
    [
        (50, 1, 50, 1, 2500, 250), (500, 1, 5, 1, 2500, 250), (50, 1, 5, 2000, 2000, 200), (10, 3, 3, 1, 12, 2),
        (9, 3, 3, 1, 9, 1), (10, 16, 7, 1, 7, 1), (500, 4, 50, 2000, 6250, 625),
    ],
)  # fmt: skip
def test_epochs_are_whole_rounds_of_steps_and_at_least_the_fewest(bags, batch, epochs, least, steps, every):
    config = TeacherConfig(epochs=epochs, min_steps=least, batch_bags=batch)
    assert config.in_steps(bags) == TeacherConfig(steps=steps, eval_every=every, batch_bags=batch)
    assert dataclasses.replace(config, eval_every=7).in_steps(bags).eval_every == 7


def test_without_epochs_a_configuration_is_what_it_was():
    assert (TeacherConfig().steps, TeacherConfig().eval_every) == (2000, 100)
    assert (StudentConfig().steps, StudentConfig().eval_every) == (600, 50)
    assert TeacherConfig().in_steps(7) == TeacherConfig(steps=2000, eval_every=100, epochs=None)
    assert not {"epochs", "min_steps"} & TeacherConfig(min_steps=50).identity().keys()  # it does nothing without epochs


def test_a_length_is_given_once():
    with pytest.raises(UserError, match="steps: 600 and epochs: 5 both say how long training is; expected one of them"):
        StudentConfig(steps=600, epochs=5)
    with pytest.raises(UserError, match="steps: 2000 and epochs: 5"):  # the usual one is no exception
        TeacherConfig(steps=2000, epochs=5)
    with pytest.raises(UserError, match="epochs: 0 is not allowed"):
        TeacherConfig(epochs=0)


def test_a_teacher_of_epochs_is_that_of_as_many_steps(make_replicate):
    replicates = [make_replicate(r) for r in range(2)]  # 10 bags, by 3: 4 steps an epoch
    for found, plain in zip(
        fit_teacher(EPOCHS, replicates), fit_teacher(as_steps(EPOCHS, 12, 2), replicates), strict=True
    ):
        assert found.steps_run == 12 and len(found.curve) == 6
        assert_same(found, plain)


def test_replicates_of_unequal_bags_have_their_own_lengths_alone_and_together(make_replicate):
    replicates = [make_replicate(0, train=10), make_replicate(1, train=16)]
    together = fit_teacher(EPOCHS, replicates)
    assert [r.steps_run for r in together] == [12, 18]
    for found, replicate in zip(together, replicates, strict=True):
        assert_same(found, fit_teacher(EPOCHS, [replicate])[0])
        assert_same(found, fit_teacher(as_steps(EPOCHS, found.steps_run, 2), [replicate])[0])


@pytest.mark.parametrize("mean", [12, None])
def test_packed_vectors_train_as_long_as_by_turns(mean):
    """Folds have one length, whatever their own number of bags is; without folds, each has its own."""
    replicates = [dataclasses.replace(r, mean_train_bags=mean) for r in vector_replicates([10, 12, 14])]
    config = TeacherConfig(extractor="mlp", feature_width=12, attention_width=5, epochs=4, batch_bags=2)
    expected = [24, 24, 24] if mean else [20, 24, 28]
    packed, turns = (fit_teacher(config, replicates, compute=Compute(packed=on)) for on in (True, False))
    of_problems = fit_teachers([(config, replicate) for replicate in replicates])
    for found in (packed, turns, of_problems):
        assert [r.steps_run for r in found] == expected
    for one, other, third, steps in zip(packed, turns, of_problems, expected, strict=True):
        assert [c["step"] for c in one.curve] == [c["step"] for c in other.curve] == [c["step"] for c in third.curve]
        assert one.curve[-1]["step"] == steps
        assert one.metrics["val_bag_nll"] == pytest.approx(other.metrics["val_bag_nll"], rel=1e-3)
        assert third.metrics["val_bag_nll"] == pytest.approx(other.metrics["val_bag_nll"], rel=1e-3)


def test_a_resumed_training_goes_on_to_the_same_end(make_replicate):
    replicate, states = make_replicate(0), []
    (whole,) = fit_teacher(
        EPOCHS, [replicate], checkpoint=lambda number, state: states.append(state), checkpoint_every=4
    )
    (resumed,) = fit_teacher(EPOCHS, [replicate], resume={0: states[0]})
    assert_same(whole, resumed)


def test_students_and_references_count_their_own_bags_per_step(make_replicate, tiny):
    replicate = make_replicate(0)
    (teacher,) = fit_teacher(tiny, [replicate])
    targets = {0: [teacher_targets(teacher_model(tiny, replicate), teacher.params, replicate)]}
    config = StudentConfig(**STUDENT, epochs=2, min_steps=5, generations=2)
    plain = StudentConfig(**STUDENT, steps=8, eval_every=1, generations=2)
    (found,), (expected,) = (fit_student(c, [replicate], targets) for c in (config, plain))
    assert found.steps_run == 16  # of each generation 8
    assert_same(found, expected)
    for kind in ("bag_label", "oracle"):
        (found,), (expected,) = (fit_reference(kind, c, [replicate]) for c in (config, plain))
        assert_same(found, expected)
    config, plain = (dataclasses.replace(c, eval_every=4) for c in (config, plain))
    (found,), (expected,) = (fit_reference("no_teacher", c, [replicate]) for c in (config, plain))
    assert found.steps_run == 16  # those of both generations
    assert_same(found, expected)


def test_a_class_map_sees_each_image_once_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv("D2L_CACHE", str(tmp_path))
    data = SyntheticColonBags(images=12, side=60, nuclei=6.0, folds=3)
    replicate = data.replicate(data.load_pool(), 0, 5)
    assert len(replicate.train) == 4
    (found,) = fit_class_map("cam", StudentConfig(epochs=2, batch_bags=3), [replicate])
    assert found.steps_run == 4
